/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is on a device that went is destroyed by key: the key store's copy of the key of each region that had space there is overwritten at once. A live region does not need it: its program has the key, and
 * goes on with what it has elsewhere. Whoever has the device, and the key store of afterwards, has nothing. And each such region is rotated (rotate.h), so that its program has not the key for longer
 * than it needs for that. Threads: one (the loop's).
 */
#ifndef SECPOOL_KEYMGR_LOSTKEYS_H
#define SECPOOL_KEYMGR_LOSTKEYS_H

#include "keymgr/devices.h"

/* Records an event for each region. A store that can't be written ends the daemon (daemon_fail): the next start overwrites what no region names. */
void lostkeys_destroy(struct daemon *daemon, const struct devices_row *device);

#endif
