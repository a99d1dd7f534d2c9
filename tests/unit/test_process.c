/* SPDX-License-Identifier: Apache-2.0 */
/* Whose process number a connection's is: the peer's own, never one that got the number later. */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <signal.h>

#include <cmocka.h>

#include "keymgr/process.h"
#include "lib/base/clock.h"

enum { TRIES = 200 };

static char folder[64], path[96];
static int listener = -1;

static int set_up(void **state)
{
	(void)state;
	snprintf(folder, sizeof folder, "/tmp/secpool-process-XXXXXX");
	if (!mkdtemp(folder))
		return -1;
	snprintf(path, sizeof path, "%s/s", folder);
	return sock_listen(path, 0600, &listener) == SECPOOL_OK ? 0 : -1;
}

static int tear_down(void **state)
{
	(void)state;
	os_close(&listener);
	return os_remove_tree(folder) == SECPOOL_OK ? 0 : -1;
}

static pid_t fork_connected(bool stays)
{
	pid_t child = fork();
	int fd = -1;

	assert_true(child >= 0);
	if (child == 0) {
		if (sock_connect(path, &fd) != SECPOOL_OK)
			_exit(1);
		while (stays)
			pause();
		_exit(0);
	}
	return child;
}

static void accept_one(int *ret_fd, struct sock_peer *ret_peer)
{
	enum secpool_error error = SECPOOL_E_NO_EVENT;

	for (int i = 0; i < 1000 && error == SECPOOL_E_NO_EVENT; i++) {
		error = sock_accept(listener, ret_fd);
		if (error)
			clock_sleep_ns(5 * CLOCK_NS_PER_MS);
	}
	assert_int_equal(error, SECPOOL_OK);
	assert_int_equal(sock_peer(*ret_fd, ret_peer), SECPOOL_OK);
}

static void end(pid_t child)
{
	assert_int_equal(kill(child, SIGKILL), 0);
	assert_int_equal(waitpid(child, NULL, 0), child);
}

static void test_a_live_peer_is_named(void **state)
{
	pid_t child = fork_connected(true);
	struct os_process process = {0}, found = {0};
	struct sock_peer peer;
	int fd = -1;

	(void)state;
	accept_one(&fd, &peer);
	assert_int_equal(peer.pid, child);
	assert_int_equal(process_of_peer(fd, &peer, process_boot_ns(), &process), SECPOOL_OK);
	assert_int_equal(os_process_find(child, &found), SECPOOL_OK);
	assert_int_equal(process.pid, child);
	assert_int_equal(process.start_ticks, found.start_ticks);
	end(child);
	process.pid = -5;
	assert_int_equal(
		process_of_peer(fd, &peer, process_boot_ns(), &process), SECPOOL_E_NOT_FOUND);
	assert_int_equal(process.pid, -5);
	os_close(&fd);
}

/* Forks until the number is given again; 0 when this system gives it to nobody here. */
static pid_t take_number(pid_t number)
{
	for (int i = 0; i < TRIES; i++) {
		FILE *last = fopen("/proc/sys/kernel/ns_last_pid", "we");
		pid_t child;

		if (!last)
			return 0;
		fprintf(last, "%d", number - 1);
		if (fclose(last) != 0)
			return 0;
		child = fork();
		assert_true(child >= 0);
		while (child == 0)
			pause();
		if (child == number)
			return child;
		end(child);
	}
	return 0;
}

static void test_a_number_given_again_is_refused(void **state)
{
	struct os_process process = {.pid = -5}, stranger = {0};
	uint64_t accepted_ns;
	struct sock_peer peer;
	pid_t child, again;
	int fd = -1;

	(void)state;
	child = fork_connected(false);
	assert_int_equal(waitpid(child, NULL, 0), child);
	accept_one(&fd, &peer);
	assert_int_equal(peer.pid, child);
	accepted_ns = process_boot_ns();
	clock_sleep_ns(50 * CLOCK_NS_PER_MS); /* start times are counted in 10 ms */
	again = take_number(child);
	if (again == 0) {
		os_close(&fd);
		print_message("the number could not be taken again: ns_last_pid\n");
		skip();
	}
	/* a live process has the number, of the same user even */
	assert_int_equal(os_process_find(again, &stranger), SECPOOL_OK);
	assert_int_equal(process_of_peer(fd, &peer, accepted_ns, &process), SECPOOL_E_NOT_FOUND);
	assert_int_equal(process_of_number(&peer, accepted_ns, &process), SECPOOL_E_NOT_FOUND);
	assert_int_equal(process.pid, -5);
	end(again);
	os_close(&fd);
}

static void test_before_6_5_user_and_age_must_fit(void **state)
{
	struct sock_peer peer = {.pid = getpid(), .uid = geteuid(), .gid = getegid()};
	struct os_process process = {.pid = -5};

	(void)state;
	assert_int_equal(process_of_number(&peer, 0, &process), SECPOOL_E_NOT_FOUND);
	peer.uid++;
	assert_int_equal(
		process_of_number(&peer, process_boot_ns(), &process), SECPOOL_E_NOT_FOUND);
	peer.uid--;
	peer.pid = 0;
	assert_int_not_equal(process_of_number(&peer, process_boot_ns(), &process), SECPOOL_OK);
	assert_int_equal(process.pid, -5);
	peer.pid = getpid();
	assert_int_equal(process_of_number(&peer, process_boot_ns(), &process), SECPOOL_OK);
	assert_int_equal(process.pid, getpid());
}

static void test_locked_memory_limit(void **state)
{
	struct rlimit limit, before;
	struct os_process process, none = {.pid = INT_MAX};

	(void)state;
	assert_int_equal(os_process_find(getpid(), &process), SECPOOL_OK);
	assert_int_equal(getrlimit(RLIMIT_MEMLOCK, &before), 0);
	assert_true(process_memlock(&process) == before.rlim_cur);
	limit = (struct rlimit){.rlim_cur = 65536, .rlim_max = before.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_MEMLOCK, &limit), 0);
	assert_int_equal(process_memlock(&process), 65536);
	assert_int_equal(setrlimit(RLIMIT_MEMLOCK, &before), 0);
	assert_int_equal(process_memlock(&none), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_a_live_peer_is_named),
		TEST(test_a_number_given_again_is_refused),
		TEST(test_before_6_5_user_and_age_must_fit),
		TEST(test_locked_memory_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
