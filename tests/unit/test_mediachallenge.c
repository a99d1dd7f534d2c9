/* SPDX-License-Identifier: Apache-2.0 */
/* The challenge by way of the media: the device reads what the host wrote, on these media and no others; media that went are an error, never a crash. Devdax devices: tests/vm. */
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "hotplug/mediachallenge.h"
#include "lib/base/guarded_copy.h"
#include "lib/base/os.h"

enum { CAPACITY = 4 << 20 };

static char folder[64], path[128];
static const uint8_t A[MEDIA_CHALLENGE_BYTES] = "the first challenge, 32 bytes..",
		     B[MEDIA_CHALLENGE_BYTES] = "the second one, also 32 bytes..";

static int make(void)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)media_bytes(true, CAPACITY)), 0);
	return fd;
}

static int set_up(void **state)
{
	(void)state;
	snprintf(folder, sizeof folder, "/dev/shm/secpool-challenge-XXXXXX");
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof path, "%s/media", folder);
	return guarded_copy_install() ? -1 : 0;
}

static int tear_down(void **state)
{
	(void)state;
	return os_remove_tree(folder) ? -1 : 0;
}

static void device_reads_what_the_host_wrote(void **state)
{
	uint8_t got[MEDIA_CHALLENGE_BYTES], control[4096], expected[4096] = {0};
	int fd = make(), other;

	(void)state;
	assert_int_equal(mediachallenge_store(fd, CAPACITY, A), SECPOOL_OK);
	assert_int_equal(mediachallenge_read(folder, CAPACITY, got), SECPOOL_OK);
	assert_memory_equal(got, A, sizeof got);
	assert_int_equal(mediachallenge_store(fd, CAPACITY, B), SECPOOL_OK);
	assert_int_equal(mediachallenge_read(folder, CAPACITY, got), SECPOOL_OK);
	assert_memory_equal(got, B, sizeof got);
	/* nothing else of the control area was touched */
	assert_int_equal(pread(fd, control, sizeof control, CAPACITY), sizeof control);
	memcpy(expected + MEDIA_CHALLENGE_AT, B, sizeof B);
	assert_memory_equal(control, expected, sizeof control);
	/* the device has other media than the host has in hand */
	assert_int_equal(unlink(path), 0);
	other = make();
	assert_int_equal(mediachallenge_store(fd, CAPACITY, A), SECPOOL_OK);
	assert_int_equal(mediachallenge_read(folder, CAPACITY, got), SECPOOL_OK);
	assert_memory_not_equal(got, A, sizeof got);
	os_close(&other);
	os_close(&fd);
}

static void media_that_are_gone(void **state)
{
	uint8_t got[MEDIA_CHALLENGE_BYTES];
	int fd = make(), pipes[2];

	(void)state;
	memset(got, 0x77, sizeof got);
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_int_equal(mediachallenge_store(fd, CAPACITY, A), SECPOOL_E_DEVICE_GONE);
	assert_int_equal(mediachallenge_read(folder, CAPACITY, got), SECPOOL_E_DEVICE_GONE);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(mediachallenge_read(folder, CAPACITY, got), SECPOOL_E_NOT_FOUND);
	os_close(&fd);
	assert_int_equal(mediachallenge_store(fd, CAPACITY, A), SECPOOL_E_SYSTEM);
	assert_int_equal(pipe(pipes), 0);
	assert_int_equal(mediachallenge_store(pipes[1], CAPACITY, A), SECPOOL_E_INVALID);
	for (size_t i = 0; i < sizeof got; i++)
		assert_int_equal(got[i], 0x77);
	os_close(&pipes[0]);
	os_close(&pipes[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			device_reads_what_the_host_wrote, set_up, tear_down),
		cmocka_unit_test_setup_teardown(media_that_are_gone, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
