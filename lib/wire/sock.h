/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Unix seqpacket sockets that carry messages, descriptors and the sender's credentials.
 *
 * A received descriptor is close-on-exec and belongs to the caller; what a caller did not ask for is closed.
 * Threads: one sender and one receiver at a time for each socket.
 */
#ifndef SECPOOL_WIRE_SOCK_H
#define SECPOOL_WIRE_SOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "lib/wire/msg.h"

/* Whoever is on the other end, as the kernel says. */
struct sock_peer {
	int32_t pid; /* 0 when it is not visible in this pid namespace */
	uint32_t uid;
	uint32_t gid;
};

/*
 * What came with a message. Fill fd_count descriptors of fds; close those you don't keep with sock_close_fds. sender is set only
 * where the socket asks for credentials (sock_want_credentials).
 */
struct sock_extra {
	int fds[MSG_FDS_MAX];
	unsigned fd_count;
	bool has_sender;
	struct sock_peer sender;
};

/* A listening socket at path (an old one there is removed), mode as in chmod(2). The peers see the caller's credentials. */
enum secpool_error sock_listen(const char *path, unsigned mode, int *ret_fd) MUST_USE;

/* Takes one waiting connection; non-blocking. Errors: SECPOOL_E_NO_EVENT when none waits. */
enum secpool_error sock_accept(int listener, int *ret_fd) MUST_USE;

/* Errors: SECPOOL_E_DAEMON_GONE with the path and what to do when nobody listens there; SECPOOL_E_DENIED. */
enum secpool_error sock_connect(const char *path, int *ret_fd) MUST_USE;

/* Two ends of one connection. */
enum secpool_error sock_pair(int ret_fds[2]) MUST_USE;

/* Who connected, or (on a connecting socket) who called listen: SO_PEERCRED, unix(7). */
enum secpool_error sock_peer(int fd, struct sock_peer *ret_peer) MUST_USE;

/* From now on each received message carries its sender's credentials (SO_PASSCRED, unix(7)). */
enum secpool_error sock_want_credentials(int fd) MUST_USE;

/*
 * Sends one message with up to MSG_FDS_MAX descriptors (borrowed). Blocks at most until deadline_ns (clock_now_ns); 0 = not at all.
 * Never raises SIGPIPE. Errors: SECPOOL_E_TIMEOUT (the receiver does not read), SECPOOL_E_DAEMON_GONE.
 */
enum secpool_error sock_send(int fd, const struct msg *msg, const int *fds, unsigned fd_count, uint64_t deadline_ns) MUST_USE;

/*
 * Receives one message, waiting until deadline_ns; 0 = not at all. extra may be NULL: then descriptors are closed.
 * Errors: SECPOOL_E_TIMEOUT or, with deadline 0, SECPOOL_E_NO_EVENT; SECPOOL_E_DAEMON_GONE (the peer closed); SECPOOL_E_PROTOCOL
 * (not a message; what came with it is closed).
 */
enum secpool_error sock_receive(int fd, struct msg *ret_msg, struct sock_extra *ret_extra, uint64_t deadline_ns) MUST_USE;

void sock_close_fds(struct sock_extra *extra);

/* Takes descriptor i out of extra; -1 if there is none. The caller closes it. */
int sock_take_fd(struct sock_extra *extra, unsigned i);

/* Sends REPLY with the error and this thread's err_detail (or "" for SECPOOL_OK). */
enum secpool_error sock_reply(int fd, uint32_t number, enum secpool_error error, uint64_t deadline_ns) MUST_USE;

/*
 * Sends a request and waits for its answer, which is of type `want`, or a REPLY with an error. An error here is the connection's own: nothing was
 * answered, or not in the protocol; what the peer says is in the answer (sock_answer_error). extra as in sock_receive.
 */
enum secpool_error sock_exchange(int fd, struct msg *request, const int *fds, unsigned fd_count, uint32_t want, struct msg *ret_answer,
	struct sock_extra *ret_extra, uint64_t deadline_ns) MUST_USE;

/* Whether this is the answer to a request: its number, and of type `want`, or REPLY with an error (or any REPLY, where that is wanted). Errors: SECPOOL_E_PROTOCOL. */
enum secpool_error sock_check_answer(const struct msg *request, uint32_t want, const struct msg *answer) MUST_USE;

/* The error that an answer brings, with its detail set: SECPOOL_OK unless it is a REPLY with one. */
enum secpool_error sock_answer_error(const struct msg *answer) MUST_USE;

/*
 * Both: sends a request and waits for the answer with the same number, which must be of type `want`, or REPLY: then
 * the result is the error in it, with its detail set. Who must tell a broken connection from a peer's refusal uses the two. Anything that comes unasked is refused (SECPOOL_E_PROTOCOL): a
 * peer that sends such things is read by its own loop. extra as in sock_receive.
 */
enum secpool_error sock_call(int fd, struct msg *request, const int *fds, unsigned fd_count, uint32_t want, struct msg *ret_answer,
	struct sock_extra *ret_extra, uint64_t deadline_ns) MUST_USE;

/* Connects and says HELLO in this role; the answer must be the same version. */
enum secpool_error sock_connect_as(const char *path, enum msg_role role, int *ret_fd) MUST_USE;

#endif
