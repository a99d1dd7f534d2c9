/* SPDX-License-Identifier: Apache-2.0 */
/* What the calls that name a part of a region check first. Threads: any. */
#ifndef SECPOOL_RANGE_H
#define SECPOOL_RANGE_H

#include "lib/pool.h"

/* Errors: SECPOOL_E_INVALID (no region, or beyond its end), SECPOOL_E_CLOSED (it was released, it has ended, a child made by fork). */
static inline enum secpool_error range_check(const struct secpool_region *region, size_t offset, size_t bytes)
{
	if (!region)
		return err_set(SECPOOL_E_INVALID, "a region is needed");
	if (!region->pool)
		return err_set(SECPOOL_E_CLOSED, "the region was released");
	if (offset > region->bytes || bytes > region->bytes - offset)
		return err_set(SECPOOL_E_INVALID, "%zu bytes at %zu go beyond the region's end (%zu)", bytes, offset, region->bytes);
	if (atomic_load(&region->ended))
		return err_set(SECPOOL_E_CLOSED, "the region has ended: keymgrd was gone for longer than the policy's grace, or gave it up; release it");
	return pool_check(region->pool);
}

#endif
