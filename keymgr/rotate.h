/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rotation: regions get new keys while their programs go on. keymgrd says which region is to be rotated (REGION_RENEW), its client asks for a key (REGION_ROTATE), moves its pages to it, and says when all are
 * there (REGION_ROTATED); then the key before is destroyed. That it is wanted is in the directory (epochs.h), and told again to a client that comes back.
 *
 * It is wanted by command (TENANT_ROTATE), for a key's age (policy rotate_after_seconds), and for a device that went (lostkeys.h). A client asks by itself when it has written as much under a
 * key as policy rotate_after_bytes says. Threads: one (the loop's).
 */
#ifndef SECPOOL_KEYMGR_ROTATE_H
#define SECPOOL_KEYMGR_ROTATE_H

#include "keymgr/regions.h"
#include "keymgr/server.h"

/* Handlers of clients. Errors: those of session_region and regionkeys_make; SECPOOL_E_BUSY (it is being rotated), SECPOOL_E_INVALID (another epoch than the region has), SECPOOL_E_LIMIT, SECPOOL_E_STORE. */
enum secpool_error rotate_handle_begin(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra) MUST_USE;
enum secpool_error rotate_handle_end(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra) MUST_USE;

/* A handler of the command. Errors: SECPOOL_E_UNKNOWN_TENANT, SECPOOL_E_STORE. */
enum secpool_error rotate_handle_tenant(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra) MUST_USE;

/* Tells the clients of these regions' owners that they are to be rotated, many with one message: a client's queue is bounded (server.h). */
void rotate_tell(struct daemon *daemon, const struct regions_row *regions, size_t count);

/* Looks now and then whether keys have become too old, if the policy says how old they may be. Errors: SECPOOL_E_SYSTEM. *ret_source: the caller's to end. */
enum secpool_error rotate_start(struct daemon *daemon, sd_event_source **ret_source) MUST_USE;

#endif
