/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The connection to keymgrd: made again for ever when it ends, with a back-off. Each new one makes
 * every device that is there attested and announced again (docs/wire.md). Threads: the loop's.
 */
#ifndef SECPOOL_HOTPLUG_NOTIFY_H
#define SECPOOL_HOTPLUG_NOTIFY_H

#include "hotplug/device.h"

struct notify;

/* Starts to connect to $RUNTIME/keymgr.sock. Errors: SECPOOL_E_NO_MEMORY, SECPOOL_E_SYSTEM. A
 * daemon that is not there is none. */
enum secpool_error notify_new(struct hotplug *hotplug, struct notify **ret_notify) MUST_USE;
void notify_free(struct notify *notify);

/* Whether keymgrd said hello and listens. */
bool notify_connected(const struct notify *notify);

/* Tells keymgrd a device's state; `online` goes with the media's descriptor. Nothing when there is
 * no connection: the next one tells all. */
void notify_state(struct notify *notify, const struct device *device);

/* Sends a request under a new number, which is returned; 0 when there is no connection. */
uint32_t notify_request(struct notify *notify, struct msg *msg);

#endif
