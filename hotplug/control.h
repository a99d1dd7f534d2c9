/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hotplug.sock: the commands of `secpool device ...`, for this daemon's own user and root. A
 * command that takes time is answered when it is done; meanwhile the connection may ask for more.
 * Threads: the loop's.
 */
#ifndef SECPOOL_HOTPLUG_CONTROL_H
#define SECPOOL_HOTPLUG_CONTROL_H

#include "hotplug/device.h"

struct control;

/* Listens on $RUNTIME/hotplug.sock (mode 0600). Errors: SECPOOL_E_SYSTEM, SECPOOL_E_LIMIT (path too
 * long), SECPOOL_E_NO_MEMORY ... */
enum secpool_error control_new(struct hotplug *hotplug, struct control **ret_control) MUST_USE;
void control_free(struct control *control);

/* Answers those who wait for a pull of this device; detail of an error: err_detail. */
void control_pulled(
	struct control *control, const struct device *device, enum secpool_error result);

/* keymgrd's answer to what it was asked for a command (notify_request's number); nothing happens when nobody waits for it. */
void control_answered(struct control *control, uint32_t asked, const struct msg_reply *reply);

/* Answers those who wait for its attestation (after plug or attest). */
void control_attested(
	struct control *control, const struct device *device, enum secpool_error result);

#endif
