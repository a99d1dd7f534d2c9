/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The benches' swap on zram and their peers. Set-up is refused with a clear error, and leaves nothing behind, when every device is taken or no group can be made:
 * shown in a mount namespace where folders of the test stand for the kernel's, so that nothing is ever swapped to. A peer answers, hands on why it
 * failed, and its death is noticed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <dirent.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/os.h"
#include "tests/bench/peer.h"
#include "tests/bench/zram.h"

enum { LIMIT_BYTES = 64 << 20, SWAP_BYTES = 16 << 20, SKIPPED = 77 };

/* ---- the stand-ins for the kernel's folders ---- */
static void cover(const char *folder)
{
	assert_int_equal(mount("test", folder, "tmpfs", 0, "size=1M"), 0);
}

static void put(const char *path, const char *text)
{
	FILE *file = fopen(path, "we");

	assert_non_null(file);
	assert_true(fputs(text, file) >= 0);
	assert_int_equal(fclose(file), 0);
}

static void make_device(const char *name, const char *disksize)
{
	char path[64];

	snprintf(path, sizeof path, "/sys/block/%s", name);
	assert_int_equal(mkdir(path, 0755), 0);
	snprintf(path, sizeof path, "/sys/block/%s/disksize", name);
	put(path, disksize);
	snprintf(path, sizeof path, "/sys/block/%s/reset", name);
	put(path, "untouched");
}

static void assert_text(const char *path, const char *text)
{
	size_t bytes;
	char *found;

	assert_int_equal(os_read_file(path, 64, &found, &bytes), SECPOOL_OK);
	assert_string_equal(found, text);
	free(found);
}

/* How many names a folder has besides its own and its parent's. */
static unsigned count_names(const char *folder)
{
	DIR *open = opendir(folder);
	unsigned count = 0;

	assert_non_null(open);
	while (readdir(open))
		count++;
	closedir(open);
	return count - 2;
}

static int set_up(void **state)
{
	(void)state;
	cover("/sys/block");
	cover("/sys/fs/cgroup");
	return 0;
}

static int take_down(void **state)
{
	(void)state;
	return umount("/sys/fs/cgroup") | umount("/sys/block");
}

static void test_no_group_can_be_made(void **state)
{
	struct zram zram;

	(void)state;
	make_device("zram0", "0\n");
	assert_int_equal(zram_open(SWAP_BYTES, LIMIT_BYTES, &zram), SECPOOL_E_NOT_FOUND);
	assert_non_null(strstr(err_detail(), "control group"));
	assert_int_equal(count_names("/sys/fs/cgroup"), 0);
	assert_text("/sys/block/zram0/disksize", "0\n");
	assert_text("/sys/block/zram0/reset", "untouched");
	zram_close(&zram); /* of one that was not opened */
	assert_text("/sys/block/zram0/reset", "untouched");
}

/* With the kernel's own control groups, where it has them. */
static void test_every_device_is_taken(void **state)
{
	struct zram zram;
	char group[64];

	(void)state;
	assert_int_equal(umount("/sys/fs/cgroup"), 0);
	make_device("zram0", "1048576\n");
	make_device("zram1", "4096\n");
	if (zram_open(SWAP_BYTES, LIMIT_BYTES, &zram) != SECPOOL_E_NOT_FOUND)
		fail_msg("a device that is in use was taken: %s", err_detail());
	if (!strstr(err_detail(), "control group"))
		assert_non_null(strstr(err_detail(), "zram device"));
	assert_text("/sys/block/zram0/disksize", "1048576\n");
	assert_text("/sys/block/zram0/reset", "untouched");
	assert_text("/sys/block/zram1/disksize", "4096\n");
	assert_text("/sys/block/zram1/reset", "untouched");
	snprintf(group, sizeof group, "/sys/fs/cgroup/memory/secpool-bench.%d", (int)getpid());
	assert_int_not_equal(access(group, F_OK), 0);
	cover("/sys/fs/cgroup");
}

/* ---- peers ---- */
static enum secpool_error open_well(void *arg)
{
	(void)arg;
	return SECPOOL_OK;
}

static enum secpool_error open_badly(void *arg)
{
	(void)arg;
	return err_set(SECPOOL_E_NO_MEMORY, "no memory for %s", "the test");
}

/* Doubles a number; 0 is refused, 13 ends the process. */
static enum secpool_error serve(void *arg, const void *request, void *answer)
{
	int number, *calls = arg;

	memcpy(&number, request, sizeof number);
	if (number == 13)
		_exit(1);
	if (number == 0)
		return err_set(SECPOOL_E_INVALID, "call %d: zero", *calls);
	++*calls;
	number *= 2;
	memcpy(answer, &number, sizeof number);
	return SECPOOL_OK;
}

static enum secpool_error ask(struct peer *peer, int number, int *ret_number)
{
	return peer_ask(peer, &number, sizeof number, ret_number, sizeof *ret_number);
}

static void test_peer_answers(void **state)
{
	int calls = 0, number = 0;
	struct peer_work work = {.open = open_well, .serve = serve, .arg = &calls};
	struct peer first, second;

	(void)state;
	assert_int_equal(peer_start(&first, &work, 0), SECPOOL_OK);
	assert_int_equal(peer_start(&second, &work, 0), SECPOOL_OK);
	assert_int_equal(ask(&first, 21, &number), SECPOOL_OK);
	assert_int_equal(number, 42);
	assert_int_equal(calls, 0); /* the peer's memory is its own */
	assert_int_equal(ask(&first, 0, &number), SECPOOL_E_INVALID);
	assert_string_equal(err_detail(), "call 1: zero");
	assert_int_equal(number, 42);
	peer_stop(&first); /* although the second has a copy of its socket */
	assert_int_equal(first.pid, 0);
	peer_stop(&first);
	assert_int_equal(ask(&second, 4, &number), SECPOOL_OK);
	assert_int_equal(number, 8);
	peer_stop(&second);
}

static void test_peer_dies(void **state)
{
	int calls = 0, number = 7;
	char large[PEER_MESSAGE_BYTES + 1] = {0};
	struct peer_work work = {.open = open_well, .serve = serve, .arg = &calls};
	struct peer peer;

	(void)state;
	assert_int_equal(peer_start(&peer, &work, 0), SECPOOL_OK);
	assert_int_equal(
		peer_ask(&peer, large, sizeof large, &number, sizeof number), SECPOOL_E_LIMIT);
	assert_int_equal(ask(&peer, 13, &number), SECPOOL_E_CLOSED);
	assert_int_equal(ask(&peer, 1, &number), SECPOOL_E_CLOSED);
	assert_int_equal(number, 7);
	peer_stop(&peer);
	work.open = open_badly;
	assert_int_equal(peer_start(&peer, &work, 0), SECPOOL_E_NO_MEMORY);
	assert_string_equal(err_detail(), "no memory for the test");
	assert_int_equal(peer.pid, 0);
}

/* The keeper's refusal comes through, and the work is never begun. */
static void test_peer_without_swap(void **state)
{
	int calls = 0;
	struct peer_work work = {.open = open_badly, .serve = serve, .arg = &calls};
	struct peer peer;

	(void)state;
	make_device("zram0", "1048576\n");
	assert_int_equal(peer_start(&peer, &work, LIMIT_BYTES), SECPOOL_E_NOT_FOUND);
	assert_int_equal(peer.pid, 0);
	assert_text("/sys/block/zram0/disksize", "1048576\n");
	assert_int_equal(count_names("/sys/fs/cgroup"), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_no_group_can_be_made, set_up, take_down),
		cmocka_unit_test_setup_teardown(test_every_device_is_taken, set_up, take_down),
		cmocka_unit_test_setup_teardown(test_peer_without_swap, set_up, take_down),
		cmocka_unit_test(test_peer_answers),
		cmocka_unit_test(test_peer_dies),
	};

	if (geteuid() != 0 || unshare(CLONE_NEWNS) != 0 ||
		mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) {
		printf("a mount namespace of its own is not to be had (root is needed)\n");
		return SKIPPED;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
