/* SPDX-License-Identifier: Apache-2.0 */
/* Bringing a page in: from its first touch (zeros) or from a verified copy. Threads: workers. */
#ifndef SECPOOL_FILL_H
#define SECPOOL_FILL_H

#include "lib/pool.h"

/*
 * Takes an absent or fresh page (as `seen`), maps it and wakes who waits; with it, as far as the local budget has room for the asking, those that a stream of
 * faults will want next (readahead.h). If the page changed meanwhile, who waits is woken and asks again.
 * writable: for a write; else it is mapped write-protected and clean. A page that has no good copy, or no room, ends as lost, poisoned, with an event.
 */
void fill_page(struct worker *worker, struct secpool_region *region, uint64_t pgno, uint64_t seen, bool writable);

/* Ends a page as lost: the poison, the waiters, the event. The caller has stepped it to PAGE_LOST. */
void fill_lost(struct secpool_region *region, uint64_t pgno, enum secpool_cause cause, const struct device *device);

/* The same for a page that the caller is filling. */
void fill_end_as_lost(struct secpool_region *region, uint64_t pgno, enum secpool_cause cause, const struct device *device);

#endif
