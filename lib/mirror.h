/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The copies of a page: where they lie, reading a good one, writing all of them. All copies hold the same ciphertext.
 *
 * Threads: workers, each for pages that it owns (busy).
 */
#ifndef SECPOOL_MIRROR_H
#define SECPOOL_MIRROR_H

#include "lib/pool.h"

/* What reading a page met. */
struct mirror_result {
	unsigned bad_copies;  /* bit c: copy c failed its check */
	unsigned gone_copies; /* bit c: its device is gone */
	unsigned good_copy;
	struct device *bad_device; /* of the last bad copy */
};

/*
 * Finds where copy `copy` of a page is. False where it has no place (lost and not replaced). A page never lies across two places: places are
 * multiples of 2 MiB, the largest page.
 */
bool mirror_find(const struct placement *placement, unsigned copy, uint64_t offset, struct device **ret_device, uint64_t *ret_offset);

/*
 * Reads, checks and decrypts one good copy to `plain` (a page of the worker's locked memory), and writes it over copies that failed their check (repair).
 * Version and copies are those of the page's word. Errors: SECPOOL_E_LOST (no good copy), with ret_result telling why.
 */
enum secpool_error mirror_read(struct worker *worker, struct secpool_region *region, uint64_t pgno, uint8_t *plain, struct mirror_result *ret_result) MUST_USE;

/* Asks the CPU to bring near what mirror_read would read first for a page that will be filled next; does nothing else, and can't fail. */
void mirror_prefetch(const struct secpool_region *region, uint64_t pgno);

/*
 * Writes worker->ciphertext to every place that the page (the worker's) has, and notes version and copies in its word by `event`: PAGE_EVICT_WRITTEN or PAGE_FILL_WRITTEN.
 * A copy counts when its device was seen alive after the note: whoever finds it gone later takes the bit out of the word.
 * Errors: SECPOOL_E_NO_SPACE when no copy was written; the word's copies are then empty.
 */
enum secpool_error mirror_write(struct worker *worker, struct secpool_region *region, uint64_t pgno, uint64_t version, enum page_event event) MUST_USE;

/*
 * The three steps of adding copies to a page that the worker owns. All take the placement that the caller loaded once before: a bit may be
 * noted only for the very place that was written.
 */
static inline const struct placement *mirror_placement(const struct secpool_region *region)
{
	/* acquire: a new placement is published after the lost copies were struck from the words (loss.h) */
	return atomic_load_explicit(&region->placement, memory_order_acquire);
}

/* Which copies a page could have and has not: those with a place on a device that is there, without `copies`. */
unsigned mirror_missing(const struct placement *placement, const struct secpool_region *region, uint64_t pgno, unsigned copies);

/* Writes worker->ciphertext to the copies `missing`. Returns those that were written. */
unsigned mirror_add(const struct placement *placement, struct worker *worker, struct secpool_region *region, uint64_t pgno, unsigned missing);

/*
 * Strikes copies whose device is gone from the page's word, after they were noted there: who handled the loss may have done so before the note.
 * Returns whether the page thereby became lost.
 */
bool mirror_strike_gone(const struct placement *placement, struct worker *worker, struct secpool_region *region, uint64_t pgno);

#endif
