/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a client with a session may ask (docs/wire.md, "Client and keymgrd"). All are handlers of the dispatch table: an error is
 * answered by REPLY and recorded; nothing was changed then, unless it says so. Threads: one (the loop's).
 */
#ifndef SECPOOL_KEYMGR_HANDLERS_H
#define SECPOOL_KEYMGR_HANDLERS_H

#include "keymgr/server.h"

/*
 * Errors: SECPOOL_E_INVALID, SECPOOL_E_DENIED, SECPOOL_E_UNSUPPORTED, SECPOOL_E_QUOTA, SECPOOL_E_NO_SPACE, SECPOOL_E_NOT_ATTESTED,
 * SECPOOL_E_SESSION_EXPIRED, SECPOOL_E_BUSY and SECPOOL_E_CLOSED (the client does not read its socket: no key can be sent).
 * What was taken before the enclave refused is free again.
 */
enum secpool_error handlers_create(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra) MUST_USE;
enum secpool_error handlers_extents(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra) MUST_USE;
/* Errors of both: SECPOOL_E_NO_SPACE (something has no place; what was given up and found is kept), SECPOOL_E_NOT_FOUND. */
enum secpool_error handlers_replace(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra) MUST_USE;
enum secpool_error handlers_fill(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra) MUST_USE;
enum secpool_error handlers_release(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra) MUST_USE;
enum secpool_error handlers_resume(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra) MUST_USE;

#endif
