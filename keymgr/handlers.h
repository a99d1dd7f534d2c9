/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a client with a session may ask (docs/wire.md, "Client and keymgrd"). All are handlers of the dispatch table: an error is
 * answered by REPLY and recorded; nothing was changed then, unless it says so. Threads: one (the loop's).
 */
#ifndef SECPOOL_KEYMGR_HANDLERS_H
#define SECPOOL_KEYMGR_HANDLERS_H

#include "keymgr/server.h"

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
