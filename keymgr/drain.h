/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Emptying a device: its clients move what they have there (REGION_MOVE, REGION_MOVED), what they moved is overwritten, and hotplugd is told when nothing is left (DEVICE_DRAINED). And the overwriting of
 * a device's unused space on demand (DEVICE_SCRUB). The first two are handlers of clients, the third is one of hotplugd. Threads: one (the loop's).
 */
#ifndef SECPOOL_KEYMGR_DRAIN_H
#define SECPOOL_KEYMGR_DRAIN_H

#include "keymgr/server.h"

/* Errors: SECPOOL_E_NOT_FOUND, SECPOOL_E_BUSY (it is not draining), SECPOOL_E_DENIED (revocation_may_move), SECPOOL_E_NO_SPACE (nothing is changed: to be asked for again), SECPOOL_E_STORE. */
enum secpool_error drain_handle_move(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra) MUST_USE;
/* Errors: SECPOOL_E_NOT_FOUND, SECPOOL_E_BUSY (not all of it has a target), SECPOOL_E_STORE. */
enum secpool_error drain_handle_moved(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra) MUST_USE;
/* Errors: SECPOOL_E_NOT_FOUND, SECPOOL_E_BUSY (keymgrd does not have its media), SECPOOL_E_STORE. */
enum secpool_error drain_handle_scrub(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra) MUST_USE;

/* Looks whether draining devices are empty, and tells hotplugd of those that are. */
void drain_look(struct daemon *daemon);
/* Tells hotplugd, which is connected, that nothing of a region is on the device. */
void drain_tell_drained(struct daemon *daemon, const char *id);

#endif
