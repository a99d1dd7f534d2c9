/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How far the emptying and the overwriting of each device are, and what a scrub by command came to. It is in memory only: after a restart both count from what is left then. Threads: one (the loop's).
 */
#ifndef SECPOOL_KEYMGR_DEVWORK_H
#define SECPOOL_KEYMGR_DEVWORK_H

#include "keymgr/devices.h"

/* Looks at what is left on the device; *ret_use (may be NULL): that. Called when there is more of it, and by who shows it. Errors: SECPOOL_E_STORE. */
enum secpool_error devwork_look(struct daemon *daemon, struct devices_row *device, struct extents_use *ret_use) MUST_USE;

/* Of a drain: bytes that were moved and bytes that were overwritten, of all that are to be; 0 of 0: there is none. Every byte in use counts twice, once for each. */
void devwork_drain(const struct devices_row *device, const struct extents_use *use, uint64_t *ret_done, uint64_t *ret_all);
/* Of what is overwritten. */
void devwork_scrub(const struct devices_row *device, const struct extents_use *use, uint64_t *ret_done, uint64_t *ret_all);

/* A scrub by command begins: what it comes to is counted from here on. Errors: as devwork_look. */
enum secpool_error devwork_scrub_begin(struct daemon *daemon, struct devices_row *device) MUST_USE;
/* A range was overwritten, or not. When it was the last one, a scrub by command has ended, and an event says what it came to. Errors: as devwork_look. */
enum secpool_error devwork_scrubbed(struct daemon *daemon, struct devices_row *device, enum msg_readback readback, uint64_t bytes) MUST_USE;

#endif
