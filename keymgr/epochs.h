/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The epochs of a region, as its row has them: the key that its pages are under (epoch, wrap), and while it is rotated the one that they move to (next_epoch, next_wrap); whether its client is to ask for
 * a new one (rotate); when the newest was made (key_ns). rotate.h carries it out.
 *
 * A row names a slot of wraps.h before its key is used, and no more before the slot is overwritten: what a crash leaves in between, wraps_open overwrites. A client that has a key needs no slot.
 * Threads: one (the loop's).
 */
#ifndef SECPOOL_KEYMGR_EPOCHS_H
#define SECPOOL_KEYMGR_EPOCHS_H

#include "keymgr/regions.h"

/* The epoch that a new key for the region would have: none that it ever had. */
uint64_t epochs_new(const struct regions_row *row);

/*
 * The region's pages move to the key of this epoch, which is stored in that slot; what the row named as the next one before is its caller's to overwrite. It is asked for no more.
 * Errors: SECPOOL_E_NOT_FOUND (not live), SECPOOL_E_STORE.
 */
enum secpool_error epochs_begin(
	struct directory *directory, uint64_t region, uint64_t epoch, uint64_t wrap) MUST_USE;

/* The key that the region is to move to is given up; its epoch stays, so that the next one is another. Errors: SECPOOL_E_STORE. */
enum secpool_error epochs_drop_next(struct directory *directory, uint64_t region) MUST_USE;

/* All of them are there: the key before has no name any more, and the caller overwrites it. Errors: SECPOOL_E_NOT_FOUND (not rotated to this epoch), SECPOOL_E_STORE. */
enum secpool_error epochs_end(
	struct directory *directory, uint64_t region, uint64_t epoch) MUST_USE;

/* Live regions of the tenant are to be rotated; how many. */
enum secpool_error epochs_want(
	struct directory *directory, const char *tenant, uint64_t *ret_count) MUST_USE;

/* All live regions are, whatever their keys are. */
enum secpool_error epochs_want_all(struct directory *directory) MUST_USE;

/* The region is, if it is live. */
enum secpool_error epochs_want_one(struct directory *directory, uint64_t region) MUST_USE;

/* The same for live regions whose newest key was made before then (clock_calendar_ns), and that are not being rotated or about to be; how many. */
enum secpool_error epochs_want_older(
	struct directory *directory, uint64_t before_ns, uint64_t *ret_count) MUST_USE;

/* The live region with the next greater number that is to be rotated. Errors: SECPOOL_E_NOT_FOUND at the end, SECPOOL_E_STORE. */
enum secpool_error epochs_wanted(
	struct directory *directory, uint64_t after, struct regions_row *ret_row) MUST_USE;

/*
 * Up to `most` live regions that have space on the device, or had it under a key that they still have and it is not overwritten yet, and of which a wrapped key is stored: their rows name it no more, and they are to be rotated. The caller
 * overwrites the slots (wraps_erase_all). Their programs have the keys themselves and go on. ret_rows: what they were before. Called until it finds none. Called within a change.
 * offset: 0 at first, then as it was left: where on the device to go on, so that all calls together look at each of its places once.
 */
enum secpool_error epochs_forget(struct directory *directory, uint64_t slot, uint64_t *offset,
	struct regions_row *rows, size_t most, size_t *ret_count) MUST_USE;

/* The live region's row names no wrapped key any more, and it is not to be rotated; the caller overwrites the slots. */
enum secpool_error epochs_forget_region(struct directory *directory, uint64_t region) MUST_USE;

#endif
