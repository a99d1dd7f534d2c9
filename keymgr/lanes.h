/* SPDX-License-Identifier: Apache-2.0 */
/* Which lanes of a region are there, by the places that the directory has and the devices that can be reached. Threads: one (the loop's). */
#ifndef SECPOOL_KEYMGR_LANES_H
#define SECPOOL_KEYMGR_LANES_H

#include "keymgr/devices.h"

/* Which devices count as there: those that can be reached, or also those of which that is not known yet (keymgrd or hotplugd was just started). */
enum lanes_count { LANES_REACHED, LANES_PRESUMED };

/*
 * Lanes of the region, of lane_bytes each, of which every part is on a device that is there, and not on the device of that slot (0: any). A lane of which a part is missing counts for nothing, though another lane may have that
 * part. Errors: SECPOOL_E_STORE.
 */
enum secpool_error lanes_live(struct daemon *daemon, uint64_t region, uint64_t lane_bytes,
	uint64_t except_slot, enum lanes_count count, uint32_t *ret_lanes) MUST_USE;

#endif
