/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The devices table of the directory: what must be known about a device's media after a restart. Each function is one change.
 * Threads: one (the loop's).
 */
#ifndef SECPOOL_KEYMGR_DEVSTORE_H
#define SECPOOL_KEYMGR_DEVSTORE_H

#include "keymgr/devices.h"

/* The name of this boot of the system (boot_id, random(4)). Errors: SECPOOL_E_NOT_FOUND, SECPOOL_E_SYSTEM. */
enum secpool_error devstore_read_boot(char boot[DEVICES_BOOT_BYTES]) MUST_USE;
/* Which file a descriptor is, in this boot. Errors: SECPOOL_E_SYSTEM. */
enum secpool_error devstore_find_file(
	const char *boot, int media_fd, struct devices_file *ret_file) MUST_USE;
/* Whether both are known to be the same file. */
bool devstore_same_file(const struct devices_file *a, const struct devices_file *b);

/* A device that the directory does not know: its row, with all its space unknown. Sets row->slot. Errors: SECPOOL_E_STORE; nothing is changed. */
enum secpool_error devstore_add(struct directory *directory, struct devices_row *row,
	const struct msg_device_state *state, const struct devices_file *file) MUST_USE;

/* The same media with the same contents, of which something else is known (domain, file after a restart): all places stay. Errors: SECPOOL_E_STORE. */
enum secpool_error devstore_update(struct directory *directory, const struct devices_row *row,
	const struct msg_device_state *state, const struct devices_file *file) MUST_USE;

/*
 * Other media or other contents than before. In another file than before nothing that was on the device is there any more: all its space is unknown.
 * In the same file, or one that may be the same, clients may still write: see extents_set_aside_device. Errors: SECPOOL_E_STORE; nothing is changed.
 */
enum secpool_error devstore_change(struct directory *directory, const struct devices_row *row,
	const struct msg_device_state *state, const struct devices_file *file) MUST_USE;

#endif
