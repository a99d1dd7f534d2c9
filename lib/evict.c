/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/evict.h"

#include <assert.h>
#include <stdlib.h>

#include "lib/base/clock.h"
#include "lib/base/os.h"
#include "lib/fault.h"
#include "lib/handlers.h"
#include "lib/overhead.h"
#include "lib/writeback.h"

/* How long a worker that found nothing to evict sleeps before it looks again. */
#define RETRY_NS (200ull * 1000)

/* Pages that the cleaner takes out together, and that a fault takes out which found no room and waits for them. */
enum { CLEANER_PAGES = 256, DIRECT_PAGES = 32 };

/* From this part of its victims on the cleaner leaves scattered dirty pages to who faults, and looks again, at so few, after a rest. */
enum { SCATTERED_PART = 4, PROBE_PAGES = 16 };
#define REST_NS (20ull * 1000 * 1000)

_Static_assert(
	(int)CLEANER_PAGES <= (int)WRITEBACK_MOST && (int)EVICT_FLUSH_PAGES <= (int)WRITEBACK_MOST,
	"a batch has room");

struct evict_batch {
	struct cache_entry entries[CLEANER_PAGES];
	struct victim victims[WRITEBACK_MOST];
	unsigned count;
	bool scattered; /* is_scattered, the last time */
	struct iovec drops[WRITEBACK_MOST + 1];
};

enum secpool_error evict_batch_new(struct evict_batch **ret_batch)
{
	struct evict_batch *batch = calloc(1, sizeof *batch);

	if (!batch)
		return os_error("a batch of evictions");
	*ret_batch = batch;
	return SECPOOL_OK;
}

void evict_batch_free(struct evict_batch *batch)
{
	free(batch);
}

/* Takes a page as a victim if it is resident and can be taken now. */
static bool take(struct evict_batch *batch, struct secpool_region *region, uint64_t pgno,
	bool stays, uint64_t *ret_seen)
{
	struct page *page = &region->pages[pgno];
	uint64_t seen = atomic_load_explicit(&page->word, memory_order_acquire);
	struct victim victim = {
		.region = region,
		.pgno = pgno,
		.version = page_version(seen),
		.at = region->address + pgno * region->page_bytes,
		.clean = page_state(seen) == PAGE_CLEAN,
		.stays = stays,
	};
	/* what is dirty in a sealed region has no copy any more; in one that is to be sealed it is flushed only, for what is write-protected can't be moved out */
	bool held = !victim.clean && region_still(region) &&
		    !(stays && atomic_load(&region->stage) == REGION_FROZEN);
	bool taken = !(stays && victim.clean) && !held && batch->count < WRITEBACK_MOST &&
		     page_step(page, &seen, PAGE_EVICT_BEGIN, page_copies(seen), victim.version);

	victim.frame = victim.at;
	if (taken)
		batch->victims[batch->count++] = victim;
	*ret_seen = seen;
	return taken;
}

/* Takes the victims that the cache names; those that are resident but can't be taken now go to the back of their queue, pinned
 * ones out of it. */
static void take_queued(struct worker *worker, struct evict_batch *batch, unsigned most)
{
	struct cache *cache = &worker->pool->cache;
	unsigned count = cache_pop(cache, batch->entries, most);
	size_t bytes = 0;

	for (unsigned i = 0; i < count; i++) {
		const struct cache_entry *entry = &batch->entries[i];
		struct secpool_region *region = pool_find_slot(worker->pool, entry->region);
		uint64_t seen = 0;
		if (!region)
			continue;
		/* worker->moved has room for one page of the largest size */
		if (bytes <= PAGECIPHER_PAGE_BYTES_MOST / 2 &&
			take(batch, region, entry->pgno, false, &seen)) {
			batch->victims[batch->count - 1].queue = entry->queue;
			bytes += region->page_bytes;
			continue;
		}
		if (page_unqueue(&region->pages[entry->pgno]))
			continue;
		seen = atomic_load(&region->pages[entry->pgno].word);
		if (page_busy(seen) || page_state(seen) == PAGE_CLEAN ||
			page_state(seen) == PAGE_DIRTY) {
			cache_push(cache, worker->index, *entry);
		} else if (page_state(seen) == PAGE_LOST) { /* it vanished: fault.c */
			atomic_fetch_sub(&region->vanished, 1);
			cache_return(cache, worker->index, region->page_bytes);
		}
	}
}

/* In the order of addresses; mostly sorted before, as pages leave in the order in which they came. */
static void sort(struct evict_batch *batch)
{
	for (unsigned i = 1; i < batch->count; i++) {
		struct victim victim = batch->victims[i];
		unsigned at = i;
		for (; at > 0 && batch->victims[at - 1].at > victim.at; at--)
			batch->victims[at] = batch->victims[at - 1];
		batch->victims[at] = victim;
	}
}

/* How many dirty victims from the i-th on lie side by side; 0 if it is clean. */
static unsigned dirty_run(const struct evict_batch *batch, unsigned i, unsigned end)
{
	const struct victim *v = &batch->victims[i];
	unsigned length = 0;

	while (i + length < end && !v[length].clean &&
		(length == 0 || v[length - 1].at + v[0].region->page_bytes == v[length].at))
		length++;
	return length;
}

/*
 * Whether many dirty victims lie alone, each protected by a call, and a flush of the TLBs, of its own. Done by the cleaner, every flush interrupts the CPU on which the program runs, 10 us each in a virtual machine; who faults
 * does it on its own CPU, alone, in less than 1 us.
 */
static bool is_scattered(const struct evict_batch *batch)
{
	unsigned alone = 0, length;

	for (unsigned i = 0; i<batch->count; i += length> 0 ? length : 1) {
		length = dirty_run(batch, i, batch->count);
		if (length < WRITEBACK_RUN_PAGES)
			alone += length;
	}
	return alone > batch->count / SCATTERED_PART;
}

/* Drops what is clean or written, and frees moved frames, with one flush of the TLBs. */
static void drop(struct worker *worker, struct evict_batch *batch, size_t moved_bytes)
{
	struct iovec *last = NULL;
	unsigned count = 0;
	bool failed;

	for (unsigned i = 0; i < batch->count; i++) {
		struct victim *v = &batch->victims[i];
		/* pages whose copies went, though they were clean or have been written, are the only ones now */
		if ((v->state == VICTIM_WRITTEN || (v->state == VICTIM_TAKEN && v->version > 0)) &&
			page_copies(atomic_load(&v->region->pages[v->pgno].word)) == 0)
			writeback_undo(worker, v);
		if (v->state != VICTIM_TAKEN && v->state != VICTIM_WRITTEN)
			continue;
		if (last && (uint8_t *)last->iov_base + last->iov_len == v->at) {
			last->iov_len += v->region->page_bytes;
			continue;
		}
		last = &batch->drops[count++];
		*last = (struct iovec){.iov_base = v->at, .iov_len = v->region->page_bytes};
	}
	if (moved_bytes > 0)
		batch->drops[count++] =
			(struct iovec){.iov_base = worker->moved, .iov_len = moved_bytes};
	failed = count > 0 && uffd_drop_many(worker->uffd, batch->drops, count) != SECPOOL_OK;
	for (unsigned i = 0; i < batch->count; i++) {
		struct victim *v = &batch->victims[i];
		if (v->state != VICTIM_TAKEN && v->state != VICTIM_WRITTEN)
			continue;
		if (failed && uffd_present(v->at))
			writeback_undo(worker, v);
		else
			writeback_dropped(worker, v);
	}
}

/* After the frames are free: wakes, counts, and puts what stayed of the victims back into the queue. Returns how many left. */
static unsigned end_batch(struct worker *worker, struct evict_batch *batch)
{
	struct cache *cache = &worker->pool->cache;
	unsigned left = 0;
	size_t bytes = 0;

	for (unsigned i = 0; i < batch->count; i++) {
		struct victim *v = &batch->victims[i];
		if (v->wake)
			fault_wake_page(worker, v->region, v->pgno);
		if (v->state == VICTIM_LEFT) {
			bytes += v->region->page_bytes;
			left++;
		} else if (!v->stays) {
			cache_push(cache, worker->index,
				(struct cache_entry){.region = v->region->slot,
					.pgno = v->pgno,
					.queue = v->queue});
		}
	}
	if (bytes > 0)
		cache_return(cache, worker->index, bytes);
	counter_add(worker, COUNTER_EVICTIONS, left);
	return left;
}

enum secpool_error evict_some(struct worker *worker, unsigned most)
{
	struct evict_batch *batch = worker->batch;
	size_t moved_bytes;
	unsigned left;

	assert(most <= CLEANER_PAGES);
	batch->count = 0;
	take_queued(worker, batch, most);
	sort(batch);
	batch->scattered = is_scattered(batch);
	writeback_hold(worker, batch->victims, batch->count, &moved_bytes);
	overhead_mark(worker, OVERHEAD_HOLD);
	writeback_write(worker, batch->victims, batch->count);
	drop(worker, batch, moved_bytes);
	left = end_batch(worker, batch);
	overhead_mark(worker, OVERHEAD_DROP);
	return left > 0 ? SECPOOL_OK : SECPOOL_E_BUSY;
}

enum secpool_error evict_make_room(struct worker *worker, size_t bytes)
{
	struct secpool *pool = worker->pool;
	uint64_t deadline = 0;
	size_t tried = 0;

	while (!cache_reserve(&pool->cache, worker->index, bytes)) {
		if (evict_some(worker, DIRECT_PAGES) == SECPOOL_OK) {
			tried = 0;
			deadline = 0;
			continue;
		}
		tried += DIRECT_PAGES;
		if (tried <= cache_count(&pool->cache))
			continue;
		/* every page was tried: others are at work on them, or there is nowhere to write */
		tried = 0;
		if (deadline == 0)
			deadline = clock_now_ns() + EVICT_PATIENCE_NS;
		else if (clock_now_ns() > deadline || atomic_load(&pool->stopping))
			return err_set(SECPOOL_E_NO_SPACE,
				"no page can be written back: no device has space");
		handlers_step_down(worker);
		clock_sleep_ns(RETRY_NS);
	}
	return SECPOOL_OK;
}

void evict_clean_ahead(struct worker *worker)
{
	while (cache_wait_low(&worker->pool->cache)) {
		enum secpool_error error;
		worker_enter(worker);
		overhead_begin(worker);
		error = evict_some(worker, worker->batch->scattered ? PROBE_PAGES : CLEANER_PAGES);
		worker_leave(worker);
		if (worker->batch->scattered)
			clock_sleep_ns(REST_NS);
		else if (error)
			clock_sleep_ns(RETRY_NS); /* nothing could go now */
	}
}

enum secpool_error evict_flush_range(struct worker *worker, struct secpool_region *region,
	uint64_t first, uint64_t end, uint64_t *ret_failed)
{
	struct evict_batch *batch = worker->batch;
	enum secpool_error error = SECPOOL_OK;
	size_t moved_bytes;

	batch->count = 0;
	for (uint64_t pgno = first; pgno < end; pgno++) {
		uint64_t seen;
		if (!take(batch, region, pgno, true, &seen) &&
			(page_busy(seen) ||
				(page_state(seen) == PAGE_DIRTY && !(seen & PAGE_PINNED))))
			error = SECPOOL_E_BUSY;
	}
	writeback_hold(worker, batch->victims, batch->count, &moved_bytes);
	for (unsigned i = 0; i < batch->count; i++)
		if (batch->victims[i].state != VICTIM_HELD)
			batch->victims[i].failed = true;
	writeback_write(worker, batch->victims, batch->count);
	for (unsigned i = 0; i < batch->count; i++) {
		if (!batch->victims[i].failed)
			continue;
		if (ret_failed && error != SECPOOL_E_NO_SPACE)
			*ret_failed = batch->victims[i].pgno;
		error = SECPOOL_E_NO_SPACE;
	}
	(void)end_batch(worker, batch);
	return error;
}
