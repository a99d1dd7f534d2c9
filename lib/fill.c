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

/* Pages that a worker fills together: FILLING, its own, `stride` apart; decrypted side by side in worker->plain in the order of their addresses. */
struct fill {
	struct worker *worker;
	struct secpool_region *region;
	uint64_t first;	 /* the lowest page */
	uint64_t stride; /* pages */
	unsigned count;
	bool writable;
};

static uint64_t pgno_of(const struct fill *fill, unsigned i)
{
	return fill->first + fill->stride * i;
}

static uint8_t *address_of(const struct fill *fill, unsigned i)
{
	return fill->region->address + pgno_of(fill, i) * fill->region->page_bytes;
}

/* After the page is mapped: its new state, and a wake for those who came between. */
static void finish(const struct fill *fill, unsigned i)
{
	struct secpool_region *region = fill->region;
	struct page *page = &region->pages[pgno_of(fill, i)];
	uint64_t seen = atomic_load(&page->word);
	bool dirty;

	/* in the queue before the step: who takes it out early finds it busy and puts it back */
	cache_push(&region->pool->cache, region->slot, pgno_of(fill, i));
	do {
		/* the copies may have gone while it was read: then this frame is the only one */
		dirty = fill->writable || (page_version(seen) > 0 && page_copies(seen) == 0);
	} while (!page_step(page, &seen, dirty ? PAGE_FILL_DIRTY : PAGE_FILL_CLEAN,
		dirty ? 0 : page_copies(seen), page_version(seen)));
	if (seen & PAGE_WAITERS)
		uffd_wake(&region->pool->uffd, address_of(fill, i), region->page_bytes);
}

/* Brings the page's bytes to worker->plain. On error the page has ended as lost, and its room is returned. */
static enum secpool_error load(const struct fill *fill, unsigned i)
{
	struct secpool_region *region = fill->region;
	struct counters *counters = &region->pool->counters;
	uint8_t *plain = fill->worker->plain + i * region->page_bytes;
	uint64_t pgno = pgno_of(fill, i);
	struct mirror_result result;

	if (page_version(atomic_load(&region->pages[pgno].word)) == 0) {
		memset(plain, 0, region->page_bytes);
		counter_add(&counters->zero_fills, 1);
		return SECPOOL_OK;
	}
	if (mirror_read(fill->worker, region, pgno, plain, &result) != SECPOOL_OK) {
		cache_return(&region->pool->cache, region->page_bytes);
		fill_end_as_lost(region, pgno,
			result.bad_copies ? SECPOOL_CAUSE_INTEGRITY : SECPOOL_CAUSE_REMOVED,
			result.bad_device);
		return SECPOOL_E_LOST;
	}
	if (result.bad_copies)
		tell_repair(region, pgno, &result);
	counter_add(&counters->fills, 1);
	return SECPOOL_OK;
}

/* Maps pages i to end - 1, which lie side by side in worker->plain and, unless it is one, in the region. */
static void map(const struct fill *fill, unsigned i, unsigned end)
{
	struct secpool_region *region = fill->region;
	size_t page_bytes = region->page_bytes;
	enum secpool_error error;

	if (i == end)
		return;
	error = uffd_copy(&region->pool->uffd, address_of(fill, i),
		fill->worker->plain + i * page_bytes, (end - i) * page_bytes, !fill->writable);
	for (; i < end; i++) {
		if (error && !uffd_present(address_of(fill, i))) {
			cache_return(&region->pool->cache, page_bytes);
			fill_end_as_lost(region, pgno_of(fill, i), SECPOOL_CAUSE_NO_SPACE, NULL);
		} else {
			finish(fill, i);
		}
	}
}

static void run(const struct fill *fill)
{
	unsigned begin = 0;

	for (unsigned i = 0; i < fill->count; i++) {
		bool good = load(fill, i) == SECPOOL_OK;
		if (good && fill->stride == 1)
			continue;
		map(fill, begin, i);
		if (good)
			map(fill, i, i + 1);
		begin = i + 1;
	}
	map(fill, begin, fill->count);
}

/* Takes one more page, if there is room for it without taking another one out. */
static bool take_next(struct fill *fill, uint64_t pgno)
{
	struct secpool_region *region = fill->region;
	struct page *page = &region->pages[pgno];
	uint64_t seen = atomic_load(&page->word);

	if ((page_state(seen) != PAGE_ABSENT && page_state(seen) != PAGE_FRESH) ||
		!cache_reserve(&region->pool->cache, region->page_bytes))
		return false;
	if (page_step(page, &seen, PAGE_FILL_BEGIN, page_copies(seen), page_version(seen)))
		return true;
	cache_return(&region->pool->cache, region->page_bytes);
	return false;
}

/* The pages that the stream will want next. */
static void take_ahead(struct fill *fill, unsigned window, int64_t stride)
{
	size_t fits =
		PAGECIPHER_PAGE_BYTES_LEAST * READAHEAD_WINDOW_MOST / fill->region->page_bytes;
	uint64_t pgno = fill->first;

	if (stride == 0)
		return;
	fill->stride = (uint64_t)(stride < 0 ? -stride : stride);
	while (fill->count < window && fill->count < fits &&
		take_next(fill, pgno + (uint64_t)stride)) {
		pgno += (uint64_t)stride;
		fill->count++;
	}
	if (stride < 0)
		fill->first = pgno;
}

void fill_page(struct worker *worker, struct secpool_region *region, uint64_t pgno, uint64_t seen,
	bool writable)
{
	struct fill fill = {.worker = worker,
		.region = region,
		.first = pgno,
		.stride = 1,
		.count = 1,
		.writable = writable};
	struct page *page = &region->pages[pgno];
	unsigned window;
	int64_t stride;

	if (!page_step(page, &seen, PAGE_FILL_BEGIN, page_copies(seen), page_version(seen))) {
		/* somebody else took it, or a copy was struck from it: the access is made again */
		uffd_wake(&region->pool->uffd, region->address + pgno * region->page_bytes,
			region->page_bytes);
		return;
	}
	window = readahead_note(&region->readahead, pgno, region->page_count, &stride);
	if (evict_make_room(worker, region->page_bytes) != SECPOOL_OK) {
		fill_end_as_lost(region, pgno, SECPOOL_CAUSE_NO_SPACE, NULL);
		return;
	}
	take_ahead(&fill, window, stride);
	run(&fill);
}
