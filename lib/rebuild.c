/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/rebuild.h"

#include "lib/evict.h"
#include "lib/fault.h"
#include "lib/fill.h"
#include "lib/mirror.h"

/* Pages looked at in one piece, and of them written: the service has other things to do between. */
enum { LOOK_PAGES = 4096, WRITE_PAGES = 32 };

void rebuild_start(struct secpool_region *region)
{
	if (region->copies > 1) {
		region->rebuild_next = 0;
		region->rebuilding = true;
	}
}

/* Ends the rebuilder's ownership of a page: it is absent as before, with the copies that it has now. */
static void give_back(
	struct worker *worker, struct secpool_region *region, uint64_t pgno, unsigned written)
{
	struct page *page = &region->pages[pgno];
	uint64_t seen = atomic_load(&page->word);

	while (!page_step(
		page, &seen, PAGE_FILL_UNDO, page_copies(seen) | written, page_version(seen)))
		;
	if (seen & PAGE_WAITERS)
		fault_wake_page(worker, region, pgno);
}

/* An absent page that lacks copies gets them. Returns whether anything was written. */
static bool rebuild_absent(
	struct worker *worker, struct secpool_region *region, uint64_t pgno, uint64_t seen)
{
	struct page *page = &region->pages[pgno];
	const struct placement *placement = mirror_placement(region);
	unsigned missing = mirror_missing(placement, region, pgno, page_copies(seen));
	struct mirror_result result;

	if (!missing ||
		!page_step(page, &seen, PAGE_FILL_BEGIN, page_copies(seen), page_version(seen)))
		return false;
	if (mirror_read(worker, region, pgno, worker->plain, &result) != SECPOOL_OK) {
		fill_end_as_lost(worker, region, pgno,
			result.bad_copies ? SECPOOL_CAUSE_INTEGRITY : SECPOOL_CAUSE_REMOVED,
			result.bad_device);
		return true;
	}
	give_back(worker, region, pgno, mirror_add(placement, worker, region, pgno, missing));
	if (mirror_strike_gone(placement, worker, region, pgno))
		fill_lost(worker, region, pgno, SECPOOL_CAUSE_REMOVED, NULL);
	return true;
}

enum outcome { NOTHING, WRITTEN, LATER };

static enum outcome rebuild_page(
	struct worker *worker, struct secpool_region *region, uint64_t pgno)
{
	struct page *page = &region->pages[pgno];
	uint64_t seen = atomic_load(&page->word);

	if (page_busy(seen))
		return LATER; /* it may end absent, with the copies that it had */
	if (page_version(seen) == 0 ||
		!mirror_missing(mirror_placement(region), region, pgno, page_copies(seen)))
		return NOTHING;
	if (page_state(seen) == PAGE_ABSENT)
		return rebuild_absent(worker, region, pgno, seen) ? WRITTEN : LATER;
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

bool rebuild_some(struct secpool *pool)
{
	struct worker *worker = pool_service_worker(pool);
	unsigned looked = 0, written = 0;

	for (unsigned slot = 0; slot < pool->region_slots; slot++) {
		struct secpool_region *region = pool->regions[slot];
		if (!region || !region->rebuilding)
			continue;
		while (region->rebuild_next < region->page_count) {
			if (looked++ >= LOOK_PAGES || written >= WRITE_PAGES)
				return true;
			switch (rebuild_page(worker, region, region->rebuild_next)) {
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
