/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What becomes of data on a device that may not be used any more: its evidence was refused, the policy revokes it, or no evidence can be had.
 *
 * No new key and no new place comes at once, by the enclave's verdict, and the stored keys of what is there are overwritten (devices.h, lostkeys.h). Then, by one table [cause][situation]: programs move what they have there
 * to other devices, as in a drain (drain.h), where the policy lets them; and after the policy's bound what is left there is given up as if the device were gone, so that its regions get new keys and the old ones end: it is
 * destroyed by key. Tenants are told by events, and their programs as of any loss. When it began is in the directory, so that no restart puts the bound off.
 * Threads: one (the loop's); the table is pure.
 */
#ifndef SECPOOL_KEYMGR_REVOCATION_H
#define SECPOOL_KEYMGR_REVOCATION_H

#include "keymgr/devices.h"
#include "policy/policy.h"

struct regions_row;

enum revocation_cause {
	REVOCATION_NONE = 0,    /* nothing is said against the device */
	REVOCATION_REFUSED = 1, /* its evidence was refused */
	REVOCATION_LISTED = 2,  /* the policy's devices.revoked has it */
	REVOCATION_EXPIRED = 3, /* its evidence is too old, and could not be renewed */
	REVOCATION_UNREACHABLE = 4, /* none could be had: it is asked for again */
	REVOCATION_ERRORS = 5,  /* it does not keep what is written: an operator's to drain */
	REVOCATION_CAUSES,
};

/* What a region has on the device. */
enum revocation_situation {
	REVOCATION_NOTHING = 0,
	REVOCATION_REDUNDANT = 1, /* lanes that lie wholly on other devices are enough to make it again */
	REVOCATION_SINGLE = 2,    /* it is only there, and can be read */
	REVOCATION_FOREIGN = 3,   /* the media there are not those that it was written to */
	REVOCATION_SITUATIONS,
};

enum revocation_action {
	REVOCATION_HOLD = 0, /* it stays, and its program may read it */
	REVOCATION_MOVE = 1, /* its program moves it to other devices */
	REVOCATION_DESTROY = 2, /* it is given up, and the key that it is under ends */
	REVOCATION_ACTIONS,
};

/* What is done at once, and when the bound is over. drains: the policy's. Either beyond its last: REVOCATION_HOLD. */
enum revocation_action revocation_now(enum revocation_cause cause, enum revocation_situation situation, enum policy_drains drains);
enum revocation_action revocation_at_end(enum revocation_cause cause, enum revocation_situation situation);

/* The cause of a device's state (enum msg_state) by hotplugd's word (enum msg_why) and the policy's (listed). */
enum revocation_cause revocation_cause_of(uint32_t state, uint32_t why, bool listed);

/* Names as in docs/states.md and events; "?" when unknown. */
const char *revocation_cause_name(enum revocation_cause cause);
const char *revocation_situation_name(enum revocation_situation situation);
const char *revocation_action_name(enum revocation_action action);

/* ---- what carries it out ---- */

/*
 * hotplugd told the device's state, which is the row's now, and why (enum msg_why). same_media: those that the directory knows. A failure of the store ends the daemon.
 */
void revocation_told(struct daemon *daemon, struct devices_row *device, uint32_t why, bool same_media);

/* The device may be used again, or is not there any more: nothing is to be done. */
void revocation_end(struct daemon *daemon, struct devices_row *device);

/* Whether the region may be moved off the device: what an operator drains, always. Errors: SECPOOL_E_DENIED (the policy's revoke_drains says no), SECPOOL_E_STORE. */
enum secpool_error revocation_may_move(struct daemon *daemon, const struct devices_row *device, const struct regions_row *region) MUST_USE;

/* Something changed: devices whose data is to be moved are drained as soon as there is another one to move it to, and those whose time is over are given up. */
void revocation_look(struct daemon *daemon);

#endif
