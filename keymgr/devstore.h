/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The devices table of the directory: what must be known about a device's media after a restart. Each function is one change.
 * Threads: one (the loop's).
 */
#ifndef SECPOOL_KEYMGR_DEVSTORE_H
#define SECPOOL_KEYMGR_DEVSTORE_H

#include "keymgr/devices.h"

/* A device that the directory does not know: its row, with all its space unknown. Sets row->slot. Errors: SECPOOL_E_STORE; nothing is changed. */
enum secpool_error devstore_add(struct directory *directory, struct devices_row *row,
	const struct msg_device_state *state) MUST_USE;

/* Other media than before: nothing that was on the device is there any more, all its space is unknown. Errors: SECPOOL_E_STORE; nothing is changed. */
enum secpool_error devstore_change(struct directory *directory, const struct devices_row *row,
	const struct msg_device_state *state) MUST_USE;

#endif
