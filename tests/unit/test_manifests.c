/* SPDX-License-Identifier: Apache-2.0 */
/* The files of manifests: what was given comes back whole, what nobody can trust is refused, and a start leaves only what sealed regions have. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "keymgr/manifests.h"
#include "keymgr/sealed.h"
#include "tests/unit/extents_fixture.h"

enum { BYTES = 9 << 20 };

static char state_dir[] = "/tmp/secpool-manifests-XXXXXX";
static struct manifests *manifests;

static int memory(size_t bytes, int seals)
{
	int fd = memfd_create("manifest", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
	for (size_t at = 0; at < bytes; at += 4096)
		assert_int_equal(pwrite(fd, &at, sizeof at, (off_t)at), sizeof at);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
	return fd;
}

static void copy_one(uint64_t region, bool keep)
{
	const int seals = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW;
	struct manifests_copy copy = {.from = -1, .to = -1};
	int fd = memory(BYTES, seals);
	unsigned pieces = 0;
	bool done = false;

	assert_int_equal(manifests_check(fd, BYTES), SECPOOL_OK);
	assert_int_equal(manifests_begin(manifests, region, BYTES, &fd, &copy), SECPOOL_OK);
	assert_int_equal(fd, -1);
	for (; !done; pieces++)
		assert_int_equal(manifests_go_on(&copy, &done), SECPOOL_OK);
	assert_true(pieces > 1); /* others have their turn between */
	if (keep)
		assert_int_equal(manifests_keep(manifests, &copy), SECPOOL_OK);
	manifests_end(manifests, &copy);
}

static void copy(uint64_t region)
{
	copy_one(region, true);
}

static bool is_there(uint64_t region)
{
	int fd = -1;

	if (manifests_get(manifests, region, &fd) != SECPOOL_OK)
		return false;
	assert_int_equal(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDONLY);
	close(fd);
	return true;
}

static void test_it_comes_back(void **state)
{
	struct stat status;
	int fd = -1;

	(void)state;
	copy(3);
	assert_int_equal(manifests_get(manifests, 3, &fd), SECPOOL_OK);
	assert_int_equal(fstat(fd, &status), 0);
	assert_int_equal(status.st_size, BYTES);
	for (size_t at = 0, got; at < BYTES; at += 4096) {
		assert_int_equal(pread(fd, &got, sizeof got, (off_t)at), sizeof got);
		assert_int_equal(got, at);
	}
	close(fd);
	manifests_remove(manifests, 3);
	assert_false(is_there(3));
	manifests_remove(manifests, 3);
}

/* A whole copy that is not kept leaves the one that was there, and no file of its own. */
static void test_only_what_is_kept_counts(void **state)
{
	int first = -1, later = -1;
	struct stat before, after;
	char path[64];

	(void)state;
	copy_one(3, false);
	assert_false(is_there(3));
	copy(3);
	assert_int_equal(manifests_get(manifests, 3, &first), SECPOOL_OK);
	copy_one(3, false);
	assert_int_equal(manifests_get(manifests, 3, &later), SECPOOL_OK);
	assert_int_equal(fstat(first, &before), 0);
	assert_int_equal(fstat(later, &after), 0);
	assert_int_equal(before.st_ino, after.st_ino);
	close(first);
	close(later);
	manifests_remove(manifests, 3);
	snprintf(path, sizeof path, "%s/manifests", state_dir);
	assert_int_equal(rmdir(path), 0); /* nothing is in it */
	assert_int_equal(mkdir(path, 0700), 0);
	manifests_close(manifests);
	assert_int_equal(manifests_open(state_dir, directory, &manifests), SECPOOL_OK);
}

/* A directory that can't say whose a manifest is: nothing is removed. */
static void test_doubt_removes_nothing(void **state)
{
	(void)state;
	copy(7);
	manifests_close(manifests);
	assert_int_equal(directory_run(directory, "ALTER TABLE regions RENAME TO elsewhere",
				 DIRECTORY_VALUES()),
		SECPOOL_OK);
	assert_int_equal(manifests_open(state_dir, directory, &manifests), SECPOOL_OK);
	assert_true(is_there(7));
	assert_int_equal(directory_run(directory, "ALTER TABLE elsewhere RENAME TO regions",
				 DIRECTORY_VALUES()),
		SECPOOL_OK);
	manifests_close(manifests);
	assert_int_equal(manifests_open(state_dir, directory, &manifests), SECPOOL_OK);
	assert_false(is_there(7));
}

static void test_what_may_change_is_refused(void **state)
{
	const int all = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW;
	static const int missing[] = {F_SEAL_WRITE, F_SEAL_SHRINK, F_SEAL_GROW};
	int pipes[2], fd;

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		fd = memory(8192, all & ~missing[i]);
		assert_int_equal(manifests_check(fd, 8192), SECPOOL_E_INVALID);
		close(fd);
	}
	fd = memory(8192, all);
	assert_int_equal(manifests_check(fd, 4096), SECPOOL_E_INVALID);
	assert_int_equal(manifests_check(fd, 8193), SECPOOL_E_INVALID);
	assert_int_equal(manifests_check(fd, 8192), SECPOOL_OK);
	close(fd);
	assert_int_equal(pipe(pipes), 0);
	assert_int_equal(manifests_check(pipes[0], 0), SECPOOL_E_INVALID);
	close(pipes[0]);
	close(pipes[1]);
}

/* One that was begun and not ended, one of a region that is not sealed, and one that is. */
static void test_a_start_sweeps(void **state)
{
	struct regions_row row = {.bytes = 4 * MIB,
		.page_bytes = 4096,
		.data = 1,
		.lanes = 1,
		.on_loss = MSG_ON_LOSS_SIGBUS};
	struct manifests_copy half = {.from = -1, .to = -1};
	uint8_t root[SEALED_ROOT_BYTES] = {1};
	int fd = memory(BYTES, F_SEAL_WRITE);
	bool done = false;

	(void)state;
	scrub_all(1);
	MSG_SET(row.tenant, "t");
	assert_int_equal(regions_create(directory, &row, BASE, 1ull << 40, devices, 1), SECPOOL_OK);
	assert_int_equal(regions_set_live(directory, row.id, 5), SECPOOL_OK);
	copy(row.id);
	copy(row.id + 1);
	assert_int_equal(manifests_begin(manifests, 99, BYTES, &fd, &half), SECPOOL_OK);
	assert_int_equal(manifests_go_on(&half, &done), SECPOOL_OK);
	assert_false(done);
	assert_false(is_there(99));
	assert_int_equal(sealed_set(directory, row.id, "list", root, 9), SECPOOL_OK);
	manifests_close(manifests);
	close(half.from);
	close(half.to);
	assert_int_equal(manifests_open(state_dir, directory, &manifests), SECPOOL_OK);
	assert_true(is_there(row.id));
	assert_false(is_there(row.id + 1));
	assert_false(is_there(99));
}

static int begin(void **state)
{
	assert_int_equal(set_up(state), 0);
	assert_int_equal(manifests_open(state_dir, directory, &manifests), SECPOOL_OK);
	return 0;
}

static int end(void **state)
{
	manifests_close(manifests);
	return tear_down(state);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_it_comes_back),
		TEST(test_only_what_is_kept_counts),
		TEST(test_doubt_removes_nothing),
		TEST(test_what_may_change_is_refused),
		TEST(test_a_start_sweeps),
	};
	int failed;

	if (!mkdtemp(state_dir))
		return 1;
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	return os_remove_tree(state_dir) != SECPOOL_OK ? 1 : failed;
}
