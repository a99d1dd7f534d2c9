/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The enclave's sessions: a client's socket, who it is, its tenant, and until when it may get keys. A handle is a place and a generation, so that one that outlived
 * its session never reaches another's. Threads: one at a time for each table.
 */
#ifndef SECPOOL_ENCLAVE_SESSIONS_H
#define SECPOOL_ENCLAVE_SESSIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"
#include "lib/wire/msg.h"

enum { SESSIONS_MOST = 16384 };

struct session {
	bool used;
	uint32_t generation;
	int socket; /* the client's, owned */
	char tenant[MSG_NAME_BYTES];
	uint32_t uid;
	int32_t pid;
	uint64_t expires_ns; /* clock_now_ns; 0: without end */
	uint32_t next_free; /* of a free place: the next one + 1; 0: the last */
};

struct sessions {
	size_t count;
	size_t opened;       /* places that were in use once: those behind are free */
	uint32_t first_free; /* of the others: a place + 1; 0: none */
	size_t most; /* at most SESSIONS_MOST; less where the descriptors do not suffice */
	struct session table[SESSIONS_MOST];
};

/* An empty table for at most `most` sessions. */
void sessions_init(struct sessions *sessions, size_t most);

/* Closes every socket. */
void sessions_done(struct sessions *sessions);

/* Takes a session in; *socket is moved and left -1. Errors: SECPOOL_E_LIMIT; *socket is still the caller's. */
enum secpool_error sessions_open(struct sessions *sessions, const struct session *session, int *socket, uint64_t *ret_handle) MUST_USE;

/* Borrows a session that may get keys now. Errors: SECPOOL_E_SESSION_EXPIRED (its time is over, it was closed, or it never was). */
enum secpool_error sessions_get(struct sessions *sessions, uint64_t handle, uint64_t now_ns, const struct session **ret_session) MUST_USE;

/* Ends a session and closes its socket. Errors: SECPOOL_E_SESSION_EXPIRED when it was closed before or never was; one whose time is over is closed as any other. */
enum secpool_error sessions_close(struct sessions *sessions, uint64_t handle) MUST_USE;

#endif
