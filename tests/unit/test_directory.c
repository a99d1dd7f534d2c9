/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "keymgr/directory.h"
#include "lib/base/os.h"

static char folder[64], path[96];
static struct directory *directory;

/* A table of the test's own: a text that may not repeat, and bytes. */
static enum secpool_error make_table(void)
{
	return directory_run(directory,
		"CREATE TABLE IF NOT EXISTS tenants (name TEXT PRIMARY KEY, wrapped BLOB NOT NULL)",
		DIRECTORY_VALUES());
}

static int set_up(void **state)
{
	(void)state;
	snprintf(folder, sizeof folder, "/tmp/secpool-directory-XXXXXX");
	if (!mkdtemp(folder))
		return -1;
	snprintf(path, sizeof path, "%s/directory.db", folder);
	return directory_open(path, &directory) || make_table() ? -1 : 0;
}

static int tear_down(void **state)
{
	(void)state;
	directory_close(directory);
	directory = NULL;
	return os_remove_tree(folder) == SECPOOL_OK ? 0 : -1;
}

static enum secpool_error add_tenant(const char *name, const void *wrapped, size_t count)
{
	return directory_run(directory, "INSERT INTO tenants (name, wrapped) VALUES (?1, ?2)",
		DIRECTORY_VALUES(DIRECTORY_T(name), DIRECTORY_B(wrapped, count)));
}

static uint64_t count_tenants(void)
{
	uint64_t count = 99;

	assert_int_equal(directory_number(directory, "SELECT COUNT(*) FROM tenants",
				 DIRECTORY_VALUES(), &count),
		SECPOOL_OK);
	return count;
}

static void test_settings_protect_the_store(void **state)
{
	struct stat status;
	uint64_t value = 0;

	(void)state;
	assert_int_equal(stat(path, &status), 0);
	assert_int_equal(status.st_mode & 0777, 0600);
	assert_int_equal(
		directory_number(directory, "PRAGMA synchronous", DIRECTORY_VALUES(), &value), 0);
	assert_int_equal(value, 2);
	assert_int_equal(
		directory_number(directory, "PRAGMA secure_delete", DIRECTORY_VALUES(), &value), 0);
	assert_int_equal(value, 1);
	assert_int_equal(
		directory_number(directory, "PRAGMA foreign_keys", DIRECTORY_VALUES(), &value), 0);
	assert_int_equal(value, 1);
}

static void test_a_damaged_file_is_refused_and_named(void **state)
{
	struct directory *other = NULL;
	char bad[96];

	(void)state;
	snprintf(bad, sizeof bad, "%s/bad.db", folder);
	assert_int_equal(os_write_file_durable(bad, "this is no database, only text", 30, 0600), 0);
	assert_int_equal(directory_open(bad, &other), SECPOOL_E_STORE);
	assert_null(other);
	assert_non_null(strstr(err_detail(), bad));
	snprintf(bad, sizeof bad, "%s/missing/x.db", folder);
	assert_int_equal(directory_open(bad, &other), SECPOOL_E_STORE);
	assert_non_null(strstr(err_detail(), bad));
}

static void test_another_version_is_refused(void **state)
{
	struct directory *other = NULL;

	(void)state;
	assert_int_equal(
		directory_run(directory, "PRAGMA user_version = 8", DIRECTORY_VALUES()), 0);
	assert_int_equal(directory_open(path, &other), SECPOOL_E_STORE);
	assert_non_null(strstr(err_detail(), "version 8"));
	assert_null(other);
}

static void test_values_come_back(void **state)
{
	static const uint8_t wrapped[] = {0, 1, 2, 0xff, 0};
	struct directory_rows *rows = NULL;
	enum secpool_error error = SECPOOL_OK;
	uint8_t found[8] = {0};
	char text[4];

	(void)state;
	assert_int_equal(add_tenant("alice", wrapped, sizeof wrapped), SECPOOL_OK);
	assert_int_equal(directory_changes(directory), 1);
	assert_int_equal(
		directory_query(directory, "SELECT name, wrapped, ?1 FROM tenants WHERE name = ?2",
			DIRECTORY_VALUES(DIRECTORY_N(UINT64_MAX - 5), DIRECTORY_T("alice")), &rows),
		SECPOOL_OK);
	assert_true(directory_next(rows, &error));
	directory_get_text(rows, 0, text, sizeof text);
	assert_string_equal(text, "ali");
	assert_int_equal(directory_get_bytes(rows, 1, found, sizeof found), sizeof wrapped);
	assert_memory_equal(found, wrapped, sizeof wrapped);
	assert_int_equal(directory_get_bytes(rows, 1, found, 2), 0);
	assert_true(directory_get_number(rows, 2) == UINT64_MAX - 5);
	assert_false(directory_next(rows, &error));
	assert_int_equal(error, SECPOOL_OK);
	directory_done(rows);
	directory_done(NULL);
}

static void test_errors_have_their_codes(void **state)
{
	uint64_t number = 42;

	(void)state;
	assert_int_equal(directory_run(directory, "NO SQL", DIRECTORY_VALUES()), SECPOOL_E_STORE);
	assert_int_equal(add_tenant("bob", "x", 1), SECPOOL_OK);
	assert_int_equal(add_tenant("bob", "y", 1), SECPOOL_E_EXISTS);
	assert_int_equal(
		directory_number(directory, "SELECT 1 WHERE 0", DIRECTORY_VALUES(), &number),
		SECPOOL_E_NOT_FOUND);
	assert_int_equal(number, 42);
}

static void test_a_failed_change_leaves_nothing(void **state)
{
	bool part = false;

	(void)state;
	assert_int_equal(directory_begin(directory), SECPOOL_OK);
	assert_int_equal(directory_begin(directory), SECPOOL_E_STORE);
	assert_int_equal(add_tenant("carol", "x", 1), SECPOOL_OK);
	assert_int_equal(directory_finish(directory, SECPOOL_E_NO_SPACE), SECPOOL_E_NO_SPACE);
	assert_int_equal(count_tenants(), 0);
	assert_int_equal(directory_begin(directory), SECPOOL_OK);
	assert_int_equal(add_tenant("dave", "x", 1), SECPOOL_OK);
	assert_int_equal(directory_enter(directory, &part), SECPOOL_OK);
	assert_true(part);
	assert_int_equal(add_tenant("erin", "x", 1), SECPOOL_OK);
	assert_int_equal(directory_end(directory, part, SECPOOL_E_QUOTA), SECPOOL_E_QUOTA);
	assert_int_equal(directory_enter(directory, &part), SECPOOL_OK);
	assert_int_equal(add_tenant("frank", "x", 1), SECPOOL_OK);
	assert_int_equal(directory_end(directory, part, SECPOOL_OK), SECPOOL_OK);
	assert_int_equal(directory_finish(directory, SECPOOL_OK), SECPOOL_OK);
	assert_int_equal(count_tenants(), 2);
	/* with no change open it is one of its own */
	assert_int_equal(directory_enter(directory, &part), SECPOOL_OK);
	assert_false(part);
	assert_int_equal(add_tenant("gina", "x", 1), SECPOOL_OK);
	assert_int_equal(directory_end(directory, part, SECPOOL_E_QUOTA), SECPOOL_E_QUOTA);
	assert_int_equal(count_tenants(), 2);
}

static void test_a_killed_writer_leaves_whole_changes(void **state)
{
	pid_t child;
	int status;

	(void)state;
	directory_close(directory);
	directory = NULL;
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		if (directory_open(path, &directory) || add_tenant("kept", "x", 1) ||
			directory_begin(directory) || add_tenant("torn", "x", 1))
			_exit(1);
		kill(getpid(), SIGKILL);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(directory_open(path, &directory), SECPOOL_OK);
	assert_int_equal(count_tenants(), 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_settings_protect_the_store),
		TEST(test_a_damaged_file_is_refused_and_named),
		TEST(test_another_version_is_refused),
		TEST(test_values_come_back),
		TEST(test_errors_have_their_codes),
		TEST(test_a_failed_change_leaves_nothing),
		TEST(test_a_killed_writer_leaves_whole_changes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
