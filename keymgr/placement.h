/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which devices a region's lanes go to: extents_take and extents_fill (extents.h), and the two steps on free space
 * that they are made of. Threads: one (the loop's).
 */
#ifndef SECPOOL_KEYMGR_PLACEMENT_H
#define SECPOOL_KEYMGR_PLACEMENT_H

#include "keymgr/extents.h"

/* Most devices that are looked at for one region. */
enum { PLACEMENT_DEVICES_MOST = 1024 };

/* The smallest free extent of a device that has so many bytes, else its largest. Errors: SECPOOL_E_NOT_FOUND, SECPOOL_E_STORE. */
enum secpool_error extents_find_free(
	struct directory *directory, uint64_t slot, uint64_t bytes, struct extents_row *ret_row) MUST_USE;

/* The first bytes of a free extent become the region's: state, region, lane and region_offset of `as`. */
enum secpool_error extents_use_free(struct directory *directory, const struct extents_row *row,
	uint64_t bytes, const struct extents_row *as) MUST_USE;

/* The n-th extent that the region uses on a device, in the order of lanes. Errors: SECPOOL_E_NOT_FOUND (there are fewer), SECPOOL_E_STORE. */
enum secpool_error extents_nth(struct directory *directory, uint64_t region, uint64_t slot,
	uint64_t n, struct extents_row *ret_row) MUST_USE;

/* Targets of the region whose part has no place in use any more are in use. */
enum secpool_error extents_promote(struct directory *directory, uint64_t region) MUST_USE;

#endif
