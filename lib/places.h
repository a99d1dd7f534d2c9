/* SPDX-License-Identifier: Apache-2.0 */
/* Where a region's lanes lie: reading it from keymgrd, checked. Threads: the service. */
#ifndef SECPOOL_PLACES_H
#define SECPOOL_PLACES_H

#include "lib/pool.h"

/*
 * Asks keymgrd for all places of the region. Each must lie inside its device and the lane; places of one lane may not overlap. keymgrd is not trusted with
 * data, but its mistakes must not become ours. Errors: SECPOOL_E_PROTOCOL, SECPOOL_E_DAEMON_GONE, SECPOOL_E_NO_MEMORY.
 */
enum secpool_error places_read(struct secpool *pool, struct secpool_region *region, struct placement **ret_placement) MUST_USE;

/*
 * Finds where a byte of a lane is: in its place, or in its target when it was moved. False where it has no place (lost and not replaced). A page never lies across two places: places are
 * multiples of 2 MiB, the largest page. Threads: any.
 */
bool places_find(const struct placement *placement, unsigned lane, uint64_t offset, struct device **ret_device, uint64_t *ret_offset);

/* The same for where it is copied to, whether it was yet or not; NULL: nowhere. */
struct target *places_target(const struct placement *placement, unsigned lane, uint64_t offset);

/* Whether every lane has a place for every byte: what a new region must have. */
bool places_whole(const struct secpool_region *region, const struct placement *placement);

/* Whether the devices of all places are there. */
bool places_there(const struct placement *placement);

/* Whether both name the same places. */
bool places_same(const struct placement *a, const struct placement *b);

/* Whether any place, or any target, is on the device. */
bool places_on(const struct placement *placement, const struct device *device);
bool places_target_on(const struct placement *placement, const struct device *device);

/* All bytes that have a place on a device that is there. */
uint64_t places_bytes(const struct placement *placement);

/* Frees it and all older ones. NULL is allowed. */
void places_free(struct placement *placement);

/* At the region's end. */
void places_free_targets(struct secpool_region *region);

#endif
