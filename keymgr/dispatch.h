/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which messages are taken from whom and when: one table of type, roles and states (STYLE rule 20). Anything that is not in it
 * is answered by REPLY with the reason, and the connection ends. Threads: one (the loop's).
 */
#ifndef SECPOOL_KEYMGR_DISPATCH_H
#define SECPOOL_KEYMGR_DISPATCH_H

#include "keymgr/server.h"

/*
 * Whether a message of this type may come now; pure. role counts only when the state is not SERVER_NEW.
 * Errors: SECPOOL_E_PROTOCOL with the reason.
 */
enum secpool_error dispatch_allowed(uint32_t type, enum server_state state, uint32_t role) MUST_USE;

/* Carries out one message. Descriptors that a handler takes out of extra are its own. */
void dispatch_message(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra);

/* Tells the peer why, and records the refusal (rate limited). */
void dispatch_refuse(
	struct server_connection *connection, uint32_t number, enum secpool_error error);

/* The connection has ended: its session or its role as hotplugd ends with it. */
void dispatch_ended(struct server_connection *connection);

#endif
