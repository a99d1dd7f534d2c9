/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/giveup.h"

#include "lib/fault.h"
#include "lib/refill.h"
#include "lib/rotate.h"
#include "lib/uffd.h"

/* Takes a page in whatever state it is and ends it as lost. */
static void end_page(struct worker *worker, struct secpool_region *region, uint64_t pgno)
{
	struct page *page = &region->pages[pgno];
	uint8_t *at = region->address + pgno * region->page_bytes;
	uint64_t seen = atomic_load(&page->word);
	bool resident = false;

	for (;;) {
		if (page_state(seen) == PAGE_LOST)
			return;
		if (page_busy(seen)) {
			fault_await_page(worker, page, seen);
			seen = atomic_load(&page->word);
			continue;
		}
		resident = page_state(seen) == PAGE_CLEAN || page_state(seen) == PAGE_DIRTY;
		if (page_step(page, &seen, resident ? PAGE_WRITE_BEGIN : PAGE_FILL_BEGIN,
			    page_copies(seen), page_version(seen)))
			break;
	}
	/* what can't be dropped is poisoned over nothing: no zeros either way */
	(void)!uffd_drop(at, region->page_bytes);
	(void)!uffd_poison(worker->uffd, at, region->page_bytes);
	seen = atomic_load(&page->word);
	while (!page_step(
		page, &seen, resident ? PAGE_VANISHED : PAGE_FILL_LOST, 0, page_version(seen)))
		;
	atomic_fetch_add(&region->lost_pages, 1);
	if (resident && (seen & PAGE_UNQUEUED))
		cache_return(&region->pool->cache, worker->index, region->page_bytes);
	else if (resident) /* its entry is queued: its room is returned with it (fault.c) */
		atomic_fetch_add(&region->vanished, 1);
	fault_wake_page(worker, region, pgno);
}

void giveup_region(struct secpool *pool, struct secpool_region *region)
{
	struct worker *worker = pool_service_worker(pool);
	struct secpool_event event = {.type = SECPOOL_EVENT_REGION_ENDED,
		.region = region,
		.range = {.offset = 0, .bytes = region->bytes}};

	if (atomic_exchange(&region->ended, true))
		return;
	refill_cancel(pool, region);
	region->lacks_places = false;
	region->rebuild.active = region->patrol.active = false;
	rotate_end(region);
	for (uint64_t pgno = 0; pgno < region->page_count; pgno++)
		end_page(worker, region, pgno);
	/* whoever began before the end was told is out of it after this */
	workers_await(pool);
	keyring_done(&region->keys);
	events_add(&pool->events, &event);
}

void giveup_all(struct secpool *pool)
{
	for (unsigned slot = 0; slot < pool->region_slots; slot++) {
		struct secpool_region *region = pool->regions[slot];
		if (region)
			giveup_region(pool, region);
	}
}
