/* SPDX-License-Identifier: Apache-2.0 */
/* cli/folders.c and emulated.c: what is made, what is refused, and that nothing of others' is ever removed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cmocka.h>

#include "cli/emulated.h"
#include "cli/folders.h"
#include "lib/base/os.h"

static char home[64], runtime[96], path[256];
static const char *root; /* where the homes are: on tmpfs, then on disk */

static int begin(void **state)
{
	(void)state;
	snprintf(home, sizeof home, "%s/test_cli.XXXXXX", root);
	if (!mkdtemp(home))
		return -1;
	snprintf(runtime, sizeof runtime, "%s/run", home);
	return 0;
}

static int end(void **state)
{
	(void)state;
	return os_remove_tree(home) != SECPOOL_OK;
}

static const char *in(const char *folder, const char *name)
{
	snprintf(path, sizeof path, "%s/%s", folder, name);
	return path;
}

static bool there(const char *name)
{
	struct stat found;

	return lstat(in(runtime, name), &found) == 0;
}

static void test_open_remove(void **state)
{
	bool left = true;
	struct stat found;
	int lock = -1;

	(void)state;
	assert_int_equal(folders_lock(runtime, &lock), SECPOOL_E_NOT_FOUND);
	assert_int_equal(folders_open(runtime, &lock), SECPOOL_OK);
	assert_true(there("log") && there("state"));
	assert_int_equal(stat(in(runtime, "state"), &found), 0);
	assert_int_equal(found.st_mode & 0777, 0700);
	os_close(&lock);
	assert_int_equal(folders_open(runtime, &lock), SECPOOL_OK); /* again: as it is */
	os_close(&lock);
	assert_int_equal(folders_lock(runtime, &lock), SECPOOL_OK);
	assert_int_equal(folders_remove(runtime, &left), SECPOOL_OK);
	assert_false(left);
	assert_int_not_equal(access(runtime, F_OK), 0);
	os_close(&lock);
}

static void test_found_folder_stays(void **state)
{
	bool left = true;
	int lock = -1;

	(void)state;
	assert_int_equal(mkdir(runtime, 0700), 0);
	assert_int_equal(folders_open(runtime, &lock), SECPOOL_OK);
	assert_int_equal(folders_remove(runtime, &left), SECPOOL_OK);
	os_close(&lock);
	assert_false(left);
	assert_int_equal(access(runtime, F_OK), 0);
	assert_int_equal(folders_lock(runtime, &lock), SECPOOL_E_NOT_FOUND);
}

static void test_others_folder(void **state)
{
	bool left = false;
	int lock = -1;

	(void)state;
	assert_int_equal(mkdir(runtime, 0700), 0);
	assert_int_equal(mkdir(in(runtime, "log"), 0700), 0);
	assert_int_equal(folders_open(runtime, &lock), SECPOOL_E_EXISTS);
	assert_int_equal(folders_lock(runtime, &lock), SECPOOL_E_EXISTS);
	assert_int_equal(lock, -1);
	assert_true(there("log") && !there("state") && !there(".secpool-up"));
	assert_int_equal(rmdir(in(runtime, "log")), 0);
	assert_int_equal(folders_open(runtime, &lock), SECPOOL_OK);
	assert_int_equal(os_write_file_durable(in(runtime, "mine"), "x", 1, 0600), SECPOOL_OK);
	assert_int_equal(folders_remove(runtime, &left), SECPOOL_OK);
	os_close(&lock);
	assert_true(left && there("mine"));
}

static void test_writable_by_others(void **state)
{
	int lock = -1;

	(void)state;
	assert_int_equal(mkdir(runtime, 0700), 0);
	assert_int_equal(chmod(runtime, 0777), 0);
	assert_int_equal(folders_open(runtime, &lock), SECPOOL_E_DENIED);
	assert_int_equal(lock, -1);
	assert_int_equal(folders_open(in(home, "no/such"), &lock), SECPOOL_E_NOT_FOUND);
}

static void test_devices(void **state)
{
	bool is_new[3] = {false}, left = true;
	struct stat found;
	int lock = -1;
	char *text = NULL, target[256] = "";
	size_t bytes;

	(void)state;
	assert_int_equal(folders_open(runtime, &lock), SECPOOL_OK);
	assert_int_equal(emulated_make(runtime, 2, 2 << 20, is_new), SECPOOL_OK);
	assert_true(is_new[0] && is_new[1]);
	assert_int_equal(
		os_read_file(in(runtime, "devices/dev1/identity.json"), 4096, &text, &bytes),
		SECPOOL_OK);
	assert_non_null(strstr(text, "\"dev1\""));
	assert_non_null(strstr(text, "\"domain1\""));
	assert_non_null(strstr(text, "2097152"));
	assert_non_null(strstr(text, "\"secpool-emulated-1.0\""));
	free(text);
	assert_int_equal(emulated_make(runtime, 3, 4 << 20, is_new), SECPOOL_OK);
	assert_true(!is_new[0] && !is_new[1] && is_new[2]);
	assert_int_equal(lstat(in(runtime, "devices"), &found), 0);
	assert_int_equal(S_ISLNK(found.st_mode), strcmp(root, "/dev/shm") != 0);
	if (S_ISLNK(found.st_mode))
		assert_true(readlink(path, target, sizeof target - 1) > 0);
	assert_int_equal(folders_remove(runtime, &left), SECPOOL_OK);
	os_close(&lock);
	assert_false(left);
	assert_true(!target[0] || access(target, F_OK) != 0);
}

static void test_no_space(void **state)
{
	bool is_new[64] = {false};
	struct statvfs fs;
	int lock = -1;

	(void)state;
	assert_int_equal(statvfs("/dev/shm", &fs), 0);
	assert_int_equal(folders_open(runtime, &lock), SECPOOL_OK);
	assert_int_equal(emulated_make(runtime, 2, (uint64_t)fs.f_blocks * fs.f_frsize, is_new),
		SECPOOL_E_NO_SPACE);
	assert_non_null(strstr(err_detail(), "--device-bytes"));
	assert_false(there("devices/dev0"));
	assert_int_equal(emulated_remove(runtime), SECPOOL_OK);
	assert_int_equal(emulated_remove(runtime), SECPOOL_OK);
	os_close(&lock);
}

/* /dev/shm is open to all: a folder that somebody put in our place is not used. */
static void test_planted(void **state)
{
	bool is_new[1];
	char target[256] = "";
	int lock = -1;

	(void)state;
	if (strcmp(root, "/dev/shm") == 0)
		skip();
	assert_int_equal(folders_open(runtime, &lock), SECPOOL_OK);
	assert_int_equal(emulated_make(runtime, 0, 2 << 20, is_new), SECPOOL_OK);
	assert_true(readlink(in(runtime, "devices"), target, sizeof target - 1) > 0);
	assert_int_equal(emulated_remove(runtime), SECPOOL_OK);
	assert_int_equal(mkdir(target, 0700), 0);
	assert_int_equal(chmod(target, 0777), 0);
	assert_int_equal(emulated_make(runtime, 1, 2 << 20, is_new), SECPOOL_E_DENIED);
	assert_false(there("devices"));
	assert_int_equal(rmdir(target), 0);
	assert_int_equal(symlink("/etc", target), 0);
	assert_int_equal(emulated_make(runtime, 1, 2 << 20, is_new), SECPOOL_E_DENIED);
	assert_int_equal(unlink(target), 0);
	os_close(&lock);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_open_remove, begin, end),
		cmocka_unit_test_setup_teardown(test_found_folder_stays, begin, end),
		cmocka_unit_test_setup_teardown(test_others_folder, begin, end),
		cmocka_unit_test_setup_teardown(test_writable_by_others, begin, end),
		cmocka_unit_test_setup_teardown(test_devices, begin, end),
		cmocka_unit_test_setup_teardown(test_no_space, begin, end),
		cmocka_unit_test_setup_teardown(test_planted, begin, end),
	};
	int failed;

	root = "/dev/shm";
	failed = cmocka_run_group_tests_name("on tmpfs", tests, NULL, NULL);
	root = "/var/tmp";
	return failed + cmocka_run_group_tests_name("on disk", tests, NULL, NULL);
}
