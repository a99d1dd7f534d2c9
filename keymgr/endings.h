/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The first steps of a region's end, for all regions whose end was asked for since the loop was here last: the audit's records, and keys destroyed in the enclave -> records on the disk -> the end in the directory -> wrapped keys
 * overwritten. The disk is waited for three times for all of them together. What comes after is releases.h's. One whose record can't be appended is refused: its client is told so; of a program that ended it is tried again every second. Threads: one (the loop's).
 */
#ifndef SECPOOL_KEYMGR_ENDINGS_H
#define SECPOOL_KEYMGR_ENDINGS_H

#include "keymgr/server.h"

struct endings;

struct ending {
	uint64_t region;
	enum msg_client_end client;
	struct server_connection *connection; /* who gets the receipt with this number; NULL: nobody */
	uint32_t number;
};

/* Errors: SECPOOL_E_NO_MEMORY, SECPOOL_E_SYSTEM. */
enum secpool_error endings_new(struct daemon *daemon, struct endings **ret_endings) MUST_USE;
/* NULL is allowed. */
void endings_free(struct endings *endings);

/* Asks for an end (copied). The connection is not read further before it has begun. Without memory the connection is told so; where there is none, the daemon ends: its next start does it. */
void endings_add(struct endings *endings, const struct ending *ending);

/* The connection has ended: its regions end all the same. */
void endings_forget(struct endings *endings, const struct server_connection *connection);

#endif
