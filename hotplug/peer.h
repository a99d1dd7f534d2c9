/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A connection of messages that never makes the loop wait: what can't be sent at once waits in a
 * bounded queue. A peer that lets it fill up is given up. Used for keymgrd (notify.c) and for
 * commands (control.c).
 *
 * The `closed` callback comes from the loop, never from inside a call of this interface, once; in
 * it the owner frees the peer. Threads: the loop's.
 */
#ifndef SECPOOL_HOTPLUG_PEER_H
#define SECPOOL_HOTPLUG_PEER_H

#include <stdbool.h>
#include <systemd/sd-event.h>

#include "lib/base/err.h"
#include "lib/wire/sock.h"

/* Messages that wait for one peer. */
enum { PEER_QUEUE_MOST = 1024 };

struct peer;

struct peer_callbacks {
	/* A message; descriptors that came with it were closed: none is expected here. */
	void (*message)(struct peer *peer, const struct msg *msg, void *arg);
	/* The connection ended; why: SECPOOL_E_DAEMON_GONE (the peer closed), SECPOOL_E_PROTOCOL,
	 * SECPOOL_E_TIMEOUT (it does not read) ... with its detail set. */
	void (*closed)(struct peer *peer, enum secpool_error why, void *arg);
};

/* fd is moved on success. callbacks: borrowed, must outlive the peer. Errors: SECPOOL_E_NO_MEMORY,
 * SECPOOL_E_SYSTEM. */
enum secpool_error peer_new(sd_event *loop, int fd, const struct peer_callbacks *callbacks,
	void *arg, struct peer **ret_peer) MUST_USE;

/* Sends, or queues, a message with a descriptor (-1: none; borrowed). A failure ends the connection
 * (callback `closed`). */
void peer_send(struct peer *peer, const struct msg *msg, int fd);

/* Sends REPLY with the error and the thread's err_detail. */
void peer_reply(struct peer *peer, uint32_t number, enum secpool_error error);

/* Sends REPLY with the error and ends the connection: nothing more is read from it. */
void peer_refuse(struct peer *peer, uint32_t number, enum secpool_error error);

/* Closes without a callback. NULL is allowed. */
void peer_free(struct peer *peer);

#endif
