/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/fill.h"

#include <string.h>

#include "lib/evict.h"
#include "lib/loss.h"
#include "lib/mirror.h"

void fill_lost(struct secpool_region *region, uint64_t pgno, enum secpool_cause cause,
	const struct device *device)
{
	struct secpool_event event = {
		.type = SECPOOL_EVENT_REGION_LOST,
		.cause = cause,
		.region = region,
		.range = {.offset = pgno * region->page_bytes, .bytes = region->page_bytes},
	};
	uint8_t *at = region->address + pgno * region->page_bytes;

	if (device)
		memcpy(event.device, device->id, sizeof event.device);
	atomic_fetch_add(&region->lost_pages, 1);
	/* without poison the page would be asked for again, and found lost again: slow, never wrong */
	if (uffd_poison(&region->pool->uffd, at, region->page_bytes) != SECPOOL_OK)
		uffd_wake(&region->pool->uffd, at, region->page_bytes);
	loss_tell(region->pool, &event);
}

void fill_end_as_lost(struct secpool_region *region, uint64_t pgno, enum secpool_cause cause,
	const struct device *device)
{
	struct page *page = &region->pages[pgno];
	uint64_t seen = atomic_load(&page->word);

	while (!page_step(page, &seen, PAGE_FILL_LOST, 0, page_version(seen)))
		;
	fill_lost(region, pgno, cause, device);
}

static void tell_repair(
	struct secpool_region *region, uint64_t pgno, const struct mirror_result *result)
{
	struct secpool_event event = {
		.type = SECPOOL_EVENT_BAD_COPY,
		.cause = SECPOOL_CAUSE_INTEGRITY,
		.region = region,
		.range = {.offset = pgno * region->page_bytes, .bytes = region->page_bytes},
	};

	memcpy(event.device, result->bad_device->id, sizeof event.device);
	loss_tell(region->pool, &event);
}

/* After the page is mapped: its new state, and a wake for those who came between. */
static void finish(struct secpool_region *region, uint64_t pgno, bool writable)
{
	struct page *page = &region->pages[pgno];
	uint64_t seen = atomic_load(&page->word);
	bool dirty;

	/* in the queue before the step: who takes it out early finds it busy and puts it back */
	cache_push(&region->pool->cache, region->slot, pgno);
	do {
		/* the copies may have gone while it was read: then this frame is the only one */
		dirty = writable || (page_version(seen) > 0 && page_copies(seen) == 0);
	} while (!page_step(page, &seen, dirty ? PAGE_FILL_DIRTY : PAGE_FILL_CLEAN,
		dirty ? 0 : page_copies(seen), page_version(seen)));
	if (seen & PAGE_WAITERS)
		uffd_wake(&region->pool->uffd, region->address + pgno * region->page_bytes,
			region->page_bytes);
}

void fill_page(struct worker *worker, struct secpool_region *region, uint64_t pgno, uint64_t seen,
	bool writable)
{
	struct secpool *pool = region->pool;
	struct page *page = &region->pages[pgno];
	uint8_t *at = region->address + pgno * region->page_bytes;
	uint64_t version = page_version(seen);
	struct mirror_result result = {0};
	const uint8_t *from = pool->zeros;

	if (!page_step(page, &seen, PAGE_FILL_BEGIN, page_copies(seen), version))
		return;
	if (evict_make_room(worker, region->page_bytes) != SECPOOL_OK) {
		fill_end_as_lost(region, pgno, SECPOOL_CAUSE_NO_SPACE, NULL);
		return;
	}
	if (version > 0) {
		if (mirror_read(worker, region, pgno, &result) != SECPOOL_OK) {
			cache_return(&pool->cache, region->page_bytes);
			fill_end_as_lost(region, pgno,
				result.bad_copies ? SECPOOL_CAUSE_INTEGRITY : SECPOOL_CAUSE_REMOVED,
				result.bad_device);
			return;
		}
		if (result.bad_copies)
			tell_repair(region, pgno, &result);
		from = worker->plain;
	}
	counter_add(version > 0 ? &pool->counters.fills : &pool->counters.zero_fills, 1);
	if (uffd_copy(&pool->uffd, at, from, region->page_bytes, !writable) != SECPOOL_OK) {
		cache_return(&pool->cache, region->page_bytes);
		fill_end_as_lost(region, pgno, SECPOOL_CAUSE_NO_SPACE, NULL);
		return;
	}
	finish(region, pgno, writable);
}
