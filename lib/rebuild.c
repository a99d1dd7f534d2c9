/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/rebuild.h"

#include "lib/erasure.h"
#include "lib/evict.h"
#include "lib/mirror.h"

/* Pages looked at in one piece, and of them written: the service has other things to do between. */
enum { LOOK_PAGES = 4096, WRITE_PAGES = 32 };

void rebuild_start(struct secpool_region *region)
{
	if (region->lanes > 1) {
		region->rebuild_next = 0;
		region->rebuilding = true;
	}
}

enum outcome { NOTHING, WRITTEN, LATER };

static enum outcome rebuild_copies(
	struct worker *worker, struct secpool_region *region, uint64_t pgno)
{
	struct page *page = &region->pages[pgno];
	uint64_t seen = atomic_load(&page->word);

	if (page_busy(seen))
		return LATER; /* it may end absent, with the copies that it had */
	if (page_version(seen) == 0 || !mirror_missing(region, pgno, page_copies(seen)))
		return NOTHING;
	if (page_state(seen) == PAGE_ABSENT)
		return mirror_rebuild(worker, region, pgno, seen) ? WRITTEN : LATER;
	if (page_state(seen) == PAGE_CLEAN) {
		if (!page_step(page, &seen, PAGE_WRITE, 0, page_version(seen)))
			return LATER;
		/* dirty now: it is written to all places, here or when it is evicted */
		worker_enter(worker);
		(void)!evict_flush_range(worker, region, pgno, pgno + 1, NULL);
		worker_leave(worker);
		return WRITTEN;
	}
	return NOTHING; /* dirty: who evicts it writes all copies */
}

/* The unit of work: a page of a mirror, a stripe of a code. */
static uint64_t unit_count(const struct secpool_region *region)
{
	return region->data > 1 ? region->stripe_count : region->page_count;
}

static enum outcome rebuild_unit(
	struct worker *worker, struct secpool_region *region, uint64_t number)
{
	if (region->data > 1)
		return erasure_rebuild(worker, region, number, false) ? WRITTEN : NOTHING;
	return rebuild_copies(worker, region, number);
}

bool rebuild_some(struct secpool *pool)
{
	struct worker *worker = pool_service_worker(pool);
	unsigned looked = 0, written = 0;

	for (unsigned slot = 0; slot < pool->region_slots; slot++) {
		struct secpool_region *region = pool->regions[slot];
		if (!region)
			continue;
		if (atomic_exchange(&region->rebuild_wanted, false))
			rebuild_start(region);
		if (!region->rebuilding)
			continue;
		while (region->rebuild_next < unit_count(region)) {
			if (looked++ >= LOOK_PAGES || written >= WRITE_PAGES)
				return true;
			switch (rebuild_unit(worker, region, region->rebuild_next)) {
			case LATER:
				return true;
			case WRITTEN:
				written++;
				break;
			case NOTHING:
				break;
			}
			region->rebuild_next++;
		}
		region->rebuilding = false;
	}
	return false;
}
