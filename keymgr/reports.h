/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a client tells without being asked: trouble on a device, and bytes that a region lost for good. Clients are not believed further than their
 * own space goes: a report counts only where the reporter's live region has or had space, repeats of one tenant count once, and from each session
 * only so many are taken in a second (SESSION_CAUSED_PER_S). That media are gone keymgrd sees itself.
 * Threads: one (the loop's).
 */
#ifndef SECPOOL_KEYMGR_REPORTS_H
#define SECPOOL_KEYMGR_REPORTS_H

#include "keymgr/server.h"

/* Handlers of the dispatch table. Errors: SECPOOL_E_NOT_FOUND (no such device or region), SECPOOL_E_INVALID, SECPOOL_E_STORE. */
enum secpool_error reports_device(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra) MUST_USE;
enum secpool_error reports_lost(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra) MUST_USE;

#endif
