/* SPDX-License-Identifier: Apache-2.0 */
/* lib/wire/sock.c: connections, descriptors, credentials, deadlines, and what a bad peer sends. */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/base/clock.h"
#include "lib/base/os.h"
#include "lib/wire/sock.h"

static int ends[2];

static int begin(void **state)
{
	(void)state;
	return sock_pair(ends) != SECPOOL_OK;
}

static int end(void **state)
{
	(void)state;
	os_close(&ends[0]);
	os_close(&ends[1]);
	return 0;
}

static uint64_t soon(void)
{
	return clock_now_ns() + 50 * (uint64_t)CLOCK_NS_PER_MS;
}

static unsigned count_fds(void)
{
	unsigned count = 0;

	for (int fd = 0; fd < 256; fd++)
		count += fcntl(fd, F_GETFD) >= 0;
	return count;
}

static void test_send_receive(void **state)
{
	struct msg msg = {.type = MSG_HELLO, .number = 5}, back;

	(void)state;
	msg.u.hello.version = 9;
	assert_int_equal(sock_receive(ends[1], &back, NULL, 0), SECPOOL_E_NO_EVENT);
	assert_int_equal(sock_receive(ends[1], &back, NULL, soon()), SECPOOL_E_TIMEOUT);
	assert_int_equal(sock_send(ends[0], &msg, NULL, 0, 0), SECPOOL_OK);
	assert_int_equal(sock_receive(ends[1], &back, NULL, soon()), SECPOOL_OK);
	assert_true(back.type == MSG_HELLO && back.number == 5 && back.u.hello.version == 9);
	os_close(&ends[0]);
	assert_int_equal(sock_receive(ends[1], &back, NULL, soon()), SECPOOL_E_DAEMON_GONE);
	assert_int_equal(sock_send(ends[1], &msg, NULL, 0, soon()), SECPOOL_E_DAEMON_GONE);
}

static void test_descriptors(void **state)
{
	struct msg msg = {.type = MSG_HELLO}, back;
	int pipes[2], five[5] = {0};
	struct sock_extra extra;
	unsigned before;
	char byte;

	(void)state;
	assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
	before = count_fds();
	assert_int_equal(sock_send(ends[0], &msg, pipes, 2, 0), SECPOOL_OK);
	assert_int_equal(sock_receive(ends[1], &back, &extra, soon()), SECPOOL_OK);
	assert_int_equal(extra.fd_count, 2);
	assert_int_equal(fcntl(extra.fds[0], F_GETFD), FD_CLOEXEC);
	int taken = sock_take_fd(&extra, 1);
	assert_int_equal(write(taken, "x", 1), 1);
	assert_int_equal(read(pipes[0], &byte, 1), 1);
	os_close(&taken);
	assert_int_equal(sock_take_fd(&extra, 1), -1);
	assert_int_equal(sock_take_fd(&extra, 2), -1);
	sock_close_fds(&extra);
	assert_int_equal(extra.fd_count, 0);
	assert_int_equal(count_fds(), before);
	/* not asked for: closed */
	assert_int_equal(sock_send(ends[0], &msg, pipes, 2, 0), SECPOOL_OK);
	assert_int_equal(sock_receive(ends[1], &back, NULL, soon()), SECPOOL_OK);
	assert_int_equal(count_fds(), before);
	assert_int_equal(sock_send(ends[0], &msg, five, 5, 0), SECPOOL_E_INVALID);
	assert_int_equal(sock_receive(ends[1], &back, NULL, 0), SECPOOL_E_NO_EVENT);
	os_close(&pipes[0]);
	os_close(&pipes[1]);
}

static void send_raw(const void *bytes, size_t count, int fds)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int) * 16)];
		struct cmsghdr align;
	} control;
	struct iovec part = {.iov_base = (void *)bytes, .iov_len = count};
	struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1};

	memset(&control, 0, sizeof control);
	if (fds) {
		header.msg_control = control.bytes;
		header.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)fds);
		struct cmsghdr *c = CMSG_FIRSTHDR(&header);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)fds);
	} /* descriptor 0, many times */
	assert_int_equal(sendmsg(ends[0], &header, 0), (ssize_t)count);
}

static void test_bad_peer(void **state)
{
	static uint8_t bytes[2 * MSG_BYTES_MAX];
	struct msg msg = {.type = MSG_HELLO}, back = {.type = 77};
	unsigned before = count_fds();
	struct sock_extra extra = {.fd_count = 99};
	size_t count;

	(void)state;
	send_raw("garbage", 7, 2);
	assert_int_equal(sock_receive(ends[1], &back, &extra, soon()), SECPOOL_E_PROTOCOL);
	send_raw(bytes, sizeof bytes, 0);
	assert_int_equal(sock_receive(ends[1], &back, &extra, soon()), SECPOOL_E_PROTOCOL);
	/* a good message with more descriptors than there may be */
	assert_int_equal(msg_encode(&msg, bytes, MSG_BYTES_MAX, &count), SECPOOL_OK);
	send_raw(bytes, count, 16);
	assert_int_equal(sock_receive(ends[1], &back, &extra, soon()), SECPOOL_E_PROTOCOL);
	assert_int_equal(back.type, 77);
	assert_int_equal(extra.fd_count, 99);
	assert_int_equal(count_fds(), before);
	/* and the connection goes on */
	assert_int_equal(sock_send(ends[0], &msg, NULL, 0, 0), SECPOOL_OK);
	assert_int_equal(sock_receive(ends[1], &back, &extra, soon()), SECPOOL_OK);
	assert_int_equal(extra.fd_count, 0);
}

static void test_credentials(void **state)
{
	struct msg msg = {.type = MSG_HELLO}, back;
	struct sock_extra extra;
	struct sock_peer peer;

	(void)state;
	assert_int_equal(sock_peer(ends[0], &peer), SECPOOL_OK);
	assert_true(peer.pid == getpid() && peer.uid == geteuid() && peer.gid == getegid());
	assert_int_equal(sock_send(ends[0], &msg, NULL, 0, 0), SECPOOL_OK);
	assert_int_equal(sock_receive(ends[1], &back, &extra, soon()), SECPOOL_OK);
	assert_false(extra.has_sender);
	assert_int_equal(sock_want_credentials(ends[1]), SECPOOL_OK);
	assert_int_equal(sock_send(ends[0], &msg, NULL, 0, 0), SECPOOL_OK);
	assert_int_equal(sock_receive(ends[1], &back, &extra, soon()), SECPOOL_OK);
	assert_true(extra.has_sender && extra.sender.pid == getpid());
	assert_int_equal(sock_peer(-1, &peer), SECPOOL_E_SYSTEM);
	assert_int_equal(sock_want_credentials(-1), SECPOOL_E_SYSTEM);
}

static void test_full(void **state)
{
	struct msg msg = {.type = MSG_RECEIPT}, back;
	enum secpool_error error = SECPOOL_OK;
	unsigned sent = 0;

	(void)state;
	for (; sent < 100000 && !error; sent++)
		error = sock_send(ends[0], &msg, NULL, 0, 0);
	assert_int_equal(error, SECPOOL_E_TIMEOUT);
	assert_int_equal(sock_send(ends[0], &msg, NULL, 0, soon()), SECPOOL_E_TIMEOUT);
	assert_int_equal(sock_receive(ends[1], &back, NULL, 0), SECPOOL_OK);
}

struct server {
	int fd;
	uint32_t type; /* of the answer; 0: none, closes */
	uint32_t error;
	bool other_number;
	uint32_t version;
};

static void *serve(void *arg)
{
	struct server *server = arg;
	struct msg msg;

	if (sock_receive(server->fd, &msg, NULL, clock_now_ns() + 5 * CLOCK_NS_PER_S))
		return NULL;
	uint32_t number = msg.number;
	if (server->type == 0) {
		shutdown(server->fd, SHUT_RDWR);
		return NULL;
	}
	memset(&msg, 0, sizeof msg);
	msg.type = server->type;
	msg.number = number + server->other_number;
	if (msg.type == MSG_REPLY) {
		msg.u.reply.error = server->error;
		MSG_SET(msg.u.reply.detail, "said the daemon");
	} else if (msg.type == MSG_HELLO) {
		msg.u.hello.version = server->version;
	}
	(void)!sock_send(server->fd, &msg, NULL, 0, soon());
	return NULL;
}

static enum secpool_error call(struct server server, uint32_t want, struct msg *answer)
{
	struct msg request = {.type = MSG_LIST};
	enum secpool_error error;
	pthread_t thread;

	server.fd = ends[1];
	assert_int_equal(pthread_create(&thread, NULL, serve, &server), 0);
	error = sock_call(
		ends[0], &request, NULL, 0, want, answer, NULL, clock_now_ns() + CLOCK_NS_PER_S);
	pthread_join(thread, NULL);
	return error;
}

static void test_call(void **state)
{
	struct msg answer = {.type = 77};

	(void)state;
	assert_int_equal(call((struct server){.type = MSG_HELLO}, MSG_HELLO, &answer), SECPOOL_OK);
	assert_int_equal(answer.type, MSG_HELLO);
	answer.type = 77;
	assert_int_equal(call((struct server){.type = MSG_REPLY, .error = SECPOOL_E_QUOTA},
				 MSG_HELLO, &answer),
		SECPOOL_E_QUOTA);
	assert_string_equal(err_detail(), "said the daemon");
	assert_int_equal(
		call((struct server){.type = MSG_REPLY}, MSG_HELLO, &answer), SECPOOL_E_PROTOCOL);
	assert_int_equal(
		call((struct server){.type = MSG_REPLY, .error = 9999}, MSG_REPLY, &answer),
		SECPOOL_E_PROTOCOL);
	assert_int_equal(
		call((struct server){.type = MSG_DEVICE}, MSG_HELLO, &answer), SECPOOL_E_PROTOCOL);
	assert_int_equal(
		call((struct server){.type = MSG_HELLO, .other_number = true}, MSG_HELLO, &answer),
		SECPOOL_E_PROTOCOL);
	assert_int_equal(answer.type, 77);
	assert_int_equal(call((struct server){.type = MSG_REPLY}, MSG_REPLY, NULL), SECPOOL_OK);
	assert_int_equal(call((struct server){.type = 0}, MSG_REPLY, NULL), SECPOOL_E_DAEMON_GONE);
}

static enum secpool_error exchange(struct server server, uint32_t want, struct msg *answer)
{
	struct msg request = {.type = MSG_LIST};
	enum secpool_error error;
	pthread_t thread;

	server.fd = ends[1];
	assert_int_equal(pthread_create(&thread, NULL, serve, &server), 0);
	error = sock_exchange(
		ends[0], &request, NULL, 0, want, answer, NULL, clock_now_ns() + CLOCK_NS_PER_S);
	pthread_join(thread, NULL);
	return error;
}

/* What the peer says is not what became of the connection, whichever code it uses. */
static void test_an_answered_error_is_no_broken_connection(void **state)
{
	static const enum secpool_error said[] = {
		SECPOOL_E_DAEMON_GONE, SECPOOL_E_TIMEOUT, SECPOOL_E_PROTOCOL, SECPOOL_E_QUOTA};
	struct msg answer = {.type = 77};

	(void)state;
	for (size_t i = 0; i < sizeof said / sizeof *said; i++) {
		assert_int_equal(exchange((struct server){.type = MSG_REPLY, .error = said[i]},
					 MSG_HELLO, &answer),
			SECPOOL_OK);
		assert_int_equal(answer.type, MSG_REPLY);
		assert_int_equal(sock_answer_error(&answer), said[i]);
		assert_string_equal(err_detail(), "said the daemon");
	}
	assert_int_equal(
		exchange((struct server){.type = MSG_HELLO}, MSG_HELLO, &answer), SECPOOL_OK);
	assert_int_equal(sock_answer_error(&answer), SECPOOL_OK);
	answer.type = 77;
	assert_int_equal(exchange((struct server){.type = MSG_REPLY}, MSG_HELLO, &answer),
		SECPOOL_E_PROTOCOL);
	assert_int_equal(exchange((struct server){.type = MSG_DEVICE}, MSG_HELLO, &answer),
		SECPOOL_E_PROTOCOL);
	assert_int_equal(
		exchange((struct server){.type = 0}, MSG_HELLO, &answer), SECPOOL_E_DAEMON_GONE);
	assert_int_equal(answer.type, 77);
}

static void test_call_timeout(void **state)
{
	struct msg request = {.type = MSG_LIST};

	(void)state;
	assert_int_equal(sock_call(ends[0], &request, NULL, 0, MSG_REPLY, NULL, NULL, soon()),
		SECPOOL_E_TIMEOUT);
}

static void test_reply(void **state)
{
	struct msg back;

	(void)state;
	assert_int_equal(sock_reply(ends[0], 7, err_set(SECPOOL_E_LOST, "gone"), 0), SECPOOL_OK);
	assert_int_equal(sock_receive(ends[1], &back, NULL, 0), SECPOOL_OK);
	assert_true(back.type == MSG_REPLY && back.number == 7);
	assert_int_equal(back.u.reply.error, SECPOOL_E_LOST);
	assert_string_equal(back.u.reply.detail, "gone");
	assert_int_equal(sock_reply(ends[0], 8, SECPOOL_OK, 0), SECPOOL_OK);
	assert_int_equal(sock_receive(ends[1], &back, NULL, 0), SECPOOL_OK);
	assert_string_equal(back.u.reply.detail, ""); /* an old sentence is not sent with success */
}

static void test_listen(void **state)
{
	char home[] = "/tmp/test_sock.XXXXXX", path[64], longer[256];
	int listener = -1, again = -1, fd = -1, accepted = -1;
	struct sock_peer peer;
	struct stat found;

	(void)state;
	assert_non_null(mkdtemp(home));
	snprintf(path, sizeof path, "%s/s", home);
	assert_int_equal(sock_connect(path, &fd), SECPOOL_E_DAEMON_GONE);
	assert_non_null(strstr(err_detail(), path));
	assert_non_null(strstr(err_detail(), "secpool up"));
	assert_int_equal(sock_listen(path, 0600, &listener), SECPOOL_OK);
	assert_int_equal(stat(path, &found), 0);
	assert_int_equal(found.st_mode & 0777, 0600);
	assert_int_equal(sock_accept(listener, &accepted), SECPOOL_E_NO_EVENT);
	assert_int_equal(sock_connect(path, &fd), SECPOOL_OK);
	assert_int_equal(sock_accept(listener, &accepted), SECPOOL_OK);
	assert_int_equal(fcntl(accepted, F_GETFD), FD_CLOEXEC);
	assert_int_equal(sock_peer(accepted, &peer), SECPOOL_OK);
	assert_int_equal(peer.pid, getpid());
	/* an old socket in the way is replaced */
	assert_int_equal(sock_listen(path, 0600, &again), SECPOOL_OK);
	memset(longer, 'l', sizeof longer - 1);
	longer[sizeof longer - 1] = '\0';
	int none = -1;
	assert_int_equal(sock_listen(longer, 0600, &none), SECPOOL_E_LIMIT);
	assert_int_equal(sock_connect(longer, &none), SECPOOL_E_LIMIT);
	assert_int_equal(sock_listen("/nonexistent/s", 0600, &none), SECPOOL_E_NOT_FOUND);
	assert_int_equal(none, -1);
	os_close(&listener);
	os_close(&again);
	os_close(&fd);
	os_close(&accepted);
	assert_int_equal(os_remove_tree(home), SECPOOL_OK);
}

struct greeter {
	int listener;
	uint32_t version;
};

static void *greet(void *arg)
{
	struct greeter *greeter = arg;
	struct server server = {.type = MSG_HELLO, .version = greeter->version, .fd = -1};

	while (sock_accept(greeter->listener, &server.fd) == SECPOOL_E_NO_EVENT)
		clock_sleep_ns(CLOCK_NS_PER_MS);
	serve(&server);
	os_close(&server.fd);
	return NULL;
}

static void test_connect_as(void **state)
{
	char home[] = "/tmp/test_sock.XXXXXX", path[64];
	struct greeter greeter = {.version = MSG_VERSION};
	pthread_t thread;
	int fd = -1;

	(void)state;
	assert_non_null(mkdtemp(home));
	snprintf(path, sizeof path, "%s/s", home);
	assert_int_equal(sock_listen(path, 0600, &greeter.listener), SECPOOL_OK);
	assert_int_equal(pthread_create(&thread, NULL, greet, &greeter), 0);
	assert_int_equal(sock_connect_as(path, MSG_ROLE_ADMIN, &fd), SECPOOL_OK);
	pthread_join(thread, NULL);
	os_close(&fd);
	greeter.version = MSG_VERSION + 1;
	assert_int_equal(pthread_create(&thread, NULL, greet, &greeter), 0);
	assert_int_equal(sock_connect_as(path, MSG_ROLE_ADMIN, &fd), SECPOOL_E_PROTOCOL);
	pthread_join(thread, NULL);
	assert_int_equal(fd, -1);
	assert_non_null(strstr(err_detail(), "version"));
	os_close(&greeter.listener);
	assert_int_equal(os_remove_tree(home), SECPOOL_OK);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_send_receive, begin, end),
		cmocka_unit_test_setup_teardown(test_descriptors, begin, end),
		cmocka_unit_test_setup_teardown(test_bad_peer, begin, end),
		cmocka_unit_test_setup_teardown(test_credentials, begin, end),
		cmocka_unit_test_setup_teardown(test_full, begin, end),
		cmocka_unit_test_setup_teardown(test_call, begin, end),
		cmocka_unit_test_setup_teardown(
			test_an_answered_error_is_no_broken_connection, begin, end),
		cmocka_unit_test_setup_teardown(test_call_timeout, begin, end),
		cmocka_unit_test_setup_teardown(test_reply, begin, end),
		cmocka_unit_test(test_listen),
		cmocka_unit_test(test_connect_as),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
