/* SPDX-License-Identifier: Apache-2.0 */
/* Bringing pages in: from their first touch (zeros) or from a verified copy. Threads: workers that are inside. */
#ifndef SECPOOL_FILL_H
#define SECPOOL_FILL_H

#include "lib/fillset.h"
#include "lib/pool.h"

/*
 * Takes an absent or fresh page (as `seen`), maps it and wakes who waits; with it, as far as the local budget has room for the asking, those that a stream of
 * faults will want next (readahead.h). If the page changed meanwhile, who waits is woken and asks again.
 * writable: for a write; else it is mapped write-protected and clean. A page that has no good copy ends as lost, poisoned, with an event; one for which there is no room as it was, barred (PAGE_BARRED): whoever touches it
 * gets SIGBUS, until fill_unbar.
 */
void fill_page(struct worker *worker, struct secpool_region *region, uint64_t pgno, uint64_t seen, bool writable);

/*
 * Takes those of the pages from `first` up to `end` that can be brought in now without taking others out, up to the first that can't, and brings them in.
 * Returns the page after the last that it looked at; more than `first` unless the first page is busy or there is no room.
 */
uint64_t fill_range(struct worker *worker, struct secpool_region *region, uint64_t first, uint64_t end, bool writable);

/* Brings in the pages of a set, which are the caller's. */
void fill_run(struct worker *worker, const struct fillset *fill);

/*
 * Notes what became of a page that was filled clean. A write to it after all costs a second fault, more than writing back a page for nothing does; where that happens
 * often, pages are filled writable from then on also for a read, but for a sample that tells whether it is still so.
 */
void fill_note_outcome(struct secpool_region *region, bool rewritten);

/*
 * Maps a page that the caller is filling, dirty, from `plain`; its room was reserved. False: it could not be mapped; it is the caller's still, and its room was returned.
 */
bool fill_place(struct worker *worker, struct secpool_region *region, uint64_t pgno, const uint8_t *plain) MUST_USE;

/* Ends the protection of a page that the caller took with PAGE_WRITE_BEGIN: dirty and writable, its waiters woken. */
void fill_end_protection(struct worker *worker, struct secpool_region *region, uint64_t pgno);

/* Ends the filling of a page that stays out of local memory, absent or fresh; or lost, if its last copy went meanwhile. Wakes who waits. */
void fill_undo(struct worker *worker, struct secpool_region *region, uint64_t pgno);

/*
 * Takes the poison from the region's barred pages: they are asked for again, and wait for room again. Threads: the service.
 */
void fill_unbar(struct worker *worker, struct secpool_region *region);

/* Ends a page as lost: the poison, the waiters, the event. The caller has stepped it to PAGE_LOST. */
void fill_lost(struct worker *worker, struct secpool_region *region, uint64_t pgno, enum secpool_cause cause, const struct device *device);

/* The same for a page that the caller is filling. */
void fill_end_as_lost(struct worker *worker, struct secpool_region *region, uint64_t pgno, enum secpool_cause cause, const struct device *device);

/*
 * Reads a good copy of a page that the caller is filling to `plain` (as redundancy_read); a bad copy is repaired and told of.
 * Errors: SECPOOL_E_LOST: the page has ended as lost.
 */
enum secpool_error fill_read(struct worker *worker, struct secpool_region *region, uint64_t pgno, uint8_t *plain) MUST_USE;

#endif
