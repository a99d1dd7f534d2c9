/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A peer: a process of its own that does work by command and answers with what it measured; with a limit, its memory is limited and swaps to zram (zram.h).
 * It stays alive between rounds, so that rounds can take turns. A keeper between the bench and the limited peer sets up swap and limit and takes
 * them back when the peer has ended, whatever the bench ended of.
 *
 * A peer may open a pool of its own if this process never opened one (a child of one that did may not). Threads: one.
 */
#ifndef SECPOOL_TESTS_PEER_H
#define SECPOOL_TESTS_PEER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "lib/base/err.h"

/* Most bytes of a request and of an answer. */
enum { PEER_MESSAGE_BYTES = 128 };

/* What a peer does, in its process; arg is the starter's memory, copied by fork. */
struct peer_work {
	enum secpool_error (*open)(void *arg); /* once, before the first request */
	enum secpool_error (*serve)(void *arg, const void *request, void *answer);
	void *arg;
};

struct peer {
	int fd;    /* requests go, answers come */
	pid_t pid; /* 0: there is none */
};

/*
 * limit_bytes: of its memory once open has returned, with swap on zram behind it; 0: none. Returns when it is open. Errors: what open gave; of a limit, what
 * zram_open gives, SECPOOL_E_BUSY. Nothing is left behind.
 */
enum secpool_error peer_start(struct peer *peer, const struct peer_work *work, size_t limit_bytes) MUST_USE;

/* One request; both are at most PEER_MESSAGE_BYTES. Errors: what serve gave; SECPOOL_E_CLOSED when the peer has died. */
enum secpool_error peer_ask(struct peer *peer, const void *request, size_t request_bytes, void *answer, size_t answer_bytes) MUST_USE;

/* Ends it, and waits until all that it set up is taken back. A peer that was never started (pid 0) is allowed. */
void peer_stop(struct peer *peer);

#endif
