/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who has which space of which device. The extents of a device cover all of it, without overlap, in units of
 * EXTENTS_UNIT_BYTES; neighbours that are both free, or both unknown, are one row.
 *
 *   unknown -> scrubbing -> free -> in use -> releasing -> scrubbing -> free
 *                                   in use -> set aside (given up, but its client may still write there) -> releasing
 *                                   in use -> free, when the region never was live: nobody was told its places
 *                           free -> target (its region copies there what it has on a draining device) -> in use
 *                                   in use -> releasing, when it was copied: of a region that lives on
 *
 * Only free space is handed out, and only a scrub with a matching read-back makes space free. All functions that change
 * something are called within a change of the directory (directory_begin). Threads: one (the loop's).
 */
#ifndef SECPOOL_KEYMGR_EXTENTS_H
#define SECPOOL_KEYMGR_EXTENTS_H

#include "keymgr/directory.h"
#include "lib/wire/msg.h"

#define EXTENTS_UNIT_BYTES  (2ull << 20)
/* Unknown space is scrubbed in pieces, so that released space never waits long for its turn. */
#define EXTENTS_SCRUB_BYTES (64ull << 20)

enum extents_state {
	EXTENTS_UNKNOWN = 0,
	EXTENTS_SCRUBBING = 1,
	EXTENTS_FREE = 2,
	EXTENTS_IN_USE = 3,
	EXTENTS_RELEASING = 4,
	EXTENTS_SET_ASIDE = 5,
	EXTENTS_DIFFERED = 6, /* the read-back after a scrub differed: never handed out until the media is new */
	EXTENTS_TARGET = 7,   /* in use as soon as all was copied */
};

/* In SQL, of what is set aside: the newest epoch of its region then. What is written there under a later one, nobody wrote (epochs.h). */
#define EXTENTS_EPOCH_SQL "IFNULL((SELECT MAX(epoch, next_epoch) FROM regions WHERE id = region), 0)"

struct extents_row {
	uint64_t id;
	uint64_t slot, offset, bytes;
	uint64_t region; /* 0: none */
	uint64_t lane, region_offset;
	enum extents_state state;
};

/* A device on which space may be taken now. domain is borrowed. tier: 0 is taken first (docs/architecture.md, placement). */
struct extents_device {
	uint64_t slot;
	const char *domain;
	uint32_t tier;
};

/* How the space of a device is used; bytes. differed: of unscrubbed, what is never handed out. free is in free_extents pieces, the largest of largest_free (0: none). */
struct extents_use {
	uint64_t used, free, unscrubbed, differed;
	uint64_t largest_free, free_extents;
};

/* The device's whole space becomes one unknown extent; what was there is forgotten. bytes is rounded down to units. */
enum secpool_error extents_reset_device(
	struct directory *directory, uint64_t slot, uint64_t bytes) MUST_USE;

/*
 * The same for contents that are new in a file that may be the one from before, so that its clients may still write there: what regions have
 * there is set aside until they end, what they had goes on being released, and all else becomes unknown. What is kept may lie beyond the device's end.
 */
enum secpool_error extents_set_aside_device(
	struct directory *directory, uint64_t slot, uint64_t bytes) MUST_USE;

/*
 * Takes space for `lanes` lanes of bytes each (rounded up to units), where no two lanes of one part of the region are in the same fault
 * domain; domains and devices with the most free space first, of the lowest tiers up to which they fit. On each the smallest free extent that holds what is
 * to be placed there, else the largest ones one after the other.
 * Errors: SECPOOL_E_NOT_ATTESTED (fewer domains with a usable device than lanes), SECPOOL_E_NO_SPACE, each with a
 * sentence that says how many there are; SECPOOL_E_STORE. The caller takes the change back.
 */
enum secpool_error extents_take(struct directory *directory, uint64_t region, uint32_t lanes,
	uint64_t bytes, const struct extents_device *devices, size_t device_count) MUST_USE;

/* Gives up what the region has on a device: the space is set aside until the region ends. Targets of what was there are in use from then on. */
enum secpool_error extents_set_aside(
	struct directory *directory, uint64_t region, uint64_t slot) MUST_USE;

/*
 * Takes space for every part of the region's lanes that has none, in domains that hold no other lane of it, as far as there is any.
 * Errors: SECPOOL_E_NO_SPACE: some parts still have none, and the change is to be kept; SECPOOL_E_STORE.
 */
enum secpool_error extents_fill(struct directory *directory, uint64_t region, uint32_t lanes,
	uint64_t bytes, const struct extents_device *devices, size_t device_count) MUST_USE;

/*
 * Takes targets for all that the region has on a device and that has none yet, in domains that hold no other lane of that part. Errors: SECPOOL_E_NO_SPACE, SECPOOL_E_STORE:
 * the caller takes the change back.
 */
enum secpool_error extents_move(struct directory *directory, uint64_t region, uint64_t slot,
	const struct extents_device *devices, size_t device_count) MUST_USE;

/*
 * What the region has on the device was copied: it becomes releasing, though the region lives, and the targets are in use. Errors: SECPOOL_E_BUSY (a part of it has no target: nothing is changed), SECPOOL_E_STORE.
 */
enum secpool_error extents_moved(
	struct directory *directory, uint64_t region, uint64_t slot) MUST_USE;

/* Whether nothing of a region is on the device, and all that can be overwritten is. */
enum secpool_error extents_drained(
	struct directory *directory, uint64_t slot, bool *ret_drained) MUST_USE;

/* What no region has there becomes unknown, to be overwritten again. */
enum secpool_error extents_scrub_again(struct directory *directory, uint64_t slot) MUST_USE;

/* All that the region has or had becomes releasing. */
enum secpool_error extents_release(struct directory *directory, uint64_t region) MUST_USE;

/* What a region has that never was live is free again as it was: nobody was told where it is. */
enum secpool_error extents_give_back(struct directory *directory, uint64_t region) MUST_USE;

/* What was being scrubbed is to be scrubbed again: after a restart. */
enum secpool_error extents_restart(struct directory *directory) MUST_USE;

/* The same for one row: its scrub could not begin. Nothing happens when it is no longer `scrubbing`. */
enum secpool_error extents_scrub_back(
	struct directory *directory, const struct extents_row *row) MUST_USE;

/*
 * The next space to scrub on this device, made `scrubbing`: released, else (unless released_only) a piece of unknown.
 * Errors: SECPOOL_E_NOT_FOUND (nothing to do), SECPOOL_E_STORE.
 */
enum secpool_error extents_scrub_next(
	struct directory *directory, uint64_t slot, bool released_only,
	struct extents_row *ret_row) MUST_USE;

/*
 * The end of a scrub: MATCHED makes it free and merges it; DIFFERED and NOT_OVERWRITTEN keep it away from all; UNREACHABLE makes it unknown again.
 * Nothing happens when the row is no longer `scrubbing` (the device's media changed meanwhile); *ret_done says which.
 */
enum secpool_error extents_scrub_end(struct directory *directory, const struct extents_row *row,
	enum msg_readback readback, bool *ret_done) MUST_USE;

/* The device can't be reached: releasing space there becomes unknown, without its region. */
enum secpool_error extents_drop_releasing(struct directory *directory, uint64_t slot) MUST_USE;

/* Rows of the region's places in use and of its targets, in order, from the first-th on; *ret_total is how many there are in all. */
enum secpool_error extents_list(struct directory *directory, uint64_t region, uint64_t first,
	struct extents_row *rows, size_t most, size_t *ret_count, uint64_t *ret_total) MUST_USE;

enum secpool_error extents_count_use(
	struct directory *directory, uint64_t slot, struct extents_use *ret_use) MUST_USE;

#endif
