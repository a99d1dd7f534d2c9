/* SPDX-License-Identifier: Apache-2.0 */
/*
 * secpool_read, secpool_write and secpool_flush: regions with errors instead of signals. Whole pages that are not resident are read and written where they are, without
 * mapping them; everything else goes by the mapping.
 */
#include <string.h>

#include "lib/base/clock.h"
#include "lib/base/guarded_copy.h"
#include "lib/evict.h"
#include "lib/fault.h"
#include "lib/fill.h"
#include "lib/range.h"
#include "lib/redundancy.h"
#include "lib/seal.h"
#include "lib/refill.h"
#include "lib/region.h"
#include "lib/signals.h"

/* Pages that a worker has in hand are tried again after this long. */
#define FLUSH_RETRY_NS (100ull * 1000)

/* How many pages a guest moves before it gives its place back for a moment. */
enum { GUEST_PAGES = 512 };

/* One call: a part of a region and the program's buffer. */
struct transfer {
	struct secpool_region *region;
	uint8_t *buffer;
	bool writing;
};

static enum secpool_error lost(size_t offset, size_t bytes)
{
	return err_set(SECPOOL_E_LOST,
		"%zu bytes at %zu can't be reached whole: secpool_region_lost says which ranges "
		"are lost",
		bytes, offset);
}

/* By the mapping; the thread has no guest's place, for this may fault. */
static enum secpool_error copy_mapped(
	const struct transfer *transfer, size_t offset, size_t at, size_t bytes)
{
	uint8_t *there = transfer->region->address + offset + at;
	uint8_t *here = transfer->buffer + at;
	enum secpool_error error = transfer->writing ? guarded_copy(there, here, bytes)
						     : guarded_copy(here, there, bytes);

	if (error && atomic_load(&transfer->region->barred_pages) > 0)
		return err_set(SECPOOL_E_NO_SPACE,
			"%zu bytes at %zu: pages can't be brought in, as none can be written out",
			bytes, offset + at);
	return error ? lost(offset + at, bytes) : SECPOOL_OK;
}

/* Reads an absent page, which is the worker's. */
static enum secpool_error read_page(
	struct worker *worker, struct secpool_region *region, uint64_t pgno, uint8_t *to)
{
	if (fill_read(worker, region, pgno, to) != SECPOOL_OK)
		return SECPOOL_E_LOST;
	fill_undo(worker, region, pgno);
	return SECPOOL_OK;
}

/* Writes a new version of an absent or fresh page, which is the worker's. If no device takes it, its data are gone, and so is what was there. */
static enum secpool_error write_page(
	struct worker *worker, struct secpool_region *region, uint64_t pgno, const uint8_t *from)
{
	struct page *page = &region->pages[pgno];
	uint8_t *ciphertext = redundancy_ciphertext(worker, region, 0);
	struct redundancy_page sealed = {.pgno = pgno,
		.version = keyring_next(&region->keys, page_version(atomic_load(&page->word))),
		.ciphertext = ciphertext};
	enum secpool_error error = keyring_seal(
		&region->keys, worker->index, pgno, sealed.version, from, ciphertext, sealed.tag);

	if (!error)
		redundancy_write(worker, region, &sealed, 1, PAGE_FILL_WRITTEN);
	if (error || page_copies(atomic_load(&page->word)) == 0) {
		fill_end_as_lost(worker, region, pgno, SECPOOL_CAUSE_NO_SPACE, NULL);
		return SECPOOL_E_LOST;
	}
	counter_add(worker, COUNTER_WRITE_BACKS, 1);
	fill_undo(worker, region, pgno);
	return SECPOOL_OK;
}

/*
 * A lost page is written anew. One that vanished is not, as long as its entry is in the cache's queues (fault.c).
 * Errors: SECPOOL_E_LOST (also: there is no device to write it to).
 */
static enum secpool_error make_whole(struct worker *worker, struct secpool_region *region,
	uint64_t pgno, const uint8_t *from, uint64_t seen)
{
	struct page *page = &region->pages[pgno];

	if (atomic_load(&region->vanished) > 0 || atomic_load(&region->ended) ||
		!redundancy_writable(region, pgno) ||
		!page_step(page, &seen, PAGE_REWRITE_BEGIN, 0, page_version(seen)))
		return SECPOOL_E_LOST;
	atomic_fetch_sub(&region->lost_pages, 1);
	atomic_fetch_and(&page->word, ~PAGE_BARRED); /* its refill failed */
	if (region_heal(worker, region, pgno) != SECPOOL_OK) {
		fill_end_as_lost(worker, region, pgno, SECPOOL_CAUSE_NO_SPACE, NULL);
		return SECPOOL_E_LOST;
	}
	return write_page(worker, region, pgno, from);
}

/*
 * Moves one whole page without mapping it, if it is not resident. *ret_done is false when it must go by the mapping: it is resident, or busy, or there is no device to write it to.
 */
static enum secpool_error move_page(struct worker *worker, const struct transfer *transfer,
	uint64_t pgno, uint8_t *here, bool *ret_done)
{
	struct secpool_region *region = transfer->region;
	struct page *page = &region->pages[pgno];
	uint64_t seen = atomic_load_explicit(&page->word, memory_order_acquire);
	bool fresh = page_state(seen) == PAGE_FRESH;

	*ret_done = false;
	if (transfer->writing && region_still(region))
		return seal_refuse_write();
	if (page_state(seen) == PAGE_LOST && !transfer->writing && refill_possible(region, seen))
		return SECPOOL_OK; /* by the mapping: it is made again */
	if (page_state(seen) == PAGE_LOST) {
		*ret_done = true;
		return transfer->writing ? make_whole(worker, region, pgno, here, seen)
					 : SECPOOL_E_LOST;
	}
	if (!fresh && page_state(seen) != PAGE_ABSENT)
		return SECPOOL_OK;
	if (fresh && !transfer->writing) {
		memset(here, 0, region->page_bytes);
		*ret_done = true;
		return SECPOOL_OK;
	}
	if (transfer->writing && !redundancy_writable(region, pgno))
		return SECPOOL_OK;
	if (!page_step(page, &seen, PAGE_FILL_BEGIN, page_copies(seen), page_version(seen)))
		return SECPOOL_OK;
	*ret_done = true;
	return transfer->writing ? write_page(worker, region, pgno, here)
				 : read_page(worker, region, pgno, here);
}

/* Whole pages from `first` on, up to the first that must go by the mapping, as a guest. *ret_next: the page after the last that was moved. */
static enum secpool_error move_pages(const struct transfer *transfer, uint64_t first, uint64_t end,
	uint8_t *here, uint64_t *ret_next)
{
	struct secpool_region *region = transfer->region;
	enum secpool_error error = SECPOOL_OK;
	struct worker *worker;
	sigset_t before;
	bool done = true;
	uint64_t pgno = first;

	signals_block(&before);
	worker = worker_borrow(region->pool);
	while (!error && done && pgno < end && pgno - first < GUEST_PAGES) {
		if (!transfer->writing && pgno + 1 < end)
			redundancy_prefetch(region, pgno + 1);
		error = move_page(worker, transfer, pgno, here, &done);
		if (!error && done) {
			pgno++;
			here += region->page_bytes;
		}
	}
	worker_give_back(worker);
	signals_restore(&before);
	*ret_next = pgno;
	return error;
}

static bool is_resident(const struct secpool_region *region, uint64_t pgno)
{
	enum page_state state =
		page_state(atomic_load_explicit(&region->pages[pgno].word, memory_order_relaxed));

	return state != PAGE_ABSENT && state != PAGE_FRESH && state != PAGE_LOST;
}

static enum secpool_error transfer_whole_pages(
	const struct transfer *transfer, size_t offset, size_t at, size_t bytes)
{
	struct secpool_region *region = transfer->region;
	size_t page_bytes = region->page_bytes;
	uint64_t pgno = (offset + at) / page_bytes, end = (offset + at + bytes) / page_bytes;
	enum secpool_error error = SECPOOL_OK;

	while (!error && pgno < end) {
		uint64_t next = pgno;
		size_t here = (size_t)(pgno * page_bytes - offset);
		if (!is_resident(region, pgno))
			error = move_pages(transfer, pgno, end, transfer->buffer + here, &next);
		if (error == SECPOOL_E_DENIED)
			return error;
		if (error)
			return lost((size_t)(next * page_bytes), page_bytes);
		if (next == pgno)
			error = copy_mapped(transfer, offset, here, page_bytes);
		pgno = next > pgno ? next : pgno + 1;
	}
	return error;
}

static enum secpool_error transfer_bytes(
	const struct transfer *transfer, size_t offset, size_t bytes)
{
	size_t page_bytes = transfer->region->page_bytes;
	size_t head = (page_bytes - offset % page_bytes) % page_bytes, whole;
	enum secpool_error error = SECPOOL_OK;

	if (head > bytes)
		head = bytes;
	whole = (bytes - head) / page_bytes * page_bytes;
	/* a buffer in pool memory may fault in the middle: then all goes by the mapping */
	if (whole == 0 || signals_touch_window(transfer->buffer, bytes))
		return copy_mapped(transfer, offset, 0, bytes);
	if (head > 0)
		error = copy_mapped(transfer, offset, 0, head);
	if (!error)
		error = transfer_whole_pages(transfer, offset, head, whole);
	if (!error && head + whole < bytes)
		error = copy_mapped(transfer, offset, head + whole, bytes - head - whole);
	return error;
}

static enum secpool_error check(
	const struct secpool_region *region, size_t offset, const void *buffer, size_t bytes)
{
	if (bytes > 0 && !buffer)
		return err_set(SECPOOL_E_INVALID, "a buffer is needed");
	return range_check(region, offset, bytes);
}

enum secpool_error secpool_read(
	struct secpool_region *region, size_t offset, void *buffer, size_t bytes)
{
	struct transfer transfer = {.region = region, .buffer = buffer};
	enum secpool_error error = check(region, offset, buffer, bytes);

	return error ? error : transfer_bytes(&transfer, offset, bytes);
}

enum secpool_error secpool_write(
	struct secpool_region *region, size_t offset, const void *buffer, size_t bytes)
{
	/* only read from when writing */
	struct transfer transfer = {
		.region = region, .buffer = (uint8_t *)(uintptr_t)buffer, .writing = true};
	enum secpool_error error = check(region, offset, buffer, bytes);

	if (!error && region_still(region))
		error = seal_refuse_write();
	return error ? error : transfer_bytes(&transfer, offset, bytes);
}

/* One step of a flush, as a guest. */
static enum secpool_error flush_some(
	struct secpool_region *region, uint64_t first, uint64_t end, uint64_t *ret_failed)
{
	enum secpool_error error;
	struct worker *worker;
	sigset_t before;

	signals_block(&before);
	worker = worker_borrow(region->pool);
	error = evict_flush_range(worker, region, first, end, ret_failed);
	worker_give_back(worker);
	signals_restore(&before);
	return error;
}

enum secpool_error secpool_flush(struct secpool_region *region)
{
	uint64_t give_up = clock_now_ns() + EVICT_PATIENCE_NS;
	enum secpool_error error = range_check(region, 0, 0);

	if (!error && atomic_load(&region->stage) == REGION_SEALED)
		return SECPOOL_OK; /* all of it was written before */
	for (uint64_t pgno = 0; !error && pgno < region->page_count;) {
		uint64_t end = pgno + EVICT_FLUSH_PAGES, failed = pgno;
		if (end > region->page_count)
			end = region->page_count;
		error = flush_some(region, pgno, end, &failed);
		if (error && clock_now_ns() < give_up) {
			error = SECPOOL_OK;
			clock_sleep_ns(FLUSH_RETRY_NS);
			continue;
		}
		give_up = clock_now_ns() + EVICT_PATIENCE_NS;
		/* one that others held each time that we looked: they could not write it either */
		if (error == SECPOOL_E_BUSY)
			error = SECPOOL_E_NO_SPACE;
		if (error)
			error = err_set(error,
				"page %llu could not be written to any device; it stays resident",
				(unsigned long long)failed);
		pgno = end;
	}
	return error;
}
