/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What hotplugd's connection says and asks: attestation, which is the enclave's (the front only passes it on), and device states.
 * There is one such connection at a time; the newest wins. Threads: one (the loop's).
 */
#ifndef SECPOOL_KEYMGR_HOTPLUG_H
#define SECPOOL_KEYMGR_HOTPLUG_H

#include "keymgr/devices.h"
#include "keymgr/server.h"

/* A connection took the role of hotplugd, or ended. */
void hotplug_began(struct server_connection *connection);
void hotplug_ended(struct server_connection *connection);

/* Handlers of the dispatch table: an error is answered by REPLY. */
enum secpool_error hotplug_handle_begin(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra) MUST_USE;
enum secpool_error hotplug_handle_evidence(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra) MUST_USE;
enum secpool_error hotplug_handle_state(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra) MUST_USE;

/*
 * Asks hotplugd to look at a device (rate limited); nothing happens when it is not connected. cause is enum msg_cause;
 * tenants: how many different ones met that trouble on these media, 0: keymgrd itself did.
 */
void hotplug_check(
	struct daemon *daemon, struct devices_row *device, uint32_t cause, uint32_t tenants);

#endif
