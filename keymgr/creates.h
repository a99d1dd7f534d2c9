/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making regions: what was asked for in one go of turns (turns.h) is done in one batch, so that the disk is waited for four times for all of them together and not for each. The steps, and what each
 * leaves after a crash, are those of docs/architecture.md: places taken (durable) -> keys made by the enclave -> wrapped keys stored (durable) -> records of all on the disk, and keys handed over by the enclave -> live (durable) -> answered. One that fails does not
 * hold up the others. A connection is not read further before its answer. Threads: one (the loop's).
 */
#ifndef SECPOOL_KEYMGR_CREATES_H
#define SECPOOL_KEYMGR_CREATES_H

#include "keymgr/turns.h"

/* In one batch. */
enum { CREATES_BATCH = TURNS_MESSAGES };
_Static_assert((int)CREATES_BATCH <= (int)MSG_KEYS_MAX, "the enclave holds all keys of a batch");

/* Errors: SECPOOL_E_NO_MEMORY, SECPOOL_E_SYSTEM. */
enum secpool_error creates_new(struct daemon *daemon, struct creates **ret_creates) MUST_USE;
void creates_free(struct creates *creates);

/*
 * Handler of REGION_CREATE. Answered errors: SECPOOL_E_INVALID, SECPOOL_E_DENIED, SECPOOL_E_UNSUPPORTED, SECPOOL_E_QUOTA, SECPOOL_E_NO_SPACE, SECPOOL_E_NOT_ATTESTED,
 * SECPOOL_E_SESSION_EXPIRED, SECPOOL_E_BUSY and SECPOOL_E_CLOSED (the client does not read its socket: no key can be sent).
 * What was taken before the enclave refused is free again. Errors that are returned: SECPOOL_E_NO_MEMORY.
 */
enum secpool_error creates_handle(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra) MUST_USE;

/* The connection has ended: what it asked for is not made, or is taken back. */
void creates_forget(struct daemon *daemon, const struct server_connection *connection);

#endif
