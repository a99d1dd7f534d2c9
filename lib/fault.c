/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/fault.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/base/os.h"
#include "lib/evict.h"
#include "lib/fill.h"
#include "lib/handlers.h"
#include "lib/overhead.h"
#include "lib/refill.h"
#include "lib/signals.h"

/* The handler threads' places in front; then the service's, then the cleaner's. */
enum { OWN_WORKERS_MORE = 2 };

/* Pools in fault mode inline, for the signal's handler. A place is used again when its pool was closed; no thread touches a closing pool's memory. */
enum { INLINE_POOLS_MOST = 16 };
static _Atomic(struct secpool *) inline_pools[INLINE_POOLS_MOST];

/* A wait for a busy page: so many looks, then asleep until the owner says, or this long. Owners need 2 to 200 us. */
enum { AWAIT_SPINS = 400 };
#define AWAIT_NS (10ull * 1000000)

/* How long a guest gives a handler before it makes its access again. */
#define DELEGATE_RETRY_NS (100ull * 1000)

/* x86: the bits of a page fault's error code (Intel SDM volume 3, 4.7). */
enum { FAULT_PRESENT = 1, FAULT_WRITE = 2 };

void fault_await_page(struct worker *worker, struct page *page, uint64_t seen)
{
	struct timespec most = {.tv_nsec = AWAIT_NS};

	(void)worker;
	for (unsigned i = 0; i < AWAIT_SPINS; i++) {
		uint64_t now = atomic_load_explicit(&page->word, memory_order_acquire);
		if (!page_busy(now) || page_version(now) != page_version(seen))
			return;
		__builtin_ia32_pause();
	}
	seen = atomic_load(&page->word);
	if (page_wait(page, seen))
		syscall(SYS_futex, page_futex(page), FUTEX_WAIT_PRIVATE,
			(uint32_t)(seen | PAGE_WAITERS), &most, NULL, 0);
}

void fault_wake_page(struct worker *worker, struct secpool_region *region, uint64_t pgno)
{
	syscall(SYS_futex, page_futex(&region->pages[pgno]), FUTEX_WAKE_PRIVATE, INT32_MAX, NULL,
		NULL, 0);
	uffd_wake(worker->uffd, region->address + pgno * region->page_bytes, region->page_bytes);
}

/* A busy page was asked for: its owner wakes who waits. */
static void serve_busy(
	struct worker *worker, struct secpool_region *region, uint64_t pgno, uint64_t seen)
{
	struct page *page = &region->pages[pgno];

	if (worker->uffd->is_inline)
		fault_await_page(worker, page, seen);
	else if (!page_wait(page, seen)) /* it ended: the access is made again */
		fault_wake_page(worker, region, pgno);
}

static bool all_present(const struct secpool_region *region, uint8_t *at)
{
	for (size_t i = 0; i < region->page_bytes; i += PAGECIPHER_PAGE_BYTES_LEAST)
		if (!uffd_present(at + i))
			return false;
	return true;
}

/*
 * A resident page was asked for. It was mapped meanwhile, or somebody went round the library and dropped it: then zeros would be a lie. It is looked at as its owner, so
 * that nobody takes it out and back in between.
 */
static void serve_resident(
	struct worker *worker, struct secpool_region *region, uint64_t pgno, uint64_t seen)
{
	struct page *page = &region->pages[pgno];
	uint8_t *at = region->address + pgno * region->page_bytes;
	bool clean = page_state(seen) == PAGE_CLEAN, vanished;

	if (all_present(region, at)) {
		fault_wake_page(worker, region, pgno);
		return;
	}
	if (!page_step(page, &seen, PAGE_WRITE_BEGIN, page_copies(seen), page_version(seen))) {
		fault_wake_page(worker, region, pgno);
		return;
	}
	vanished = !all_present(region, at);
	seen = atomic_load(&page->word);
	for (;;) {
		bool still_clean = clean && (page_version(seen) == 0 || page_copies(seen) != 0);
		enum page_event event = vanished      ? PAGE_VANISHED
					: still_clean ? PAGE_EVICT_CLEAN
						      : PAGE_EVICT_UNDO;
		if (page_step(page, &seen, event, still_clean && !vanished ? page_copies(seen) : 0,
			    page_version(seen)))
			break;
	}
	if (vanished && (seen & PAGE_UNQUEUED))
		cache_return(&region->pool->cache, worker->index, region->page_bytes);
	else if (vanished)
		atomic_fetch_add(&region->vanished,
			1); /* its entry is queued: the room is returned with it, so that there is never an entry more than pages fit */
	if (vanished)
		fill_lost(worker, region, pgno, SECPOOL_CAUSE_REMOVED, NULL);
	fault_wake_page(worker, region, pgno);
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
		serve_busy(worker, region, pgno, seen);
		break;
	case PAGE_CLEAN:
	case PAGE_DIRTY:
		serve_resident(worker, region, pgno, seen);
		break;
	case PAGE_LOST:
		if (refill_possible(region, seen)) {
			refill_ask(worker, region, pgno, seen);
			serve_busy(worker, region, pgno, atomic_load(&page->word));
		} else if (uffd_poison(worker->uffd, at, region->page_bytes) != SECPOOL_OK)
			fault_wake_page(worker, region, pgno);
		break;
	case PAGE_STATES:
		break;
	}
}

/*
 * A write to a page that is mapped write-protected. The page is this worker's while its protection changes: otherwise it might be evicted and come back
 * clean in between, and a late change would leave it writable and clean, its next stores lost.
 */
static void serve_protected(struct worker *worker, struct secpool_region *region, uint64_t pgno)
{
	struct page *page = &region->pages[pgno];
	uint64_t seen = atomic_load_explicit(&page->word, memory_order_acquire);

	if (region_still(
		    region)) { /* the access is made again: in memory that can't be written to, or that can again */
		fault_wake_page(worker, region, pgno);
		return;
	}
	while (page_state(seen) == PAGE_CLEAN || page_state(seen) == PAGE_DIRTY) {
		uint64_t before = seen;
		if (!page_step(
			    page, &seen, PAGE_WRITE_BEGIN, page_copies(seen), page_version(seen)))
			continue;
		if (page_state(before) == PAGE_CLEAN)
			fill_note_outcome(region, true);
		/* that wakes the writer; on an error it stays protected, and the writer comes here again */
		fill_end_protection(worker, region, pgno);
		return;
	}
	serve_busy(worker, region, pgno, seen);
}

void fault_serve(struct worker *worker, const struct uffd_fault *fault)
{
	struct secpool *pool = worker->pool;
	struct secpool_region *region = pool_find_address(pool, fault->address);
	uint64_t pgno;

	if (!region) { /* released meanwhile: the access is made again until its mapping is gone */
		uffd_wake(worker->uffd,
			(void *)(fault->address & ~(uintptr_t)(PAGECIPHER_PAGE_BYTES_LEAST - 1)),
			PAGECIPHER_PAGE_BYTES_LEAST);
		return;
	}
	overhead_mark(worker, OVERHEAD_FIND);
	counter_add(worker, COUNTER_FAULTS, 1);
	pgno = (fault->address - (uintptr_t)region->address) / region->page_bytes;
	if (fault->protect)
		serve_protected(worker, region, pgno);
	else
		serve_missing(worker, region, pgno, fault->write);
}

/* ---- faults as signals ---- */

static bool is_lost(struct secpool *pool, uintptr_t address)
{
	struct secpool_region *region = pool_find_address(pool, address);
	uint64_t pgno, word;

	if (!region)
		return true;
	pgno = (address - (uintptr_t)region->address) / region->page_bytes;
	word = atomic_load(&region->pages[pgno].word);
	return (page_state(word) == PAGE_LOST && !refill_possible(region, word)) ||
	       ((word & PAGE_BARRED) &&
		       (page_state(word) == PAGE_ABSENT || page_state(word) == PAGE_FRESH));
}

/* The program may have closed the descriptor by which its threads serve themselves: then a handler, which has its own, serves them. */
static void serve_signal(struct worker *worker, const struct uffd_fault *fault)
{
	if (!atomic_load_explicit(&worker->pool->program_broken, memory_order_relaxed)) {
		fault_serve(worker, fault);
		return;
	}
	handlers_delegate(worker->pool, fault);
	clock_sleep_ns(DELEGATE_RETRY_NS); /* the access is made again */
}

bool fault_signal(const siginfo_t *info, const ucontext_t *context)
{
	uintptr_t address = (uintptr_t)info->si_addr;
	uint64_t code = (uint64_t)context->uc_mcontext.gregs[REG_ERR];
	struct uffd_fault fault = {
		.address = address,
		.write = code & FAULT_WRITE,
		.protect = (code & FAULT_PRESENT) && (code & FAULT_WRITE),
	};

	if (!signals_in_window(info->si_addr, 1))
		return false;
	for (unsigned i = 0; i < INLINE_POOLS_MOST; i++) {
		struct secpool *pool = atomic_load_explicit(&inline_pools[i], memory_order_acquire);
		struct worker *worker;
		bool lost;
		if (!pool)
			continue;
		worker = worker_borrow(pool);
		overhead_begin(worker);
		lost = is_lost(pool, address);
		if (!lost)
			serve_signal(worker, &fault);
		worker_give_back(worker);
		if (!lost)
			return true;
	}
	return false;
}

/* ---- start and stop ---- */

static void *cleaner_main(void *arg)
{
	struct worker *worker = arg;

	signals_enter_handler();
	evict_clean_ahead(worker);
	return NULL;
}

static enum secpool_error enlist(struct secpool *pool)
{
	struct secpool *none;

	for (unsigned i = 0; i < INLINE_POOLS_MOST; i++) {
		none = NULL;
		if (atomic_compare_exchange_strong(&inline_pools[i], &none, pool))
			return SECPOOL_OK;
	}
	return err_set(SECPOOL_E_LIMIT, "a process has at most %d pools in fault mode inline",
		INLINE_POOLS_MOST);
}

static void delist(struct secpool *pool)
{
	for (unsigned i = 0; i < INLINE_POOLS_MOST; i++) {
		struct secpool *it = pool;
		atomic_compare_exchange_strong(&inline_pools[i], &it, NULL);
	}
}

static struct worker *cleaner_of(struct secpool *pool)
{
	return &pool->workers.all[pool->fault_threads + 1];
}

enum secpool_error fault_start(struct secpool *pool)
{
	enum secpool_error error = workers_init(
		pool, pool->fault_threads + OWN_WORKERS_MORE, &pool->uffd, &pool->program_uffd);
	struct worker *cleaner = cleaner_of(pool);

	if (error)
		return error;
	if (pool->uffd.is_inline)
		error = enlist(pool);
	if (!error)
		error = handlers_start(pool);
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
	struct worker *cleaner = cleaner_of(pool);

	atomic_store(&pool->stopping, true);
	delist(pool);
	cache_stop(&pool->cache);
	if (cleaner->started)
		signals_end_thread(cleaner->thread);
	cleaner->started = false;
	handlers_stop(pool);
	workers_done(pool);
}
