/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/fill.h"

#include <string.h>

#include "lib/evict.h"
#include "lib/fault.h"
#include "lib/loss.h"
#include "lib/overhead.h"
#include "lib/redundancy.h"
#include "lib/refill.h"
#include "lib/region.h"

_Static_assert((int)CACHE_ERA_BITS == (int)PAGE_ERA_BITS, "an era fits the word");

void fill_lost(struct worker *worker, struct secpool_region *region, uint64_t pgno,
	enum secpool_cause cause, const struct device *device)
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
	if (!refill_possible(region, atomic_load(&region->pages[pgno].word)))
		(void)!uffd_poison(worker->uffd, at, region->page_bytes);
	fault_wake_page(worker, region, pgno);
	loss_tell(worker, &event);
}

void fill_end_as_lost(struct worker *worker, struct secpool_region *region, uint64_t pgno,
	enum secpool_cause cause, const struct device *device)
{
	struct page *page = &region->pages[pgno];
	uint64_t seen = atomic_load(&page->word);

	while (!page_step(page, &seen, PAGE_FILL_LOST, 0, page_version(seen)))
		;
	fill_lost(worker, region, pgno, cause, device);
}

enum secpool_error fill_read(
	struct worker *worker, struct secpool_region *region, uint64_t pgno, uint8_t *plain)
{
	struct redundancy_result result;

	if (redundancy_read(worker, region, pgno, plain, &result) != SECPOOL_OK) {
		fill_end_as_lost(worker, region, pgno,
			result.bad ? SECPOOL_CAUSE_INTEGRITY : SECPOOL_CAUSE_REMOVED,
			result.bad_device);
		return SECPOOL_E_LOST;
	}
	if (result.bad)
		loss_tell_bad(worker, region, pgno, result.bad_device, result.bad_at);
	counter_add(worker, COUNTER_FILLS, 1);
	return SECPOOL_OK;
}

/*
 * Outcomes that are looked at together; one write to so many clean pages makes it worth while to fill writable (a protection fault costs 7 us and more, a needless write-back 1.2 us on
 * another CPU, measured); one page of so many is the sample.
 */
enum { OUTCOMES = 256, OUTCOMES_WORTH = 4, SAMPLE_OF = 8 };

void fill_note_outcome(struct secpool_region *region, bool rewritten)
{
	_Atomic uint32_t *count = rewritten ? &region->rewritten : &region->stayed_clean;
	uint32_t again, clean;

	atomic_fetch_add_explicit(count, 1, memory_order_relaxed);
	again = atomic_load_explicit(&region->rewritten, memory_order_relaxed);
	clean = atomic_load_explicit(&region->stayed_clean, memory_order_relaxed);
	if (again + clean < OUTCOMES)
		return;
	atomic_store_explicit(&region->fills_writable, again * OUTCOMES_WORTH > again + clean,
		memory_order_relaxed);
	atomic_store_explicit(&region->rewritten, 0, memory_order_relaxed);
	atomic_store_explicit(&region->stayed_clean, 0, memory_order_relaxed);
}

static bool fills_writable(const struct secpool_region *region, uint64_t pgno)
{
	return atomic_load_explicit(&region->fills_writable, memory_order_relaxed) &&
	       pgno % SAMPLE_OF != 0;
}

void fill_end_protection(struct worker *worker, struct secpool_region *region, uint64_t pgno)
{
	struct page *page = &region->pages[pgno];
	uint8_t *at = region->address + pgno * region->page_bytes;
	bool failed = uffd_unprotect(worker->uffd, at, region->page_bytes) != SECPOOL_OK;
	uint64_t seen;

	if (failed && worker->guest)
		atomic_store(&worker->pool->program_broken, true);
	seen = atomic_load(&page->word);
	while (!page_step(page, &seen, PAGE_WRITE_END, 0, page_version(seen)))
		;
	if (failed || (seen & PAGE_WAITERS))
		fault_wake_page(worker, region, pgno);
}

static uint64_t pgno_of(const struct fillset *fill, unsigned i)
{
	return fill->first + fill->stride * i;
}

static uint8_t *address_of(const struct fillset *fill, unsigned i)
{
	return fill->region->address + pgno_of(fill, i) * fill->region->page_bytes;
}

/* After the page is mapped: its new state, and a wake for those who came between. */
static void finish(struct worker *worker, const struct fillset *fill, unsigned i)
{
	struct secpool_region *region = fill->region;
	struct cache *cache = &worker->pool->cache;
	struct page *page = &region->pages[pgno_of(fill, i)];
	uint64_t seen = atomic_load(&page->word);
	struct cache_entry entry = {.region = region->slot, .pgno = pgno_of(fill, i)};
	bool dirty;

	if (fill->wanted)
		entry.queue = CACHE_HOT;
	else if (page_version(seen) > 0)
		entry.queue = cache_queue_for(cache, (uint16_t)page_era(seen));
	if (page_era(seen) != 0)
		page_note_era(page, 0);
	/* in the queue before the step: who takes it out early finds it busy and puts it back */
	cache_push(cache, worker->index, entry);
	seen = atomic_load(&page->word);
	do {
		/* the copies may have gone while it was read: then this frame is the only one */
		dirty = fill->writable || (page_version(seen) > 0 && page_copies(seen) == 0);
	} while (!page_step(page, &seen, dirty ? PAGE_FILL_DIRTY : PAGE_FILL_CLEAN,
		dirty ? 0 : page_copies(seen), page_version(seen)));
	if (seen & PAGE_WAITERS)
		fault_wake_page(worker, region, pgno_of(fill, i));
}

/* Brings the page's bytes to `plain`. On error the page has ended as lost, and its room is returned. */
static enum secpool_error load(
	struct worker *worker, const struct fillset *fill, unsigned i, uint8_t *plain)
{
	struct secpool_region *region = fill->region;
	uint64_t pgno = pgno_of(fill, i);

	if (page_version(atomic_load(&region->pages[pgno].word)) == 0) {
		memset(plain, 0, region->page_bytes);
		counter_add(worker, COUNTER_ZERO_FILLS, 1);
		return SECPOOL_OK;
	}
	if (i + 1 < fill->count)
		redundancy_prefetch(region, pgno_of(fill, i + 1));
	if (fill_read(worker, region, pgno, plain) != SECPOOL_OK) {
		cache_return(&worker->pool->cache, worker->index, region->page_bytes);
		return SECPOOL_E_LOST;
	}
	return SECPOOL_OK;
}

void fill_undo(struct worker *worker, struct secpool_region *region, uint64_t pgno)
{
	struct page *page = &region->pages[pgno];
	uint64_t seen = atomic_load(&page->word);
	bool lost;

	do {
		lost = page_version(seen) > 0 && page_copies(seen) == 0;
	} while (!page_step(page, &seen,
		lost			  ? PAGE_FILL_LOST
		: page_version(seen) == 0 ? PAGE_FILL_UNDO_FRESH
					  : PAGE_FILL_UNDO,
		page_copies(seen), page_version(seen)));
	if (lost)
		fill_lost(worker, region, pgno, SECPOOL_CAUSE_REMOVED, NULL);
	else if (seen & PAGE_WAITERS)
		fault_wake_page(worker, region, pgno);
}

/* Maps pages i to end - 1, which lie side by side at `plain` and, unless it is one, in the region. */
static void map(struct worker *worker, const struct fillset *fill, unsigned i, unsigned end,
	const uint8_t *plain)
{
	struct secpool_region *region = fill->region;
	size_t page_bytes = region->page_bytes;
	enum secpool_error error;

	if (i == end)
		return;
	error = uffd_copy(
		worker->uffd, address_of(fill, i), plain, (end - i) * page_bytes, !fill->writable);
	overhead_mark(worker, OVERHEAD_PLACE);
	for (; i < end; i++) {
		if (!error || uffd_present(address_of(fill, i) + page_bytes -
					   PAGECIPHER_PAGE_BYTES_LEAST)) {
			finish(worker, fill, i);
		} else if (worker->guest) {
			/* the descriptor may not be ours any more: it is as it was, for a handler to bring in */
			atomic_store(&worker->pool->program_broken, true);
			cache_return(&worker->pool->cache, worker->index, page_bytes);
			fill_undo(worker, region, pgno_of(fill, i));
		} else {
			cache_return(&worker->pool->cache, worker->index, page_bytes);
			fill_end_as_lost(
				worker, region, pgno_of(fill, i), SECPOOL_CAUSE_NO_SPACE, NULL);
		}
	}
	overhead_mark(worker, OVERHEAD_END);
}

bool fill_place(
	struct worker *worker, struct secpool_region *region, uint64_t pgno, const uint8_t *plain)
{
	struct fillset fill = {
		.region = region, .first = pgno, .stride = 1, .count = 1, .writable = true};
	uint8_t *at = address_of(&fill, 0);

	if (uffd_copy(worker->uffd, at, plain, region->page_bytes, false) != SECPOOL_OK &&
		!uffd_present(at + region->page_bytes - PAGECIPHER_PAGE_BYTES_LEAST)) {
		cache_return(&worker->pool->cache, worker->index, region->page_bytes);
		return false;
	}
	finish(worker, &fill, 0);
	return true;
}

/* One part of a set: as many pages as the worker decrypts side by side. */
static void run_chunk(struct worker *worker, const struct fillset *fill, unsigned i, unsigned end)
{
	size_t page_bytes = fill->region->page_bytes;
	unsigned first = i, begin = i;

	for (; i < end; i++) {
		uint8_t *plain = worker->plain + (i - first) * page_bytes;
		bool good = load(worker, fill, i, plain) == SECPOOL_OK;
		if (good && fill->stride == 1)
			continue;
		map(worker, fill, begin, i, worker->plain + (begin - first) * page_bytes);
		if (good)
			map(worker, fill, i, i + 1, plain);
		begin = i + 1;
	}
	map(worker, fill, begin, end, worker->plain + (begin - first) * page_bytes);
}

void fill_run(struct worker *worker, const struct fillset *fill)
{
	unsigned fits = (unsigned)(worker->staging_bytes / fill->region->page_bytes);

	if (fits > WORKER_CHUNK_PAGES)
		fits = WORKER_CHUNK_PAGES;
	for (unsigned i = 0; i < fill->count; i += fits)
		run_chunk(worker, fill, i, i + fits < fill->count ? i + fits : fill->count);
}

enum taking { TAKEN, NOT_NOW, NO_ROOM };

/* Takes one more page, if there is room for it without taking another one out. NOT_NOW: it is resident, lost, or in somebody's hand. */
static enum taking take_next(struct worker *worker, struct secpool_region *region, uint64_t pgno)
{
	struct cache *cache = &worker->pool->cache;
	struct page *page = &region->pages[pgno];
	uint64_t seen = atomic_load(&page->word);

	if ((page_state(seen) != PAGE_ABSENT && page_state(seen) != PAGE_FRESH) ||
		(seen & PAGE_BARRED))
		return NOT_NOW;
	if (!cache_reserve(cache, worker->index, region->page_bytes))
		return NO_ROOM;
	if (page_step(page, &seen, PAGE_FILL_BEGIN, page_copies(seen), page_version(seen)))
		return TAKEN;
	cache_return(cache, worker->index, region->page_bytes);
	return NOT_NOW;
}

/* A long run is filled by two: half of it, the one without the page that was asked for, goes to a handler that has nothing to do. */
static void share(struct worker *worker, struct fillset *fill, int64_t stride)
{
	struct fillset half = *fill;

	if ((size_t)fill->count * fill->region->page_bytes <
		2 * (size_t)WORKER_CHUNK_PAGES * PAGECIPHER_PAGE_BYTES_LEAST)
		return;
	half.count = fill->count / 2;
	if (stride > 0)
		half.first = pgno_of(fill, fill->count - half.count);
	if (!handlers_share(worker->pool, &half))
		return;
	fill->count -= half.count;
	if (stride < 0)
		fill->first = pgno_of(fill, half.count);
}

/* The pages that the stream will want next, with the one that was asked for (0): all that can be taken, for the next fault is expected behind them. */
static unsigned take_window(struct worker *worker, const struct fillset *asked, unsigned window,
	int64_t stride, bool taken[READAHEAD_WINDOW_MOST])
{
	unsigned count = 1;

	taken[0] = true;
	for (; stride != 0 && count < window; count++) {
		enum taking taking =
			take_next(worker, asked->region, asked->first + (uint64_t)stride * count);
		if (taking == NO_ROOM)
			break;
		taken[count] = taking == TAKEN;
	}
	return count;
}

/* Fills the runs of pages that were taken. */
static void fill_window(struct worker *worker, const struct fillset *asked, unsigned count,
	int64_t stride, const bool taken[READAHEAD_WINDOW_MOST])
{
	for (unsigned i = 0, end; i < count; i = end) {
		struct fillset run = *asked;
		for (end = i; end < count && taken[end]; end++)
			;
		if (end == i) {
			end++;
			continue;
		}
		run.count = end - i;
		run.first += (uint64_t)stride * (stride < 0 ? end - 1 : i);
		if (stride != 0)
			run.stride = (uint64_t)(stride < 0 ? -stride : stride);
		share(worker, &run, stride);
		fill_run(worker, &run);
	}
}

static void unmark(struct secpool_region *region, uint64_t pgno)
{
	if (atomic_fetch_and(&region->pages[pgno].word, ~PAGE_BARRED) & PAGE_BARRED)
		atomic_fetch_sub(&region->barred_pages, 1);
}

/* There is no room for a page that the caller took to fill it: it stays out, and who asked for it gets SIGBUS. */
static void bar(struct worker *worker, struct secpool_region *region, uint64_t pgno)
{
	struct secpool_event event = {
		.type = SECPOOL_EVENT_NO_SPACE,
		.cause = SECPOOL_CAUSE_NO_SPACE,
		.region = region,
		.range = {.offset = pgno * region->page_bytes, .bytes = region->page_bytes},
	};
	struct page *page = &region->pages[pgno];

	atomic_fetch_or(&page->word, PAGE_BARRED);
	atomic_fetch_add(&region->barred_pages, 1);
	/* without poison the page would be asked for again, and wait again: slow, never wrong */
	(void)!uffd_poison(
		worker->uffd, region->address + pgno * region->page_bytes, region->page_bytes);
	fill_undo(worker, region, pgno);
	if (page_state(atomic_load(&page->word)) == PAGE_LOST)
		unmark(region, pgno);
	fault_wake_page(worker, region, pgno);
	loss_tell(worker, &event);
	loss_noticed(worker); /* the service is to take it back in time */
}

void fill_unbar(struct worker *worker, struct secpool_region *region)
{
	for (uint64_t pgno = 0; atomic_load(&region->barred_pages) > 0 && pgno < region->page_count;
		pgno++) {
		struct page *page = &region->pages[pgno];
		uint64_t seen = atomic_load(&page->word);
		if (!(seen & PAGE_BARRED) || !page_step(page, &seen, PAGE_FILL_BEGIN,
						     page_copies(seen), page_version(seen)))
			continue; /* resident and pinned, or in somebody's hand */
		if (region_heal(worker, region, pgno) == SECPOOL_OK)
			unmark(region, pgno);
		fill_undo(worker, region, pgno);
	}
}

void fill_page(struct worker *worker, struct secpool_region *region, uint64_t pgno, uint64_t seen,
	bool writable)
{
	struct fillset asked = {.region = region, .first = pgno, .stride = 1, .count = 1};
	struct page *page = &region->pages[pgno];
	bool taken[READAHEAD_WINDOW_MOST];
	unsigned count;
	int64_t stride;

	redundancy_prefetch(region, pgno); /* it comes while the rest is looked up */
	if ((seen & PAGE_BARRED) ||
		!page_step(page, &seen, PAGE_FILL_BEGIN, page_copies(seen), page_version(seen))) {
		/* somebody else took it, or a copy was struck from it: the access is made again */
		fault_wake_page(worker, region, pgno);
		return;
	}
	asked.writable = (writable || fills_writable(region, pgno)) && !region_still(region);
	count = readahead_note(&region->readahead, pgno, region->page_count, &stride);
	if (evict_make_room(worker, region->page_bytes) != SECPOOL_OK) {
		bar(worker, region, pgno);
		return;
	}
	count = take_window(worker, &asked, count, stride, taken);
	overhead_mark(worker, OVERHEAD_ROOM);
	fill_window(worker, &asked, count, stride, taken);
}

uint64_t fill_range(struct worker *worker, struct secpool_region *region, uint64_t first,
	uint64_t end, bool writable)
{
	struct fillset fill = {.region = region, .first = first, .stride = 1, .writable = writable};

	while (first + fill.count < end && fill.count < READAHEAD_WINDOW_MOST &&
		take_next(worker, region, first + fill.count) == TAKEN)
		fill.count++;
	if (fill.count > 0)
		fill_run(worker, &fill);
	return first + fill.count;
}
