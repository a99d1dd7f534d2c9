/* SPDX-License-Identifier: Apache-2.0 */
/* cli/conn.c against a daemon played by a thread: rows in order, refusals, broken answers, a daemon that goes. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "cli/conn.h"
#include "lib/base/clock.h"
#include "lib/base/os.h"
#include "lib/wire/sock.h"

/* What the played daemon answers to LIST: rows of a type, then REPLY with the error, or nothing more. */
struct daemon {
	int listener;
	uint32_t role, what;
	uint64_t after;
	uint32_t row_type;
	unsigned rows;
	uint32_t error;
	bool silent;
	pthread_t thread;
};

static char home[64], path[96];
static struct daemon daemon_played;

static void *play(void *arg)
{
	struct daemon *d = arg;
	uint64_t deadline = clock_now_ns() + 5 * CLOCK_NS_PER_S;
	struct msg msg;
	uint32_t number;
	int fd = -1;

	while (sock_accept(d->listener, &fd) == SECPOOL_E_NO_EVENT && clock_now_ns() < deadline)
		clock_sleep_ns(CLOCK_NS_PER_MS);
	if (sock_receive(fd, &msg, NULL, deadline) || msg.type != MSG_HELLO)
		goto out;
	d->role = msg.u.hello.role;
	(void)!sock_send(fd, &msg, NULL, 0, deadline);
	if (sock_receive(fd, &msg, NULL, deadline) || msg.type != MSG_LIST)
		goto out;
	d->what = msg.u.list.what;
	d->after = msg.u.list.after;
	number = msg.number;
	for (unsigned i = 0; i < d->rows; i++) {
		memset(&msg, 0, sizeof msg);
		msg.type = d->row_type;
		msg.number = number;
		if (msg.type == MSG_DEVICE_ROW)
			snprintf(msg.u.device_row.id, sizeof msg.u.device_row.id, "dev%u", 12 - i);
		else if (msg.type == MSG_EVENT_ROW)
			msg.u.event_row.number = i + 1;
		(void)!sock_send(fd, &msg, NULL, 0, deadline);
	}
	if (!d->silent)
		(void)!sock_reply(
			fd, number, err_set((enum secpool_error)d->error, "words"), deadline);
out:
	os_close(&fd);
	return NULL;
}

static void start(struct daemon d, const char *socket)
{
	daemon_played = d;
	snprintf(path, sizeof path, "%s/%s", home, socket);
	assert_int_equal(sock_listen(path, 0600, &daemon_played.listener), SECPOOL_OK);
	assert_int_equal(pthread_create(&daemon_played.thread, NULL, play, &daemon_played), 0);
}

static void stop(void)
{
	pthread_join(daemon_played.thread, NULL);
	os_close(&daemon_played.listener);
}

static int begin(void **state)
{
	(void)state;
	snprintf(home, sizeof home, "/tmp/test_cli.XXXXXX");
	return mkdtemp(home) == NULL;
}

static int end(void **state)
{
	(void)state;
	return os_remove_tree(home) != SECPOOL_OK;
}

static unsigned rows_seen;

static void count_row(const struct msg *row, void *arg)
{
	rows_seen++;
	assert_int_equal(row->u.event_row.number, rows_seen);
	assert_ptr_equal(arg, home);
}

static enum secpool_error list(struct daemon d)
{
	enum secpool_error error;

	rows_seen = 0;
	start(d, "keymgr.sock");
	error = conn_list_once(
		home, "keymgr.sock", MSG_LIST_EVENTS, MSG_EVENT_ROW, count_row, home);
	stop();
	return error;
}

static void test_list(void **state)
{
	(void)state;
	assert_int_equal(list((struct daemon){.row_type = MSG_EVENT_ROW, .rows = 5}), SECPOOL_OK);
	assert_int_equal(rows_seen, 5);
	assert_int_equal(daemon_played.role, MSG_ROLE_ADMIN);
	assert_int_equal(daemon_played.what, MSG_LIST_EVENTS);
	assert_true(daemon_played.after == 0);
	assert_int_equal(list((struct daemon){.rows = 0}), SECPOOL_OK);
	assert_int_equal(rows_seen, 0);
}

static void test_refused(void **state)
{
	(void)state;
	assert_int_equal(list((struct daemon){.error = SECPOOL_E_DENIED}), SECPOOL_E_DENIED);
	assert_string_equal(err_detail(), "words");
	assert_int_equal(list((struct daemon){.error = 9999}), SECPOOL_E_PROTOCOL);
	assert_int_equal(
		list((struct daemon){.row_type = MSG_USE_ROW, .rows = 1}), SECPOOL_E_PROTOCOL);
	assert_non_null(strstr(err_detail(), "USE_ROW"));
	assert_int_equal(
		list((struct daemon){.row_type = MSG_EVENT_ROW, .rows = 2, .silent = true}),
		SECPOOL_E_DAEMON_GONE);
	assert_int_equal(
		conn_list_once(home, "no.sock", MSG_LIST_EVENTS, MSG_EVENT_ROW, count_row, home),
		SECPOOL_E_DAEMON_GONE);
}

static void test_follow(void **state)
{
	int fd = -1;

	(void)state;
	rows_seen = 0;
	start((struct daemon){.row_type = MSG_EVENT_ROW, .rows = 3}, "keymgr.sock");
	assert_int_equal(conn_open(home, "keymgr.sock", &fd), SECPOOL_OK);
	assert_int_equal(conn_list(fd, MSG_LIST_EVENTS, MSG_FOLLOW, MSG_EVENT_ROW, count_row, home),
		SECPOOL_E_DAEMON_GONE); /* the REPLY was not the end, the daemon's end was */
	assert_int_equal(rows_seen, 3);
	os_close(&fd);
	stop();
	assert_true(daemon_played.after == MSG_FOLLOW);
}

static void test_devices(void **state)
{
	struct conn_devices devices;

	(void)state;
	start((struct daemon){.row_type = MSG_DEVICE_ROW, .rows = 12}, "hotplug.sock");
	assert_int_equal(conn_devices_read(home, &devices), SECPOOL_OK);
	stop();
	assert_int_equal(devices.use_error, SECPOOL_E_DAEMON_GONE);
	assert_int_equal(devices.row_count, 12);
	assert_string_equal(devices.rows[0].id, "dev1");
	assert_string_equal(devices.rows[1].id, "dev2");
	assert_string_equal(devices.rows[11].id, "dev12");
	assert_ptr_equal(conn_devices_row(&devices, "dev2"), &devices.rows[1]);
	assert_null(conn_devices_row(&devices, "dev"));
	assert_null(conn_devices_use(&devices, "dev2"));
	conn_devices_done(&devices);
	assert_int_equal(conn_devices_read(home, &devices), SECPOOL_E_DAEMON_GONE);
	conn_devices_done(&devices);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_list, begin, end),
		cmocka_unit_test_setup_teardown(test_refused, begin, end),
		cmocka_unit_test_setup_teardown(test_follow, begin, end),
		cmocka_unit_test_setup_teardown(test_devices, begin, end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
