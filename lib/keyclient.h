/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The library's side of the connection to keymgrd (docs/wire.md). Answers are waited for; what comes unasked meanwhile is kept in
 * order and given out by keyclient_next. Threads: the service thread only.
 */
#ifndef SECPOOL_KEYCLIENT_H
#define SECPOOL_KEYCLIENT_H

#include <limits.h>

#include "lib/wire/msg.h"
#include "lib/wire/sock.h"

struct keyclient_message {
	struct keyclient_message *next;
	struct msg msg;
	struct sock_extra extra;
};

struct keyclient {
	int fd; /* -1: not connected */
	uint32_t last_number;
	struct sock_peer enclave; /* who called listen: keys are taken from this process only */
	struct msg_session_opened session;
	bool read_only;
	bool refused; /* the last session that was asked for: the policy does not let this process be the tenant */
	struct keyclient_message *kept, **kept_end;
};

/* How long keymgrd may take for an answer; a release is answered when its space is scrubbed, and waited for elsewhere. */
#define KEYCLIENT_ANSWER_NS (10ull * 1000000000ull)

/* read_only: its sessions are (msg_session_open). */
void keyclient_init(struct keyclient *client, bool read_only);

/*
 * Connects to socket_path and opens a session as tenant. *ret_faultfd: /dev/userfaultfd from keymgrd, or -1.
 * Errors: SECPOOL_E_DAEMON_GONE and keymgrd's refusals.
 */
enum secpool_error keyclient_open(struct keyclient *client, const char *socket_path, const char *tenant, uint64_t local_bytes, int *ret_faultfd) MUST_USE;

/* Drops the connection and what is kept. */
void keyclient_close(struct keyclient *client);

/* One request and its answer of type `want` (or REPLY, as in sock_call). Errors: also SECPOOL_E_DAEMON_GONE and SECPOOL_E_TIMEOUT, after which the connection is closed. */
enum secpool_error keyclient_call(struct keyclient *client, struct msg *request, uint32_t want, struct msg *ret_answer) MUST_USE;

/* The same with a descriptor (borrowed; -1: none), and one that comes with the answer: *ret_fd is then the caller's, -1 when there is none. ret_fd may be NULL. */
enum secpool_error keyclient_exchange(struct keyclient *client, struct msg *request, int fd, uint32_t want, struct msg *ret_answer, int *ret_fd) MUST_USE;

/* Sends without waiting; *ret_number is what the answer will carry. */
enum secpool_error keyclient_send(struct keyclient *client, struct msg *request, uint32_t *ret_number) MUST_USE;

/* The next message that nobody waited for; its descriptors are the caller's. Errors: SECPOOL_E_NO_EVENT, SECPOOL_E_DAEMON_GONE (closed). */
enum secpool_error keyclient_next(struct keyclient *client, struct msg *ret_msg, struct sock_extra *ret_extra) MUST_USE;

/*
 * Takes the key of a region and epoch out of what is kept: sent by the enclave itself, as the kernel says. The descriptor is the caller's.
 * Errors: SECPOOL_E_PROTOCOL: there is none, or somebody else sent it.
 */
enum secpool_error keyclient_take_key(struct keyclient *client, uint64_t region, uint64_t epoch, int *ret_fd) MUST_USE;

#endif
