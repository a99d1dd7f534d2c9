/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Spreading what regions have over the devices: where the policy has a rate for it, and one device is fuller than another by more than the policy says, a region's program is asked to move what it has on the fullest to the
 * emptiest, as in a drain (drain.h), within the rules of placement: copies stay in different fault domains, and nothing goes to a higher tier.
 *
 * A program that neither begins nor tells of progress for half a minute may be stopped: it is passed over, with what it has begun left as it is, until it tells that it goes on.
 *
 * One region's share of one device at a time, at the policy's rate; a share that would make the emptier one the fuller is not moved, so nothing goes to and fro. What is under way is in the directory as the region's targets: after a
 * restart it goes on. Threads: one (the loop's).
 */
#ifndef SECPOOL_KEYMGR_REBALANCE_H
#define SECPOOL_KEYMGR_REBALANCE_H

#include "keymgr/devices.h"

struct rebalance;
struct regions_row;

/* How often it is looked whether there is something to move, or how far that is; and how long after nothing was found. */
#define REBALANCE_LOOK_NS (2ull * 1000000000)
#define REBALANCE_REST_NS (20ull * 1000000000)

/* How full a device is; pure, for the choice. */
struct rebalance_device {
	uint64_t slot, used, bytes;
	uint32_t tier;
};

/*
 * The fullest and the emptiest of them that are more than `percent` points apart, where the emptiest is in no higher tier than the fullest: their places in the list. False: there is none.
 */
bool rebalance_choose(const struct rebalance_device *devices, size_t count, uint32_t percent, size_t *ret_from, size_t *ret_to);

/* Whether a share of so many bytes leaves the one it goes to no fuller than the one it comes from. */
bool rebalance_fits(const struct rebalance_device *from, const struct rebalance_device *to, uint64_t bytes);

/* Begins to look, where the policy has a rate for it; else *ret_rebalance is NULL. Errors: SECPOOL_E_NO_MEMORY, SECPOOL_E_SYSTEM. */
enum secpool_error rebalance_new(struct daemon *daemon, struct rebalance **ret_rebalance) MUST_USE;
void rebalance_free(struct rebalance *rebalance);

/* Looks once, as the timer does. *ret_next_ns: when it is due again. Errors: SECPOOL_E_STORE. */
enum secpool_error rebalance_look(struct rebalance *rebalance, uint64_t *ret_next_ns) MUST_USE;

/* Whether this region's share of that device is to be moved now. */
bool rebalance_is_under_way(const struct rebalance *rebalance, uint64_t region, uint64_t slot);

/* Leaves in the list the devices that the share on `slot` may go to: those that are emptier, and in no higher tier. Errors: SECPOOL_E_STORE. */
enum secpool_error rebalance_narrow(struct daemon *daemon, uint64_t slot, struct extents_device *usable, size_t *count) MUST_USE;

#endif
