/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Taking pages out: no write is lost and nobody sees a page half-way. Threads: workers.
 *
 * With UFFDIO_MOVE a dirty page's frame is moved to the worker's own range, encrypted there, written and freed; without it the page is
 * write-protected, encrypted where it is, written and dropped. A frame is never filled again: the kernel may still hold a reference to it.
 */
#ifndef SECPOOL_EVICT_H
#define SECPOOL_EVICT_H

#include "lib/pool.h"

/*
 * Takes bytes from the local budget, evicting as many pages as that needs. Give them back with cache_return.
 * Errors: SECPOOL_E_NO_SPACE when no page could be written anywhere within EVICT_PATIENCE.
 */
enum secpool_error evict_make_room(struct worker *worker, size_t bytes) MUST_USE;

/*
 * Takes up to `most` pages out, those first that came first. Errors: SECPOOL_E_BUSY: none went (pinned, busy, or no place to write to).
 */
enum secpool_error evict_batch(struct worker *worker, unsigned most) MUST_USE;

/* The cleaner thread's work: keeps the budget between two marks (cache.h), ahead of need, until cache_stop. */
void evict_clean_ahead(struct worker *worker);

/* Writes a resident dirty page to its places; it stays resident, clean. Errors: SECPOOL_E_NO_SPACE (it stays dirty). A page that is not dirty is no error. */
enum secpool_error evict_flush_page(struct worker *worker, struct secpool_region *region, uint64_t pgno) MUST_USE;

/* How long a fault waits for space to appear after a loss, before its page is given up, in nanoseconds. */
#define EVICT_PATIENCE_NS (3ull * 1000000000ull)

#endif
