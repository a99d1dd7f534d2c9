/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/fault.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/base/os.h"
#include "lib/evict.h"
#include "lib/fill.h"
#include "lib/signals.h"

/* A resident page was asked for. It was mapped meanwhile, or somebody went round the library and dropped it. */
static void serve_resident(struct secpool_region *region, uint64_t pgno, uint64_t seen)
{
	struct page *page = &region->pages[pgno];
	uint8_t *at = region->address + pgno * region->page_bytes;

	for (size_t i = 0; i < region->page_bytes; i += PAGECIPHER_PAGE_BYTES_LEAST) {
		if (uffd_present(at + i))
			continue;
		/* if the word is still the same, no worker took the page in between: it has vanished, and zeros would be a lie */
		if (page_step(page, &seen, PAGE_VANISHED, 0, page_version(seen))) {
			fill_lost(region, pgno, SECPOOL_CAUSE_REMOVED, NULL);
			cache_return(&region->pool->cache, region->page_bytes);
			return;
		}
		break;
	}
	uffd_wake(&region->pool->uffd, at, region->page_bytes);
}

static void serve_missing(
	struct worker *worker, struct secpool_region *region, uint64_t pgno, bool write)
{
	struct page *page = &region->pages[pgno];
	uint8_t *at = region->address + pgno * region->page_bytes;
	uint64_t seen = atomic_load_explicit(&page->word, memory_order_acquire);

	switch (page_state(seen)) {
	case PAGE_FRESH:
	case PAGE_ABSENT:
		fill_page(worker, region, pgno, seen, write);
		break;
	case PAGE_FILLING:
	case PAGE_EVICTING:
		if (!page_wait(page, seen)) /* it ended: the access is made again */
			uffd_wake(&region->pool->uffd, at, region->page_bytes);
		break;
	case PAGE_CLEAN:
	case PAGE_DIRTY:
		serve_resident(region, pgno, seen);
		break;
	case PAGE_LOST:
		if (uffd_poison(&region->pool->uffd, at, region->page_bytes) != SECPOOL_OK)
			uffd_wake(&region->pool->uffd, at, region->page_bytes);
		break;
	case PAGE_STATES:
		break;
	}
}

/*
 * A write to a page that is mapped write-protected. The page is this worker's while its protection changes: otherwise it might be evicted and come back
 * clean in between, and a late change would leave it writable and clean, its next stores lost.
 */
static void serve_protected(struct secpool_region *region, uint64_t pgno)
{
	struct page *page = &region->pages[pgno];
	uint8_t *at = region->address + pgno * region->page_bytes;
	uint64_t seen = atomic_load_explicit(&page->word, memory_order_acquire);
	bool failed;

	while (page_state(seen) == PAGE_CLEAN || page_state(seen) == PAGE_DIRTY) {
		uint64_t version = page_version(seen);
		if (!page_step(page, &seen, PAGE_WRITE_BEGIN, page_copies(seen), version))
			continue;
		/* that wakes the writer; on an error it stays protected, and the writer comes here again */
		failed = uffd_unprotect(&region->pool->uffd, at, region->page_bytes) != SECPOOL_OK;
		seen = atomic_load(&page->word);
		while (!page_step(page, &seen, PAGE_WRITE_END, 0, version))
			;
		if (failed || (seen & PAGE_WAITERS))
			uffd_wake(&region->pool->uffd, at, region->page_bytes);
		return;
	}
	if (!page_wait(page, seen)) /* else its owner wakes it */
		uffd_wake(&region->pool->uffd, at, region->page_bytes);
}

void fault_serve(struct worker *worker, const struct uffd_fault *fault)
{
	struct secpool *pool = worker->pool;
	struct secpool_region *region = pool_enter_address(pool, fault->address);
	uint64_t pgno;

	if (!region) { /* released meanwhile: the access is made again until its mapping is gone */
		uffd_wake(&pool->uffd,
			(void *)(fault->address & ~(uintptr_t)(PAGECIPHER_PAGE_BYTES_LEAST - 1)),
			PAGECIPHER_PAGE_BYTES_LEAST);
		return;
	}
	counter_add(&pool->counters.faults, 1);
	pgno = (fault->address - (uintptr_t)region->address) / region->page_bytes;
	if (fault->protect)
		serve_protected(region, pgno);
	else
		serve_missing(worker, region, pgno, fault->write);
	pool_leave(region);
}

static void *handler_main(void *arg)
{
	struct worker *worker = arg;
	struct secpool *pool = worker->pool;
	struct uffd_fault fault;

	signals_enter_handler();
	while (!atomic_load(&pool->stopping)) {
		enum secpool_error error = uffd_read(&pool->uffd, &fault);
		if (!error)
			fault_serve(worker, &fault);
		else if (error != SECPOOL_E_NO_EVENT)
			break;
	}
	return NULL;
}

static void *cleaner_main(void *arg)
{
	struct worker *worker = arg;

	signals_enter_handler();
	evict_clean_ahead(worker);
	return NULL;
}

static enum secpool_error worker_init(struct secpool *pool, struct worker *worker, unsigned index)
{
	enum secpool_error error;

	worker->pool = pool;
	worker->index = index;
	worker->ciphertext = mmap(NULL, PAGECIPHER_PAGE_BYTES_MOST, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (worker->ciphertext == MAP_FAILED) {
		worker->ciphertext = NULL;
		return os_error("memory of a worker");
	}
	error = pool_new_locked(pool, PAGECIPHER_PAGE_BYTES_MOST, &worker->plain);
	if (!error)
		error = pool_new_locked(pool, PAGECIPHER_PAGE_BYTES_MOST, &worker->moved);
	if (!error)
		error = uffd_register(&pool->uffd, worker->moved, PAGECIPHER_PAGE_BYTES_MOST);
	return error;
}

static void worker_done(struct worker *worker)
{
	uint8_t **parts[] = {&worker->ciphertext, &worker->plain, &worker->moved};

	for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
		if (*parts[i])
			syscall(SYS_munmap, *parts[i], (size_t)PAGECIPHER_PAGE_BYTES_MOST);
		*parts[i] = NULL;
	}
}

enum secpool_error fault_start(struct secpool *pool)
{
	struct worker *cleaner = &pool->workers[pool_workers(pool) - 1];
	enum secpool_error error = SECPOOL_OK;

	for (unsigned i = 0; !error && i < pool_workers(pool); i++)
		error = worker_init(pool, &pool->workers[i], i);
	for (unsigned i = 0; !error && i < pool->fault_threads; i++) {
		struct worker *worker = &pool->workers[i];
		error = signals_start_thread(&worker->thread, handler_main, worker);
		worker->started = !error;
	}
	if (!error) {
		error = signals_start_thread(&cleaner->thread, cleaner_main, cleaner);
		cleaner->started = !error;
	}
	if (error)
		fault_stop(pool);
	return error;
}

void fault_stop(struct secpool *pool)
{
	atomic_store(&pool->stopping, true);
	cache_stop(&pool->cache);
	for (unsigned i = 0; i < POOL_WORKERS_MOST; i++)
		if (pool->workers[i].started)
			signals_end_thread(pool->workers[i].thread);
	for (unsigned i = 0; i < POOL_WORKERS_MOST; i++) {
		pool->workers[i].started = false;
		worker_done(&pool->workers[i]);
	}
}
