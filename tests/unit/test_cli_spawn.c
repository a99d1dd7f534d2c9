/* SPDX-License-Identifier: Apache-2.0 */
/* cli/spawn.c and ready.c: pid files, ending a process and only that one, readiness, last words. */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "cli/spawn.h"

static char home[64], path[128];

static int begin(void **state)
{
	(void)state;
	snprintf(home, sizeof home, "/tmp/test_cli.XXXXXX");
	if (!mkdtemp(home))
		return -1;
	snprintf(path, sizeof path, "%s/log", home);
	return mkdir(path, 0700);
}

static int end(void **state)
{
	(void)state;
	return os_remove_tree(home) != SECPOOL_OK;
}

static const char *in(const char *name)
{
	snprintf(path, sizeof path, "%s/%s", home, name);
	return path;
}

static void put(const char *name, const char *text)
{
	assert_int_equal(os_write_file_durable(in(name), text, strlen(text), 0600), SECPOOL_OK);
}

/* A child that sleeps, deaf to SIGTERM if wanted, with its pid file. */
static struct os_process child(bool deaf)
{
	struct os_process process;
	/* deaf before it is there: on a busy machine it might be told to end before it had said that it won't */
	sighandler_t before = deaf ? signal(SIGTERM, SIG_IGN) : SIG_ERR;
	char text[64];
	pid_t pid = fork();

	if (pid == 0)
		for (;;)
			pause();
	if (deaf)
		signal(SIGTERM, before);
	assert_int_equal(os_process_find(pid, &process), SECPOOL_OK);
	snprintf(text, sizeof text, "%d %llu\n", pid, (unsigned long long)process.start_ticks);
	put("keymgrd.pid", text);
	return process;
}

static void test_find_stop(void **state)
{
	struct os_process process = child(false), found = {0};
	bool ran = false;

	(void)state;
	assert_true(spawn_find(home, SPAWN_KEYMGRD, &found));
	assert_true(found.pid == process.pid && found.start_ticks == process.start_ticks);
	assert_false(spawn_find(home, SPAWN_VTPM, &found));
	assert_int_equal(spawn_stop(home, SPAWN_KEYMGRD, &ran), SECPOOL_OK);
	assert_true(ran);
	assert_false(os_process_alive(&process));
	assert_int_not_equal(access(in("keymgrd.pid"), F_OK), 0);
	assert_int_equal(spawn_stop(home, SPAWN_KEYMGRD, &ran), SECPOOL_OK);
	assert_false(ran);
}

/* The id was given to another process since: it is not touched. */
static void test_other_process(void **state)
{
	struct os_process process = child(false), found;
	bool ran = true;
	char text[64];

	(void)state;
	snprintf(text, sizeof text, "%d %llu\n", process.pid,
		(unsigned long long)process.start_ticks - 1);
	put("keymgrd.pid", text);
	assert_false(spawn_find(home, SPAWN_KEYMGRD, &found));
	assert_int_equal(spawn_stop(home, SPAWN_KEYMGRD, &ran), SECPOOL_OK);
	assert_false(ran);
	assert_true(os_process_alive(&process));
	kill(process.pid, SIGKILL);
	waitpid(process.pid, NULL, 0);
	put("keymgrd.pid", "-1 5\n");
	assert_false(spawn_find(home, SPAWN_KEYMGRD, &found));
	put("keymgrd.pid", "garbage");
	assert_false(spawn_find(home, SPAWN_KEYMGRD, &found));
}

static void test_deaf(void **state)
{
	struct os_process process = child(true);

	(void)state;
	time_t start = time(NULL);
	assert_int_equal(spawn_stop(home, SPAWN_KEYMGRD, NULL), SECPOOL_OK);
	assert_false(os_process_alive(&process));
	assert_in_range(time(NULL) - start, 8, 14);
}

static void test_start_without_program(void **state)
{
	char *argv[] = {NULL, NULL};
	struct os_process process = {.pid = 7};

	(void)state;
	/* this test lies in tests/unit/, the programs in bin/ */
	assert_int_equal(
		spawn_start(home, SPAWN_VTPM, argv, NULL, -1, &process), SECPOOL_E_NOT_FOUND);
	assert_non_null(strstr(err_detail(), "secpool-vtpm"));
	assert_int_equal(process.pid, 7);
	assert_int_not_equal(access(in("vtpm.pid"), F_OK), 0);
}

static void say(const char *socket_path, const char *text)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	memcpy(address.sun_path, socket_path, strlen(socket_path));
	assert_int_equal(
		sendto(fd, text, strlen(text), 0, (struct sockaddr *)&address, sizeof address),
		strlen(text));
	os_close(&fd);
}

static void test_ready(void **state)
{
	struct os_process process = child(false);
	char notify[128];
	int fd = -1;

	(void)state;
	assert_int_equal(spawn_listen(home, notify, sizeof notify, &fd), SECPOOL_OK);
	say(notify, "STATUS=READY=1");
	say(notify, "STATUS=x\nREADY=1\n");
	assert_int_equal(spawn_wait(home, SPAWN_KEYMGRD, &process, fd, NULL), SECPOOL_OK);
	/* it ends before it is ready; a status that quotes READY=1 is not that */
	put("log/keymgrd.log", "<6>x: first\n<3>secpool-keymgrd: start-failed detail=\"no TPM\"\n");
	say(notify, "STATUS=READY=1");
	kill(process.pid, SIGKILL);
	assert_int_equal(
		spawn_wait(home, SPAWN_KEYMGRD, &process, fd, NULL), SECPOOL_E_DAEMON_GONE);
	assert_string_equal(
		err_detail(), "secpool-keymgrd did not start: start-failed detail=\"no TPM\"");
	spawn_unlisten(notify, &fd);
	assert_int_not_equal(access(notify, F_OK), 0);
	spawn_unlisten(notify, &fd);
}

static void test_interrupted(void **state)
{
	struct os_process process = child(false);

	(void)state;
	spawn_catch_signals();
	assert_false(spawn_interrupted());
	raise(SIGTERM);
	assert_true(spawn_interrupted());
	assert_int_equal(
		spawn_wait(home, SPAWN_VTPM, &process, -1, in("no.sock")), SECPOOL_E_CLOSED);
	assert_int_equal(spawn_stop(home, SPAWN_KEYMGRD, NULL), SECPOOL_OK);
}

static void test_last_line(void **state)
{
	char text[32], longer[5000];

	(void)state;
	spawn_last_line(home, SPAWN_VTPM, text, sizeof text);
	assert_string_equal(text, "");
	put("log/vtpm.log", "");
	spawn_last_line(home, SPAWN_VTPM, text, sizeof text);
	assert_string_equal(text, "");
	put("log/vtpm.log", "one\ntwo");
	spawn_last_line(home, SPAWN_VTPM, text, sizeof text);
	assert_string_equal(text, "two");
	put("log/vtpm.log", "<3>secpool-vtpm: gone\n\n");
	spawn_last_line(home, SPAWN_VTPM, text, sizeof text);
	assert_string_equal(text, "gone");
	memset(longer, 'z', sizeof longer - 1);
	longer[sizeof longer - 1] = '\0';
	put("log/vtpm.log", longer);
	spawn_last_line(home, SPAWN_VTPM, text, sizeof text);
	assert_int_equal(strlen(text), sizeof text - 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_find_stop, begin, end),
		cmocka_unit_test_setup_teardown(test_other_process, begin, end),
		cmocka_unit_test_setup_teardown(test_deaf, begin, end),
		cmocka_unit_test_setup_teardown(test_start_without_program, begin, end),
		cmocka_unit_test_setup_teardown(test_ready, begin, end),
		cmocka_unit_test_setup_teardown(test_last_line, begin, end),
		cmocka_unit_test_setup_teardown(test_interrupted, begin, end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
