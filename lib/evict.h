/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Taking pages out: no write is lost and nobody sees a page half-way. Threads: workers that are inside.
 *
 * Victims come in batches, in the order of the cache (cache.h). Clean ones are dropped as they are. Dirty ones are held, encrypted and written first (writeback.h): moved out
 * where they lie side by side; else write-protected, each at the price of a flush of the TLBs, which the cleaner leaves to who faults (is_scattered).
 * All that was not moved is dropped by one call. A frame is never filled again: the kernel may still hold a reference to it.
 */
#ifndef SECPOOL_EVICT_H
#define SECPOOL_EVICT_H

#include "lib/pool.h"

/* What a batch works on; a worker's own, too large for the stack of a signal handler. Errors: SECPOOL_E_NO_MEMORY. */
enum secpool_error evict_batch_new(struct evict_batch **ret_batch) MUST_USE;
void evict_batch_free(struct evict_batch *batch);

/*
 * Takes bytes from the local budget, evicting as many pages as that needs. Give them back with cache_return.
 * Errors: SECPOOL_E_NO_SPACE when no page could be written anywhere within EVICT_PATIENCE.
 */
enum secpool_error evict_make_room(struct worker *worker, size_t bytes) MUST_USE;

/*
 * Takes up to `most` pages out, in the order of the cache. Errors: SECPOOL_E_BUSY: none went (pinned, busy, or no place to write to).
 */
enum secpool_error evict_some(struct worker *worker, unsigned most) MUST_USE;

/* The cleaner thread's work: keeps the budget between two marks (cache.h), ahead of need, until cache_stop. */
void evict_clean_ahead(struct worker *worker);

/*
 * Writes the resident dirty pages from `first` up to `end` to their places; they stay resident, clean. Pinned pages are left as they are: the kernel may be writing to them.
 * Errors: SECPOOL_E_BUSY (others have some of them in hand: try again), SECPOOL_E_NO_SPACE (some stay dirty; *ret_failed, which may be NULL, is the first).
 */
enum secpool_error evict_flush_range(struct worker *worker, struct secpool_region *region, uint64_t first, uint64_t end, uint64_t *ret_failed) MUST_USE;

/* How many pages evict_flush_range looks at before others are let on: callers go through a region in steps of it. */
enum { EVICT_FLUSH_PAGES = 64 };

/* How long a fault waits for space to appear after a loss, before its page is given up, in nanoseconds. */
#define EVICT_PATIENCE_NS (3ull * 1000000000ull)

#endif
