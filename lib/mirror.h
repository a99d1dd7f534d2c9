/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mirrors: each lane of the region is a whole copy of it, and all copies of a page hold the same ciphertext. redundancy.h says what the functions do that are named there.
 *
 * Threads: workers, each for pages that it owns (busy).
 */
#ifndef SECPOOL_MIRROR_H
#define SECPOOL_MIRROR_H

#include "lib/redundancy.h"

enum secpool_error mirror_read(struct worker *worker, struct secpool_region *region, uint64_t pgno, uint8_t *plain, struct redundancy_result *ret_result) MUST_USE;
void mirror_prefetch(const struct secpool_region *region, uint64_t pgno);
void mirror_write(struct worker *worker, struct secpool_region *region, const struct redundancy_page *page, enum page_event event);

/* Which copies a page could have and has not: those with a place on a device that is there, without `copies`. */
unsigned mirror_missing(const struct secpool_region *region, uint64_t pgno, unsigned copies);

/*
 * An absent page (as `seen`) gets the copies that it lacks. checks: all that it has are read too, and what is bad is written again. Returns false when it changed meanwhile.
 * Threads: workers that do not have the page.
 */
bool mirror_rebuild(struct worker *worker, struct secpool_region *region, uint64_t pgno, uint64_t seen, bool checks);

/*
 * Reads and checks all copies of a resident, clean page (as `seen`), which stays so. Returns how many are bad; they were told of. 0 too when the page changed meanwhile.
 * Threads: workers that do not have the page.
 */
unsigned mirror_resident_bad(struct worker *worker, struct secpool_region *region, uint64_t pgno, uint64_t seen);

/*
 * Copies the lane's cell of a page to its target and raises target->moved over it. A copy that is bad is had from the others; one that can't be had, or written, is struck. Returns false, and does
 * nothing, when somebody has the page. Threads: the service, which does not have the page.
 */
bool mirror_move(struct worker *worker, struct secpool_region *region, uint64_t pgno, struct target *target);

#endif
