/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/evict.h"

#include "lib/base/clock.h"
#include "lib/loss.h"
#include "lib/mirror.h"

/* How long a worker that found nothing to evict sleeps before it looks again. */
#define RETRY_NS (200ull * 1000)

/* The page's bytes as the evicting worker reads them, and where its frame is to be put back. */
static const uint8_t *frame_of(
	const struct worker *worker, const struct secpool_region *region, uint64_t pgno)
{
	if (region->pool->uffd.has_move)
		return worker->moved;
	return region->address + pgno * region->page_bytes;
}

/* Makes the page's bytes stand still for the worker. */
static enum secpool_error hold(struct worker *worker, struct secpool_region *region, uint64_t pgno)
{
	const struct uffd *uffd = &region->pool->uffd;
	uint8_t *at = region->address + pgno * region->page_bytes;

	if (uffd->has_move)
		return uffd_move(uffd, worker->moved, at, region->page_bytes);
	return uffd_protect(uffd, at, region->page_bytes);
}

/* Steps a page out of EVICTING and wakes who waits for it. */
static void leave(
	struct secpool_region *region, uint64_t pgno, enum page_event event, uint64_t version)
{
	struct page *page = &region->pages[pgno];
	uint64_t seen = atomic_load(&page->word);

	while (!page_step(
		page, &seen, event, event == PAGE_EVICT_UNDO ? 0 : page_copies(seen), version))
		;
	if (seen & PAGE_WAITERS)
		uffd_wake(&region->pool->uffd, region->address + pgno * region->page_bytes,
			region->page_bytes);
}

/* The page goes back to being resident and dirty. */
static void undo(
	struct worker *worker, struct secpool_region *region, uint64_t pgno, uint64_t version)
{
	const struct uffd *uffd = &region->pool->uffd;
	uint8_t *at = region->address + pgno * region->page_bytes;

	if (uffd->has_move && uffd_move(uffd, at, worker->moved, region->page_bytes) != SECPOOL_OK)
		/* the frame can't go back: a copy of it can */
		if (uffd_copy(uffd, at, worker->moved, region->page_bytes, false) == SECPOOL_OK)
			(void)!uffd_drop(worker->moved, region->page_bytes);
	leave(region, pgno, PAGE_EVICT_UNDO, version);
}

/* Encrypts the held page under a new version and writes it to all its places; the word then says which copies it has. */
static enum secpool_error write_out(
	struct worker *worker, struct secpool_region *region, uint64_t pgno, uint64_t version)
{
	enum secpool_error error = pagecipher_seal(region->cipher, worker->index, PAGECIPHER_DATA,
		pgno, version, frame_of(worker, region, pgno), worker->ciphertext,
		region->pages[pgno].tag);

	if (!error)
		error = mirror_write(worker, region, pgno, version);
	return error;
}

/* Steps an evicted page to ABSENT, unless its last copy went meanwhile. */
static bool step_absent(
	struct secpool_region *region, uint64_t pgno, enum page_event event, uint64_t *seen)
{
	struct page *page = &region->pages[pgno];

	*seen = atomic_load(&page->word);
	while (page_copies(*seen) != 0)
		if (page_step(page, seen, event, page_copies(*seen), page_version(*seen)))
			return true;
	return false;
}

static enum secpool_error evict_dirty(
	struct worker *worker, struct secpool_region *region, uint64_t pgno, uint64_t version)
{
	const struct uffd *uffd = &region->pool->uffd;
	uint8_t *at = region->address + pgno * region->page_bytes;
	enum secpool_error error = hold(worker, region, pgno);
	uint64_t seen;

	if (error) { /* pinned by the kernel: it stays */
		leave(region, pgno, PAGE_EVICT_UNDO, version);
		return SECPOOL_E_BUSY;
	}
	error = write_out(worker, region, pgno, version + 1);
	if (error) {
		undo(worker, region, pgno, version + 1);
		return error;
	}
	/* without MOVE the mapping goes before the state: a missing fault must not meet a page that is still mapped */
	if (!uffd->has_move && uffd_drop(at, region->page_bytes) != SECPOOL_OK) {
		undo(worker, region, pgno, version + 1);
		return SECPOOL_E_BUSY;
	}
	if (!step_absent(region, pgno, PAGE_EVICT_DONE, &seen)) {
		if (uffd->has_move) {
			undo(worker, region, pgno, version + 1);
			return SECPOOL_E_NO_SPACE;
		}
		seen = atomic_load(&region->pages[pgno].word);
		while (!page_step(&region->pages[pgno], &seen, PAGE_EVICT_DONE, page_copies(seen),
			version + 1))
			;
		loss_orphan(region, pgno);
	}
	if (uffd->has_move && uffd_drop(worker->moved, region->page_bytes) != SECPOOL_OK)
		return SECPOOL_E_INTERNAL;
	if (seen & PAGE_WAITERS)
		uffd_wake(uffd, at, region->page_bytes);
	counter_add(&region->pool->counters.write_backs, 1);
	return SECPOOL_OK;
}

/* A clean page is write-protected, and no writer gets past that while it is EVICTING: it can be dropped where it is. */
static enum secpool_error evict_clean(
	struct secpool_region *region, uint64_t pgno, uint64_t version)
{
	uint8_t *at = region->address + pgno * region->page_bytes;
	struct page *page = &region->pages[pgno];
	uint64_t seen;

	if (version > 0 && page_copies(atomic_load(&page->word)) == 0) {
		leave(region, pgno, PAGE_EVICT_UNDO,
			version); /* its copies went: now it is dirty */
		return SECPOOL_E_BUSY;
	}
	if (uffd_drop(at, region->page_bytes) != SECPOOL_OK) {
		leave(region, pgno, PAGE_EVICT_UNDO, version);
		return SECPOOL_E_BUSY;
	}
	seen = atomic_load(&page->word);
	while (!page_step(page, &seen, version > 0 ? PAGE_EVICT_DONE : PAGE_EVICT_FRESH,
		page_copies(seen), version))
		;
	loss_orphan(region, pgno); /* its copies may have gone in this very moment */
	if (seen & PAGE_WAITERS)
		uffd_wake(&region->pool->uffd, at, region->page_bytes);
	return SECPOOL_OK;
}

/* Errors: SECPOOL_E_BUSY (it is not a victim now), SECPOOL_E_NO_SPACE. On error it is still queued if it is resident. */
static enum secpool_error evict_victim(struct worker *worker, const struct cache_entry *victim)
{
	struct secpool *pool = worker->pool;
	struct secpool_region *region = pool_enter_slot(pool, victim->region);
	enum secpool_error error = SECPOOL_E_BUSY;
	struct page *page;
	uint64_t seen;
	bool clean;

	if (!region)
		return SECPOOL_E_BUSY;
	page = &region->pages[victim->pgno];
	seen = atomic_load(&page->word);
	clean = page_state(seen) == PAGE_CLEAN;
	if (page_step(page, &seen, PAGE_EVICT_BEGIN, page_copies(seen), page_version(seen))) {
		if (clean)
			error = evict_clean(region, victim->pgno, page_version(seen));
		else
			error = evict_dirty(worker, region, victim->pgno, page_version(seen));
		if (!error) {
			cache_return(&pool->cache, region->page_bytes);
			counter_add(&pool->counters.evictions, 1);
		}
	}
	seen = atomic_load(&page->word);
	if (error && (page_busy(seen) || page_state(seen) == PAGE_CLEAN ||
			     page_state(seen) == PAGE_DIRTY))
		cache_push(&pool->cache, victim->region, victim->pgno);
	pool_leave(region);
	return error;
}

enum secpool_error evict_make_room(struct worker *worker, size_t bytes)
{
	struct secpool *pool = worker->pool;
	uint64_t deadline = 0;
	size_t tried = 0;

	while (!cache_reserve(&pool->cache, bytes)) {
		struct cache_entry victim;
		bool found = cache_pop(&pool->cache, &victim);
		if (found && evict_victim(worker, &victim) == SECPOOL_OK) {
			tried = 0;
			continue;
		}
		if (found && ++tried <= cache_count(&pool->cache))
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

/* After a flush with MOVE: the page comes back, write-protected. */
static enum secpool_error map_again(
	struct worker *worker, struct secpool_region *region, uint64_t pgno)
{
	const struct uffd *uffd = &region->pool->uffd;
	uint8_t *at = region->address + pgno * region->page_bytes;

	if (!uffd->has_move)
		return SECPOOL_OK;
	if (uffd_copy(uffd, at, worker->moved, region->page_bytes, true) != SECPOOL_OK)
		return SECPOOL_E_NO_MEMORY;
	return uffd_drop(worker->moved, region->page_bytes);
}

enum secpool_error evict_flush_page(
	struct worker *worker, struct secpool_region *region, uint64_t pgno)
{
	struct page *page = &region->pages[pgno];
	uint64_t seen = atomic_load(&page->word);
	uint64_t version = page_version(seen);
	enum secpool_error error;

	if (page_state(seen) != PAGE_DIRTY ||
		!page_step(page, &seen, PAGE_EVICT_BEGIN, page_copies(seen), version))
		return page_busy(seen) ? SECPOOL_E_BUSY : SECPOOL_OK;
	if (hold(worker, region, pgno) != SECPOOL_OK) {
		leave(region, pgno, PAGE_EVICT_UNDO, version);
		return SECPOOL_E_BUSY;
	}
	error = write_out(worker, region, pgno, version + 1);
	if (!error)
		error = map_again(worker, region, pgno);
	if (error) {
		undo(worker, region, pgno, version + 1);
		return error;
	}
	if (!step_absent(region, pgno, PAGE_EVICT_CLEAN, &seen)) {
		leave(region, pgno, PAGE_EVICT_UNDO, version + 1);
		return SECPOOL_E_NO_SPACE;
	}
	if (seen & PAGE_WAITERS)
		uffd_wake(&region->pool->uffd, region->address + pgno * region->page_bytes,
			region->page_bytes);
	counter_add(&region->pool->counters.write_backs, 1);
	return SECPOOL_OK;
}
