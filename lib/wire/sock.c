/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/wire/sock.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/base/os.h"

/* How long a new connection may take to say hello, and the length of the queue of a listening socket. */
#define HELLO_NS (5 * CLOCK_NS_PER_S)
enum { BACKLOG = 4096 }; /* the kernel takes net.core.somaxconn of it */

/* How often a connection to a full queue is tried again. */
#define CONNECT_RETRY_NS 1000000ull

static enum secpool_error fill_address(const char *path, struct sockaddr_un *address)
{
	memset(address, 0, sizeof *address);
	address->sun_family = AF_UNIX;
	if (strlen(path) >= sizeof address->sun_path)
		return err_set(SECPOOL_E_LIMIT, "socket path is too long: %s", path);
	memcpy(address->sun_path, path, strlen(path));
	return SECPOOL_OK;
}

enum secpool_error sock_listen(const char *path, unsigned mode, int *ret_fd)
{
	struct sockaddr_un address;
	enum secpool_error error = fill_address(path, &address);
	int fd = -1;

	if (error)
		return error;
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return os_error("socket");
	unlink(path);
	if (bind(fd, (const struct sockaddr *)&address, sizeof address) != 0)
		error = os_error("bind %s", path);
	else if (chmod(path, mode) != 0)
		error = os_error("chmod %s", path);
	else if (listen(fd, BACKLOG) != 0)
		error = os_error("listen %s", path);
	if (error)
		os_close(&fd);
	else
		*ret_fd = fd;
	return error;
}

enum secpool_error sock_accept(int listener, int *ret_fd)
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0 && (os_would_block() || os_interrupted() || os_aborted()))
		return SECPOOL_E_NO_EVENT;
	if (fd < 0)
		return os_error("accept");
	*ret_fd = fd;
	return SECPOOL_OK;
}

enum secpool_error sock_connect(const char *path, int *ret_fd)
{
	struct sockaddr_un address;
	enum secpool_error error = fill_address(path, &address);
	uint64_t give_up = clock_now_ns() + HELLO_NS;
	int fd;

	if (error)
		return error;
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return os_error("socket");
	while (!error && connect(fd, (const struct sockaddr *)&address, sizeof address) != 0) {
		/* a full queue of a daemon that is there: unix(7), EAGAIN */
		if (os_would_block() && clock_now_ns() < give_up) {
			clock_sleep_ns(CONNECT_RETRY_NS);
			continue;
		}
		error = os_error("connect to %s", path);
		if (error != SECPOOL_E_DENIED)
			error = err_set(SECPOOL_E_DAEMON_GONE,
				"nobody listens at %s: start the daemons with 'secpool up'", path);
	}
	if (error)
		os_close(&fd);
	else
		*ret_fd = fd;
	return error;
}

enum secpool_error sock_pair(int ret_fds[2])
{
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ret_fds) != 0)
		return os_error("socketpair");
	return SECPOOL_OK;
}

enum secpool_error sock_peer(int fd, struct sock_peer *ret_peer)
{
	struct ucred cred;
	socklen_t bytes = sizeof cred;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &bytes) != 0)
		return os_error("SO_PEERCRED");
	*ret_peer = (struct sock_peer){.pid = cred.pid, .uid = cred.uid, .gid = cred.gid};
	return SECPOOL_OK;
}

enum secpool_error sock_want_credentials(int fd)
{
	int on = 1;

	if (setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof on) != 0)
		return os_error("SO_PASSCRED");
	return SECPOOL_OK;
}

/* Waits until the socket is ready; events as in poll(2). */
static enum secpool_error wait_ready(int fd, short events, uint64_t deadline_ns)
{
	for (;;) {
		struct pollfd poller = {.fd = fd, .events = events};
		uint64_t now = clock_now_ns();
		struct timespec left = {0};
		int ready;

		if (now >= deadline_ns)
			return err_set(SECPOOL_E_TIMEOUT, "the peer did not answer in time");
		left.tv_sec = (time_t)((deadline_ns - now) / CLOCK_NS_PER_S);
		left.tv_nsec = (long)((deadline_ns - now) % CLOCK_NS_PER_S);
		ready = ppoll(&poller, 1, &left, NULL);
		if (ready < 0 && !os_interrupted())
			return os_error("poll");
		if (ready > 0)
			return SECPOOL_OK;
	}
}

enum secpool_error sock_send(
	int fd, const struct msg *msg, const int *fds, unsigned fd_count, uint64_t deadline_ns)
{
	uint8_t bytes[MSG_BYTES_MAX];
	union {
		char bytes[CMSG_SPACE(sizeof(int) * MSG_FDS_MAX)];
		struct cmsghdr align;
	} control;
	struct iovec part = {.iov_base = bytes};
	struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1};
	enum secpool_error error = msg_encode(msg, bytes, sizeof bytes, &part.iov_len);

	if (!error && fd_count > MSG_FDS_MAX)
		error = err_set(SECPOOL_E_INVALID, "%u descriptors in one message", fd_count);
	if (error)
		return error;
	if (fd_count > 0) {
		memset(&control, 0, sizeof control);
		header.msg_control = control.bytes;
		header.msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
		struct cmsghdr *c = CMSG_FIRSTHDR(&header);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * fd_count);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * fd_count);
	}
	while (sendmsg(fd, &header, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
		if (os_interrupted())
			continue;
		if (!os_would_block())
			return os_error("send %s", msg_name(msg->type));
		error = wait_ready(fd, POLLOUT, deadline_ns);
		if (error)
			return error;
	}
	return SECPOOL_OK;
}

static void read_control(struct msghdr *header, struct sock_extra *extra)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c)) {
		if (c->cmsg_level != SOL_SOCKET)
			continue;
		if (c->cmsg_type == SCM_RIGHTS) {
			size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
			for (size_t i = 0; i < count; i++) {
				int fd;
				memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
				if (extra->fd_count < MSG_FDS_MAX)
					extra->fds[extra->fd_count++] = fd;
				else
					os_close(&fd);
			}
		} else if (c->cmsg_type == SCM_CREDENTIALS) {
			struct ucred cred;
			memcpy(&cred, CMSG_DATA(c), sizeof cred);
			extra->has_sender = true;
			extra->sender = (struct sock_peer){cred.pid, cred.uid, cred.gid};
		}
	}
}

enum secpool_error sock_receive(
	int fd, struct msg *ret_msg, struct sock_extra *ret_extra, uint64_t deadline_ns)
{
	uint8_t bytes[MSG_BYTES_MAX + 1];
	union {
		char bytes[CMSG_SPACE(sizeof(int) * MSG_FDS_MAX) +
			   CMSG_SPACE(sizeof(struct ucred))];
		struct cmsghdr align;
	} control;
	struct iovec part = {.iov_base = bytes, .iov_len = sizeof bytes};
	struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes};
	struct sock_extra extra = {.fd_count = 0};
	enum secpool_error error;
	ssize_t count;

	for (;;) {
		header.msg_controllen = sizeof control.bytes;
		count = recvmsg(fd, &header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
		if (count >= 0)
			break;
		if (os_interrupted())
			continue;
		if (!os_would_block())
			return os_error("receive");
		if (deadline_ns == 0)
			return SECPOOL_E_NO_EVENT;
		error = wait_ready(fd, POLLIN, deadline_ns);
		if (error)
			return error;
	}
	read_control(&header, &extra);
	if (count == 0 && extra.fd_count == 0)
		return err_set(SECPOOL_E_DAEMON_GONE, "the peer closed the connection");
	if (header.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
		error = err_set(SECPOOL_E_PROTOCOL, "a message was too long");
	else
		error = msg_decode(bytes, (size_t)count, ret_msg);
	if (error || !ret_extra)
		sock_close_fds(&extra);
	else
		*ret_extra = extra;
	return error;
}

void sock_close_fds(struct sock_extra *extra)
{
	for (unsigned i = 0; i < extra->fd_count; i++)
		os_close(&extra->fds[i]);
	extra->fd_count = 0;
}

int sock_take_fd(struct sock_extra *extra, unsigned i)
{
	int fd = -1;

	if (i < extra->fd_count) {
		fd = extra->fds[i];
		extra->fds[i] = -1;
	}
	return fd;
}

enum secpool_error sock_reply(
	int fd, uint32_t number, enum secpool_error error, uint64_t deadline_ns)
{
	struct msg msg = {.type = MSG_REPLY, .number = number};

	msg.u.reply.error = (uint32_t)error;
	MSG_SET(msg.u.reply.detail, error == SECPOOL_OK ? "" : err_detail());
	return sock_send(fd, &msg, NULL, 0, deadline_ns);
}

enum secpool_error sock_check_answer(
	const struct msg *request, uint32_t want, const struct msg *answer)
{
	if (answer->number != request->number ||
		(answer->type != want && answer->type != MSG_REPLY))
		return err_set(SECPOOL_E_PROTOCOL, "%s was answered by %s", msg_name(request->type),
			msg_name(answer->type));
	if (answer->type == MSG_REPLY && want != MSG_REPLY && answer->u.reply.error == SECPOOL_OK)
		return err_set(SECPOOL_E_PROTOCOL, "%s was answered without a result",
			msg_name(request->type));
	return SECPOOL_OK;
}

enum secpool_error sock_exchange(int fd, struct msg *request, const int *fds, unsigned fd_count,
	uint32_t want, struct msg *ret_answer, struct sock_extra *ret_extra, uint64_t deadline_ns)
{
	static _Atomic uint32_t last_number;
	struct sock_extra extra = {.fd_count = 0};
	enum secpool_error error;
	struct msg answer;

	request->number = ++last_number;
	error = sock_send(fd, request, fds, fd_count, deadline_ns);
	if (error)
		return error;
	error = sock_receive(fd, &answer, &extra, deadline_ns);
	if (error)
		return error;
	error = sock_check_answer(request, want, &answer);
	if (!error)
		*ret_answer = answer;
	if (error || !ret_extra)
		sock_close_fds(&extra);
	else
		*ret_extra = extra;
	return error;
}

enum secpool_error sock_answer_error(const struct msg *answer)
{
	enum secpool_error error = SECPOOL_OK;

	if (answer->type == MSG_REPLY)
		error = err_from_number(answer->u.reply.error);
	return error ? err_set(error, "%s", answer->u.reply.detail) : SECPOOL_OK;
}

enum secpool_error sock_call(int fd, struct msg *request, const int *fds, unsigned fd_count,
	uint32_t want, struct msg *ret_answer, struct sock_extra *ret_extra, uint64_t deadline_ns)
{
	struct sock_extra extra = {.fd_count = 0};
	struct msg answer;
	enum secpool_error error =
		sock_exchange(fd, request, fds, fd_count, want, &answer, &extra, deadline_ns);

	if (!error)
		error = sock_answer_error(&answer);
	if (!error && ret_answer)
		*ret_answer = answer;
	if (error || !ret_extra)
		sock_close_fds(&extra);
	else
		*ret_extra = extra;
	return error;
}

enum secpool_error sock_connect_as(const char *path, enum msg_role role, int *ret_fd)
{
	struct msg hello = {.type = MSG_HELLO};
	enum secpool_error error;
	int fd = -1;

	error = sock_connect(path, &fd);
	if (error)
		return error;
	hello.u.hello.version = MSG_VERSION;
	hello.u.hello.role = role;
	error = sock_call(fd, &hello, NULL, 0, MSG_HELLO, &hello, NULL, clock_now_ns() + HELLO_NS);
	if (!error && hello.u.hello.version != MSG_VERSION)
		error = err_set(SECPOOL_E_PROTOCOL,
			"%s speaks version %u, this program %u: install the same", path,
			hello.u.hello.version, (unsigned)MSG_VERSION);
	if (error)
		os_close(&fd);
	else
		*ret_fd = fd;
	return error;
}
