/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loss mode refill: a page that is lost stays without poison, and when it is asked for, the program's callback makes it again.
 *
 * The callback runs on a thread of its own, which is one of the program's as far as descriptors go, holds no lock of the library and is no worker meanwhile: it may use all of the C library and touch other pool memory. It fills a
 * private buffer; the page is FILLING, and who wants it waits as for any busy page. A callback that fails, or takes longer than the region's deadline, leaves the page lost and poisoned (PAGE_BARRED): SIGBUS.
 * One thread for a pool: while a callback is late, the pages behind it are too.
 */
#ifndef SECPOOL_REFILL_H
#define SECPOOL_REFILL_H

#include "lib/pool.h"

/* The deadline unless the region sets one. */
enum { REFILL_MS_DEFAULT = 1000 };

struct refiller;

/* Starts the pool's refiller unless it runs. Errors: SECPOOL_E_NO_MEMORY, SECPOOL_E_NO_LOCKED_MEMORY. Threads: the program's. */
enum secpool_error refill_start(struct secpool *pool) MUST_USE;

/* Ends it; a callback that does not return is left behind with its thread. No region is left. Threads: the program's, in secpool_close. */
void refill_stop(struct secpool *pool);

/* Whether the callback may be asked for a page with this word. */
static inline bool refill_possible(const struct secpool_region *region, uint64_t word)
{
	return region->refill && !atomic_load(&region->ended) && page_state(word) == PAGE_LOST && !(word & PAGE_BARRED);
}

/* A page for which that is so is asked for: it is FILLING afterwards, unless it changed meanwhile or too many wait; the access is then made again. Threads: workers. */
void refill_ask(struct worker *worker, struct secpool_region *region, uint64_t pgno, uint64_t seen);

/* Ends what is late. Returns when to look again (clock_now_ns); 0: nothing waits. Threads: the service. */
uint64_t refill_expire(struct secpool *pool);

/* Ends everything that waits for the region's callback, which is not asked again. Threads: the service. */
void refill_cancel(struct secpool *pool, struct secpool_region *region);

#endif
