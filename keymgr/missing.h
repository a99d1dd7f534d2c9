/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Devices that went while nobody looked: a hotplugd that was started anew speaks of every device that it finds, so one that it does not speak of is gone, though its media may still be open here and in programs.
 * Threads: one (the loop's).
 */
#ifndef SECPOOL_KEYMGR_MISSING_H
#define SECPOOL_KEYMGR_MISSING_H

#include "keymgr/devices.h"

/* How long after its greeting: it speaks of all of them at once, so this is long even on a busy machine. */
#define MISSING_AFTER_NS (5ull * 1000000000)

/*
 * A new connection took hotplugd's role: what it does not speak of within MISSING_AFTER_NS is lost (devices_leave), with an event, if it is in use here. A loop that has no timer is logged: then
 * nothing is found missing.
 */
void missing_begin(struct daemon *daemon);

/* hotplugd spoke of the device. */
void missing_spoken(struct devices_row *device);

#endif
