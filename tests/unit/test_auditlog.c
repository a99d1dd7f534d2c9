/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The audit's file: killed with -9 at each step of an append and of an anchor, every acknowledged record is there afterwards and the chain goes on; a full disk, a file that can't be
 * written and a sync that fails refuse the record. timeout: 120
 */
#include "tests/unit/audit_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "enclave/secmem.h"
#include "keymgr/auditlog.h"
#include "lib/base/os.h"

/* Where the next append is stopped, or fails. */
enum step { NOWHERE, BEFORE_WRITE, HALF_WRITTEN, WRITTEN, BEFORE_SYNC, SYNCED, SYNC_FAILS, STEPS };

static enum step step;
static char folder[64];
static struct auditlog *file;

enum secpool_error __real_os_write_all(int fd, const void *bytes, size_t count);
enum secpool_error __wrap_os_write_all(int fd, const void *bytes, size_t count);
int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);

static void stop_at(enum step here)
{
	if (step == here)
		raise(SIGKILL);
}

enum secpool_error __wrap_os_write_all(int fd, const void *bytes, size_t count)
{
	enum secpool_error error;

	stop_at(BEFORE_WRITE);
	if (step == HALF_WRITTEN && __real_os_write_all(fd, bytes, count / 2) == SECPOOL_OK)
		stop_at(HALF_WRITTEN);
	error = __real_os_write_all(fd, bytes, count);
	stop_at(WRITTEN);
	return error;
}

int __wrap_fdatasync(int fd)
{
	int result;

	stop_at(BEFORE_SYNC);
	if (step == SYNC_FAILS) {
		errno = EIO;
		return -1;
	}
	result = __real_fdatasync(fd);
	stop_at(SYNCED);
	return result;
}

static void open_all(bool fresh)
{
	audit_init(&audit, &signer);
	assert_int_equal(auditlog_open(folder, &file), SECPOOL_OK);
	assert_int_equal(audit_resume(&audit, folder, fresh), SECPOOL_OK);
	audit.sink = auditlog_keep;
	audit.sink_arg = file;
}

static int set_up(void **state)
{
	(void)state;
	step = NOWHERE;
	snprintf(folder, sizeof folder, "/tmp/secpool-auditlog-XXXXXX");
	if (!mkdtemp(folder))
		return -1;
	make_signer(0);
	open_all(true);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	step = NOWHERE;
	auditlog_close(file);
	free_signer();
	assert_int_equal(os_remove_tree(folder), SECPOOL_OK);
	return 0;
}

static enum secpool_error add(const char *detail)
{
	const struct audit_entry entry = {
		.kind = audit.count == 0 ? AUDIT_PROVISIONED : AUDIT_UNSEALED, .detail = detail};

	return audit_keep(&audit, &entry);
}

/* The file as it is on disk, with the anchor of now: good, and so many records. */
static uint64_t records_on_disk(void)
{
	char path[96], anchor[AUDIT_ANCHOR_BYTES], *text = NULL;
	struct audit_report report;
	size_t bytes = 0;

	snprintf(path, sizeof path, "%s/audit", folder);
	assert_int_equal(os_read_file(path, 1 << 20, &text, &bytes), SECPOOL_OK);
	assert_int_equal(audit_anchor(&audit, anchor), SECPOOL_OK);
	if (check_log(text, bytes, anchor, NULL, NULL, &report))
		fail_msg("%s", err_detail());
	free(text);
	return report.records;
}

/* This program anew, since secret memory does not come through a fork; its status, as of wait. */
static int run_again(const char *what)
{
	int status = 0;
	pid_t child = fork();

	assert_true(child >= 0);
	if (child == 0) {
		execl("/proc/self/exe", "test_auditlog", what, folder, (char *)NULL);
		_exit(126);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	return status;
}

/* In the program that is killed: a record that is acknowledged, and one that is not. */
static int append_two(enum step at)
{
	open_all(false);
	if (add("before"))
		return 1;
	step = at;
	return add("killed") ? 2 : 3;
}

static void killed_at_each_step(void **state)
{
	uint64_t acknowledged = 0;
	int status;

	(void)state;
	for (int at = BEFORE_WRITE; at <= SYNCED; at++) {
		char number[16];

		snprintf(number, sizeof number, "%d", at);
		status = run_again(number);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
		auditlog_close(file);
		open_all(false);
		/* what was written whole may be there; what was acknowledged is */
		assert_in_range(
			audit.count, acknowledged + 1, acknowledged + (at >= WRITTEN ? 2 : 1));
		if (at >= WRITTEN)
			assert_int_equal(audit.count, acknowledged + 2);
		assert_int_equal(add("after"), SECPOOL_OK);
		acknowledged = audit.count;
		assert_int_equal(records_on_disk(), acknowledged);
	}
}

static void rest_of_a_record_is_cut(void **state)
{
	static const char zeros[5000];
	char path[96];
	int fd;

	(void)state;
	assert_int_equal(add("one"), SECPOOL_OK);
	snprintf(path, sizeof path, "%s/audit", folder);
	for (size_t bytes = 1; bytes < sizeof zeros; bytes += 1249) {
		auditlog_close(file);
		fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
		assert_true(fd >= 0);
		assert_int_equal(write(fd, zeros, bytes), bytes);
		close(fd);
		open_all(false);
		assert_int_equal(audit.count, 1);
	}
	assert_int_equal(records_on_disk(), 1);
	/* a file without any line end is all rest */
	assert_int_equal(truncate(path, 40), 0);
	auditlog_close(file);
	open_all(false);
	assert_int_equal(audit.count, 0);
}

static void failed_sync_ends_it(void **state)
{
	(void)state;
	assert_int_equal(add("one"), SECPOOL_OK);
	step = SYNC_FAILS;
	assert_int_not_equal(add("two"), SECPOOL_OK);
	step = NOWHERE;
	/* nobody knows what is on disk: refused until the next start */
	assert_int_equal(add("three"), SECPOOL_E_STORE);
	assert_int_equal(audit.count, 1);
	auditlog_close(file);
	open_all(false);
	assert_int_equal(add("four"), SECPOOL_OK);
	assert_int_equal(records_on_disk(), audit.count);
}

/* In a process with mounts of its own: a tmpfs of eight pages. Its exit status. */
static int fill_small_disk(void)
{
	static const char page[4096];
	char path[96];
	uint64_t count;
	int fd, tries = 0;

	if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
		mount("none", folder, "tmpfs", 0, "size=32k") != 0)
		return 77;
	open_all(true);
	if (add("one"))
		return 1;
	snprintf(path, sizeof path, "%s/filler", folder);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	while (write(fd, page, sizeof page) > 0)
		;
	/* there may be room in the last page of the file */
	while (add("more") == SECPOOL_OK)
		if (++tries > 100)
			return 2;
	if (!strstr(err_detail(), "audit record can't be kept") || !strstr(err_detail(), "space"))
		return 3;
	count = audit.count;
	if (records_on_disk() != count)
		return 4;
	if (ftruncate(fd, 0) != 0 || add("room again") || records_on_disk() != count + 1)
		return 5;
	auditlog_close(file);
	open_all(false);
	return audit.count == count + 1 ? 0 : 6;
}

static void full_disk_refuses(void **state)
{
	int status = run_again("small-disk");

	(void)state;
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		skip();
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* A file that may only be read; a folder that is not there. */
static void unwritable_is_refused(void **state)
{
	struct auditlog *other = NULL;
	char path[96];

	(void)state;
	assert_int_equal(auditlog_open("/tmp/secpool-no-such-folder", &other), SECPOOL_E_NOT_FOUND);
	snprintf(path, sizeof path, "%s/audit", folder);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_not_equal(auditlog_open(folder, &other), SECPOOL_OK);
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(symlink("/dev/null", path), 0);
	assert_int_not_equal(auditlog_open(folder, &other), SECPOOL_OK);
	assert_null(other);
	assert_int_equal(auditlog_keep(NULL, "x", true), SECPOOL_E_STORE);
}

int main(int argc, char **argv)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(killed_at_each_step),
		TEST(rest_of_a_record_is_cut),
		TEST(failed_sync_ends_it),
		TEST(full_disk_refuses),
		TEST(unwritable_is_refused),
	};

	if (secmem_init(SECMEM_ALLOW_LOCKED) != SECPOOL_OK)
		return 1;
	if (argc == 3) {
		snprintf(folder, sizeof folder, "%s", argv[2]);
		make_signer(0);
		return strcmp(argv[1], "small-disk") == 0 ? fill_small_disk()
							  : append_two((enum step)atoi(argv[1]));
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
