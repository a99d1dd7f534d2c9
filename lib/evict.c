/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/evict.h"

#include "lib/base/clock.h"
#include "lib/loss.h"
#include "lib/mirror.h"

/* How long a worker that found nothing to evict sleeps before it looks again. */
#define RETRY_NS (200ull * 1000)

/*
 * Pages that a worker takes out together. Their frames stay charged to the budget until they are freed, also while they lie in worker->moved.
 */
enum { BATCH_PAGES = 32 };

/* Of them, how many a fault takes out that found no room: it waits for them. */
enum { DIRECT_PAGES = 8 };

struct victim {
	struct secpool_region *region;
	uint64_t pgno, version; /* before the eviction */
	uint8_t *at;		/* where the program has it */
	uint8_t *frame;		/* where the worker reads it */
	bool clean, done;
	bool wake; /* somebody waits for it */
};

struct batch {
	struct victim victims[BATCH_PAGES];
	unsigned count;
	size_t moved_bytes; /* of worker->moved in use */
};

static const struct uffd *uffd_of(const struct victim *v)
{
	return &v->region->pool->uffd;
}

static struct page *page_of(const struct victim *v)
{
	return &v->region->pages[v->pgno];
}

/* Steps a page out of EVICTING; notes whether who waits for it must be woken. */
static void leave(struct victim *v, enum page_event event, uint64_t version)
{
	uint64_t seen = atomic_load(&page_of(v)->word);

	while (!page_step(page_of(v), &seen, event,
		event == PAGE_EVICT_UNDO ? 0 : page_copies(seen), version))
		;
	v->wake = seen & PAGE_WAITERS;
}

/* The page goes back to being resident and dirty, under the version that the attempt took. */
static void undo(struct victim *v, uint64_t version)
{
	size_t bytes = v->region->page_bytes;

	if (v->frame != v->at && uffd_move(uffd_of(v), v->at, v->frame, bytes) != SECPOOL_OK)
		/* the frame can't go back: a copy of it can */
		if (uffd_present(v->frame) &&
			uffd_copy(uffd_of(v), v->at, v->frame, bytes, false) == SECPOOL_OK)
			(void)!uffd_drop(v->frame, bytes);
	leave(v, PAGE_EVICT_UNDO, version);
}

/*
 * Makes a dirty page's bytes stand still for the worker: its frame is moved to the worker's range, or it is write-protected where it is.
 * Errors: SECPOOL_E_BUSY: pinned by the kernel; it is resident again.
 */
static enum secpool_error hold(struct worker *worker, struct batch *batch, struct victim *v)
{
	size_t bytes = v->region->page_bytes;
	enum secpool_error error;

	v->frame = v->at;
	if (bytes > PAGECIPHER_PAGE_BYTES_MOST - batch->moved_bytes) {
		error = SECPOOL_E_BUSY; /* no room for its frame in this batch */
	} else if (uffd_of(v)->has_move) {
		error = uffd_move(uffd_of(v), worker->moved + batch->moved_bytes, v->at, bytes);
		if (!error) {
			v->frame = worker->moved + batch->moved_bytes;
			batch->moved_bytes += bytes;
		}
	} else {
		error = uffd_protect(uffd_of(v), v->at, bytes);
	}
	if (!error)
		return SECPOOL_OK;
	leave(v, PAGE_EVICT_UNDO, v->version);
	return SECPOOL_E_BUSY;
}

/* Encrypts the held page under a new version and writes it to all its places; the word then says which copies it has. */
static enum secpool_error write_out(struct worker *worker, struct victim *v)
{
	enum secpool_error error =
		pagecipher_seal(v->region->cipher, worker->index, PAGECIPHER_DATA, v->pgno,
			v->version + 1, v->frame, worker->ciphertext, page_of(v)->tag);

	if (!error)
		error = mirror_write(worker, v->region, v->pgno, v->version + 1);
	return error;
}

/* Steps a written page out of EVICTING, unless its last copy went meanwhile. */
static bool leave_written(struct victim *v, enum page_event event)
{
	uint64_t seen = atomic_load(&page_of(v)->word);

	while (page_copies(seen) != 0) {
		if (!page_step(page_of(v), &seen, event, page_copies(seen), page_version(seen)))
			continue;
		v->wake = seen & PAGE_WAITERS;
		return true;
	}
	return false;
}

/* A dirty page, held or not yet: encrypted, written, gone from the program's memory. Its frame is the caller's to free. */
static enum secpool_error evict_dirty(struct worker *worker, struct batch *batch, struct victim *v)
{
	enum secpool_error error = hold(worker, batch, v);

	if (error)
		return error;
	error = write_out(worker, v);
	/* without MOVE the mapping goes before the state: a missing fault must not meet a page that is still mapped */
	if (!error && v->frame == v->at && uffd_drop(v->at, v->region->page_bytes) != SECPOOL_OK)
		error = SECPOOL_E_BUSY;
	if (!error && v->frame == v->at) {
		leave(v, PAGE_EVICT_DONE, v->version + 1);
		loss_orphan(v->region, v->pgno); /* its copies may have gone in this very moment */
	} else if (!error && !leave_written(v, PAGE_EVICT_DONE)) {
		error = SECPOOL_E_NO_SPACE;
	}
	if (error)
		undo(v, v->version + 1);
	else
		counter_add(&v->region->pool->counters.write_backs, 1);
	return error;
}

/* A clean page is write-protected, and no writer gets past that while it is EVICTING: it can be dropped where it is. */
static enum secpool_error evict_clean(struct victim *v)
{
	bool written = v->version > 0;

	v->frame = v->at;
	if ((written && page_copies(atomic_load(&page_of(v)->word)) == 0) ||
		uffd_drop(v->at, v->region->page_bytes) != SECPOOL_OK) {
		leave(v, PAGE_EVICT_UNDO, v->version); /* its copies went: it is the only one now */
		return SECPOOL_E_BUSY;
	}
	leave(v, written ? PAGE_EVICT_DONE : PAGE_EVICT_FRESH, v->version);
	loss_orphan(v->region, v->pgno);
	return SECPOOL_OK;
}

/* Takes a queued page as a victim: EVICTING, the worker's. A page that is resident but can't be taken now goes to the back of the queue. */
static bool take_victim(struct secpool *pool, const struct cache_entry *entry, struct victim *v)
{
	struct secpool_region *region = pool_enter_slot(pool, entry->region);
	struct page *page;
	uint64_t seen;

	if (!region)
		return false;
	page = &region->pages[entry->pgno];
	seen = atomic_load(&page->word);
	*v = (struct victim){
		.region = region,
		.pgno = entry->pgno,
		.version = page_version(seen),
		.at = region->address + entry->pgno * region->page_bytes,
		.clean = page_state(seen) == PAGE_CLEAN,
	};
	if (page_step(page, &seen, PAGE_EVICT_BEGIN, page_copies(seen), page_version(seen)))
		return true;
	if (page_busy(seen) || page_state(seen) == PAGE_CLEAN || page_state(seen) == PAGE_DIRTY)
		cache_push(&pool->cache, entry->region, entry->pgno);
	pool_leave(region);
	return false;
}

/* After the frames are free: wakes, counts, and puts what stayed resident back into the queue. */
static enum secpool_error end_batch(struct secpool *pool, struct batch *batch)
{
	enum secpool_error error = SECPOOL_E_BUSY;

	for (unsigned i = 0; i < batch->count; i++) {
		struct victim *v = &batch->victims[i];
		if (v->wake)
			uffd_wake(&pool->uffd, v->at, v->region->page_bytes);
		if (v->done) {
			cache_return(&pool->cache, v->region->page_bytes);
			counter_add(&pool->counters.evictions, 1);
			error = SECPOOL_OK;
		} else {
			cache_push(&pool->cache, v->region->slot, v->pgno);
		}
		pool_leave(v->region);
	}
	return error;
}

enum secpool_error evict_batch(struct worker *worker, unsigned most)
{
	struct secpool *pool = worker->pool;
	struct batch batch = {.count = 0};
	struct cache_entry entry;
	enum secpool_error error;
	size_t bytes = 0;

	for (unsigned i = 0; i < most && i < BATCH_PAGES && cache_pop(&pool->cache, &entry); i++) {
		if (!take_victim(pool, &entry, &batch.victims[batch.count]))
			continue;
		bytes += batch.victims[batch.count++].region->page_bytes;
		if (bytes > PAGECIPHER_PAGE_BYTES_MOST / 2)
			break; /* worker->moved has room for one page of the largest size */
	}
	for (unsigned i = 0; i < batch.count; i++) {
		struct victim *v = &batch.victims[i];
		error = v->clean ? evict_clean(v) : evict_dirty(worker, &batch, v);
		v->done = !error;
	}
	if (batch.moved_bytes > 0 && uffd_drop(worker->moved, batch.moved_bytes) != SECPOOL_OK)
		err_set(SECPOOL_E_INTERNAL, "frames could not be freed");
	return end_batch(pool, &batch);
}

enum secpool_error evict_make_room(struct worker *worker, size_t bytes)
{
	struct secpool *pool = worker->pool;
	uint64_t deadline = 0;
	size_t tried = 0;

	while (!cache_reserve(&pool->cache, bytes)) {
		if (evict_batch(worker, DIRECT_PAGES) == SECPOOL_OK) {
			tried = 0;
			deadline = 0;
			continue;
		}
		if (++tried <= cache_count(&pool->cache))
			continue;
		/* every page was tried: others are at work on them, or there is nowhere to write */
		tried = 0;
		if (deadline == 0)
			deadline = clock_now_ns() + EVICT_PATIENCE_NS;
		else if (clock_now_ns() > deadline || atomic_load(&pool->stopping))
			return err_set(SECPOOL_E_NO_SPACE,
				"no page can be written back: no device has space");
		clock_sleep_ns(RETRY_NS);
	}
	return SECPOOL_OK;
}

void evict_clean_ahead(struct worker *worker)
{
	while (cache_wait_low(&worker->pool->cache))
		if (evict_batch(worker, BATCH_PAGES) != SECPOOL_OK)
			clock_sleep_ns(RETRY_NS); /* nothing could go now */
}

/* After a flush with MOVE: the page comes back, write-protected. */
static enum secpool_error map_again(struct victim *v)
{
	if (v->frame == v->at)
		return SECPOOL_OK;
	if (uffd_copy(uffd_of(v), v->at, v->frame, v->region->page_bytes, true) != SECPOOL_OK)
		return SECPOOL_E_NO_MEMORY;
	return uffd_drop(v->frame, v->region->page_bytes);
}

static enum secpool_error flush(struct worker *worker, struct victim *v)
{
	struct batch batch = {.count = 0};
	enum secpool_error error = hold(worker, &batch, v);

	if (error)
		return error;
	error = write_out(worker, v);
	if (!error)
		error = map_again(v);
	if (error) {
		undo(v, v->version + 1);
	} else if (!leave_written(v, PAGE_EVICT_CLEAN)) {
		leave(v, PAGE_EVICT_UNDO, v->version + 1); /* mapped, protected and dirty */
		error = SECPOOL_E_NO_SPACE;
	} else {
		counter_add(&v->region->pool->counters.write_backs, 1);
	}
	return error;
}

enum secpool_error evict_flush_page(
	struct worker *worker, struct secpool_region *region, uint64_t pgno)
{
	struct victim v = {
		.region = region, .pgno = pgno, .at = region->address + pgno * region->page_bytes};
	uint64_t seen = atomic_load(&page_of(&v)->word);
	enum secpool_error error;

	v.version = page_version(seen);
	if (page_state(seen) != PAGE_DIRTY ||
		!page_step(page_of(&v), &seen, PAGE_EVICT_BEGIN, page_copies(seen), v.version))
		return page_busy(seen) ? SECPOOL_E_BUSY : SECPOOL_OK;
	error = flush(worker, &v);
	if (v.wake)
		uffd_wake(uffd_of(&v), v.at, region->page_bytes);
	return error;
}
