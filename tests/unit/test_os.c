/* SPDX-License-Identifier: Apache-2.0 */
/* lib/base/os.c: files, folders, the runtime folder, processes. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/base/os.h"

static char home[64];

static int begin(void **state)
{
	(void)state;
	snprintf(home, sizeof home, "/tmp/test_os.XXXXXX");
	return mkdtemp(home) == NULL || chdir(home) != 0;
}

static int end(void **state)
{
	(void)state;
	return chdir("/") != 0 || os_remove_tree(home) != SECPOOL_OK;
}

static void test_errors(void **state)
{
	static const struct {
		int number;
		enum secpool_error error;
	} rows[] = {{ENOMEM, SECPOOL_E_NO_MEMORY}, {EPERM, SECPOOL_E_DENIED},
		{EACCES, SECPOOL_E_DENIED}, {ENOENT, SECPOOL_E_NOT_FOUND},
		{ESRCH, SECPOOL_E_NOT_FOUND}, {EEXIST, SECPOOL_E_EXISTS}, {EBUSY, SECPOOL_E_BUSY},
		{ENOSPC, SECPOOL_E_NO_SPACE}, {EDQUOT, SECPOOL_E_NO_SPACE},
		{ETIMEDOUT, SECPOOL_E_TIMEOUT}, {ECONNREFUSED, SECPOOL_E_DAEMON_GONE},
		{EPIPE, SECPOOL_E_DAEMON_GONE}, {EIO, SECPOOL_E_SYSTEM}};

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		errno = rows[i].number;
		assert_int_equal(os_error("open %s", "x"), rows[i].error);
		assert_ptr_equal(strstr(err_detail(), "open x: "), err_detail());
	}
	errno = EAGAIN;
	assert_true(os_would_block() && !os_interrupted());
	errno = EINTR;
	assert_true(!os_would_block() && os_interrupted());
}

static void test_close(void **state)
{
	int fd = open("/", O_RDONLY | O_CLOEXEC), kept = fd;

	(void)state;
	errno = EDOM;
	os_close(&fd);
	assert_int_equal(fd, -1);
	assert_int_equal(errno, EDOM);
	assert_int_equal(fcntl(kept, F_GETFD), -1);
	os_close(&fd);
}

static void test_read(void **state)
{
	char big[10000], *text = NULL;
	size_t bytes = 3;

	(void)state;
	memset(big, 'q', sizeof big);
	assert_int_equal(os_write_file_durable("f", big, sizeof big, 0600), SECPOOL_OK);
	assert_int_equal(os_read_file("f", sizeof big, &text, &bytes), SECPOOL_OK);
	assert_int_equal(bytes, sizeof big);
	assert_memory_equal(text, big, sizeof big);
	assert_int_equal(text[bytes], '\0');
	free(text);
	text = (char *)-1;
	bytes = 3;
	assert_int_equal(os_read_file("f", sizeof big - 1, &text, &bytes), SECPOOL_E_LIMIT);
	assert_int_equal(os_read_file("g", 10, &text, &bytes), SECPOOL_E_NOT_FOUND);
	assert_non_null(strstr(err_detail(), "open g"));
	assert_int_equal(os_read_file(".", 10, &text, &bytes), SECPOOL_E_SYSTEM);
	assert_true(text == (char *)-1 && bytes == 3);
	assert_int_equal(os_write_file_durable("e", "", 0, 0600), SECPOOL_OK);
	assert_int_equal(os_read_file("e", 0, &text, &bytes), SECPOOL_OK);
	assert_int_equal(bytes, 0);
	assert_string_equal(text, "");
	free(text);
}

static void test_write_durable(void **state)
{
	struct stat found;
	char *text = NULL;
	size_t bytes;

	(void)state;
	assert_int_equal(os_write_file_durable("a", "one", 3, 0640), SECPOOL_OK);
	assert_int_equal(stat("a", &found), 0);
	assert_int_equal(found.st_mode & 0777, 0640);
	assert_int_equal(os_write_file_durable("a", "second", 6, 0640), SECPOOL_OK);
	assert_int_equal(os_read_file("a", 10, &text, &bytes), SECPOOL_OK);
	assert_string_equal(text, "second");
	free(text);
	assert_int_not_equal(access("a.next", F_OK), 0);
	/* no folder; a link in the new file's place: the old file stands */
	assert_int_equal(os_write_file_durable("no/a", "x", 1, 0600), SECPOOL_E_NOT_FOUND);
	assert_int_equal(symlink("victim", "a.next"), 0);
	assert_int_not_equal(os_write_file_durable("a", "third", 5, 0600), SECPOOL_OK);
	assert_int_not_equal(access("victim", F_OK), 0);
	assert_int_equal(os_read_file("a", 10, &text, &bytes), SECPOOL_OK);
	assert_string_equal(text, "second");
	free(text);
	assert_int_equal(mkdir("folder", 0700), 0);
	assert_int_not_equal(os_write_file_durable("folder", "x", 1, 0600), SECPOOL_OK);
	assert_int_not_equal(access("folder.next", F_OK), 0);
}

static void test_write_all(void **state)
{
	int pipes[2];
	char back[4];

	(void)state;
	assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
	assert_int_equal(os_write_all(pipes[1], "data", 4), SECPOOL_OK);
	assert_int_equal(read(pipes[0], back, 4), 4);
	assert_memory_equal(back, "data", 4);
	os_close(&pipes[0]);
	signal(SIGPIPE, SIG_IGN);
	assert_int_equal(os_write_all(pipes[1], "data", 4), SECPOOL_E_DAEMON_GONE);
	os_close(&pipes[1]);
}

static void test_folders(void **state)
{
	(void)state;
	assert_int_equal(os_make_dir("d", 0700), SECPOOL_OK);
	assert_int_equal(os_make_dir("d", 0700), SECPOOL_OK);
	assert_int_equal(os_make_dir("no/d", 0700), SECPOOL_E_NOT_FOUND);
	assert_int_equal(os_make_dir("d/e", 0700), SECPOOL_OK);
	assert_int_equal(os_write_file_durable("d/e/f", "x", 1, 0600), SECPOOL_OK);
	assert_int_equal(os_write_file_durable("outside", "x", 1, 0600), SECPOOL_OK);
	assert_int_equal(os_make_dir("out", 0700), SECPOOL_OK);
	assert_int_equal(os_write_file_durable("out/g", "x", 1, 0600), SECPOOL_OK);
	assert_int_equal(symlink("../out", "d/link"), 0);
	assert_int_equal(symlink("../outside", "d/file"), 0);
	assert_int_equal(symlink("nowhere", "d/dangling"), 0);
	assert_int_equal(os_remove_tree("d"), SECPOOL_OK);
	assert_int_not_equal(access("d", F_OK), 0);
	assert_int_equal(access("out/g", F_OK), 0); /* links are not followed */
	assert_int_equal(access("outside", F_OK), 0);
	assert_int_equal(os_remove_tree("d"), SECPOOL_OK);
}

/* A link to nothing was once taken for "not there" and stayed. */
static void test_remove_dangling_link(void **state)
{
	struct stat found;

	(void)state;
	assert_int_equal(symlink("nowhere", "dangling"), 0);
	assert_int_equal(os_remove_tree("dangling"), SECPOOL_OK);
	assert_int_not_equal(lstat("dangling", &found), 0);
}

static void test_runtime_dir(void **state)
{
	char path[PATH_MAX] = "unchanged", longer[256];

	(void)state;
	assert_int_equal(setenv("SECPOOL_RUNTIME_DIR", "/from/env", 1), 0);
	assert_int_equal(os_runtime_dir("/given", path, sizeof path), SECPOOL_OK);
	assert_string_equal(path, "/given");
	assert_int_equal(os_runtime_dir(NULL, path, sizeof path), SECPOOL_OK);
	assert_string_equal(path, "/from/env");
	unsetenv("SECPOOL_RUNTIME_DIR");
	setenv("XDG_RUNTIME_DIR", "/xdg", 1);
	assert_int_equal(os_runtime_dir(NULL, path, sizeof path), SECPOOL_OK);
	assert_string_equal(path, geteuid() == 0 ? "/run/secpool" : "/xdg/secpool");
	assert_int_equal(os_runtime_dir("", path, sizeof path), SECPOOL_E_NOT_FOUND);
	memset(longer, 'l', sizeof longer - 1);
	longer[sizeof longer - 1] = '\0';
	assert_int_equal(os_runtime_dir(longer, path, sizeof path), SECPOOL_E_LIMIT);
	longer[56] = '\0';
	assert_int_equal(os_runtime_dir(longer, path, sizeof path), SECPOOL_OK);
	longer[56] = 'l';
	longer[57] = '\0';
	assert_int_equal(os_runtime_dir(longer, path, sizeof path), SECPOOL_E_LIMIT);
	assert_int_equal(os_runtime_dir("/given", path, 6), SECPOOL_E_LIMIT);
}

static void test_process(void **state)
{
	struct os_process own, child, again;
	pid_t pid;

	(void)state;
	assert_int_equal(os_process_find(getpid(), &own), SECPOOL_OK);
	assert_int_equal(own.pid, getpid());
	assert_true(own.start_ticks > 0 && os_process_alive(&own));
	own.start_ticks++;
	assert_false(os_process_alive(&own)); /* same id, another process */
	pid = fork();
	if (pid == 0) {
		pause();
		_exit(0);
	}
	assert_int_equal(os_process_find(pid, &child), SECPOOL_OK);
	assert_true(os_process_alive(&child));
	kill(pid, SIGKILL);
	assert_int_equal(waitid(P_PID, (id_t)pid, &(siginfo_t){0}, WEXITED | WNOWAIT), 0);
	assert_false(os_process_alive(&child)); /* a zombie */
	again = own;
	assert_int_equal(os_process_find(pid, &again), SECPOOL_E_NOT_FOUND);
	waitpid(pid, NULL, 0);
	assert_int_equal(os_process_find(pid, &again), SECPOOL_E_NOT_FOUND);
	assert_true(again.pid == own.pid && again.start_ticks == own.start_ticks);
}

/* A child that was not yet to its exec holds its parent's lock a moment longer than the parent lives. */
static void test_lock(void **state)
{
	int first, second;
	pid_t pid;

	(void)state;
	first = open(home, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	second = open(home, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(first >= 0 && second >= 0);
	assert_int_equal(os_lock(first, home), SECPOOL_OK);
	assert_int_equal(os_lock(second, home), SECPOOL_E_BUSY);
	assert_non_null(strstr(err_detail(), home));
	pid = fork();
	if (pid == 0) {
		usleep(500000);
		_exit(0);
	}
	close(first);
	assert_int_equal(os_lock(second, home), SECPOOL_OK);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	close(second);
	assert_int_equal(os_lock(second, "a closed one"), SECPOOL_E_SYSTEM);
}

static void test_random(void **state)
{
	uint8_t one[64] = {0}, two[64] = {0};

	(void)state;
	os_random(one, sizeof one);
	os_random(two, sizeof two);
	assert_memory_not_equal(one, two, sizeof one);
	os_random(one, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_errors),
		cmocka_unit_test(test_close),
		cmocka_unit_test_setup_teardown(test_read, begin, end),
		cmocka_unit_test_setup_teardown(test_write_durable, begin, end),
		cmocka_unit_test(test_write_all),
		cmocka_unit_test_setup_teardown(test_folders, begin, end),
		cmocka_unit_test_setup_teardown(test_remove_dangling_link, begin, end),
		cmocka_unit_test(test_runtime_dir),
		cmocka_unit_test(test_process),
		cmocka_unit_test_setup_teardown(test_lock, begin, end),
		cmocka_unit_test(test_random),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
