/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "keymgr/addresses.h"
#include "lib/base/os.h"

#define UNIT ADDRESSES_ALIGN_BYTES
#define BASE 0x110000000000ull

static char folder[64];
static struct directory *directory;

static int set_up(void **state)
{
	char path[96];

	(void)state;
	snprintf(folder, sizeof folder, "/tmp/secpool-addresses-XXXXXX");
	if (!mkdtemp(folder))
		return -1;
	snprintf(path, sizeof path, "%s/directory.db", folder);
	return directory_open(path, &directory) == SECPOOL_OK ? 0 : -1;
}

static int tear_down(void **state)
{
	(void)state;
	directory_close(directory);
	return os_remove_tree(folder) == SECPOOL_OK ? 0 : -1;
}

static void put(uint64_t address, uint64_t bytes)
{
	assert_int_equal(directory_run(directory,
				 "INSERT INTO regions (tenant, uid, pid, start_ticks, address,"
				 " bytes, page_bytes, data, lanes, on_loss, name, state, epoch)"
				 " VALUES ('t', 0, 1, 1, ?1, ?2, 4096, 1, 1, 1, '', 1, 1)",
				 DIRECTORY_VALUES(DIRECTORY_N(address), DIRECTORY_N(bytes))),
		SECPOOL_OK);
}

static uint64_t find(uint64_t units, uint64_t bytes)
{
	uint64_t address = 0;

	assert_int_equal(
		addresses_find(directory, BASE, units * UNIT, bytes, &address), SECPOOL_OK);
	return address;
}

static void test_first_fit_with_gaps(void **state)
{
	(void)state;
	assert_int_equal(find(100, 4096), BASE);
	put(BASE, 4096);
	assert_int_equal(find(100, UNIT), BASE + 2 * UNIT);
	put(BASE + 2 * UNIT, 3 * UNIT);
	assert_int_equal(find(100, UNIT), BASE + 6 * UNIT);
	put(BASE + 10 * UNIT, UNIT);
	/* the hole from 6 to 10 takes three units and their gap, not four */
	assert_int_equal(find(100, 3 * UNIT), BASE + 6 * UNIT);
	assert_int_equal(find(100, 3 * UNIT + 1), BASE + 12 * UNIT);
}

static void test_released_ranges_are_used_again(void **state)
{
	(void)state;
	put(BASE, UNIT);
	put(BASE + 2 * UNIT, UNIT);
	assert_int_equal(find(100, UNIT), BASE + 4 * UNIT);
	assert_int_equal(directory_run(directory, "DELETE FROM regions WHERE address = ?1",
				 DIRECTORY_VALUES(DIRECTORY_N(BASE))),
		SECPOOL_OK);
	assert_int_equal(find(100, UNIT), BASE);
	assert_int_equal(find(100, UNIT + 1), BASE + 4 * UNIT);
}

static void test_a_full_window_is_refused(void **state)
{
	uint64_t address = 42;

	(void)state;
	assert_int_equal(find(4, 4 * UNIT), BASE);
	assert_int_equal(addresses_find(directory, BASE, 4 * UNIT, 4 * UNIT + 1, &address),
		SECPOOL_E_NO_SPACE);
	put(BASE, UNIT);
	assert_int_equal(find(4, 2 * UNIT), BASE + 2 * UNIT);
	assert_int_equal(
		addresses_find(directory, BASE, 4 * UNIT, 3 * UNIT, &address), SECPOOL_E_NO_SPACE);
	assert_int_equal(address, 42);
}

static void test_bad_arguments_are_refused(void **state)
{
	uint64_t address = 42;

	(void)state;
	assert_int_equal(
		addresses_find(directory, BASE + 4096, 8 * UNIT, 1, &address), SECPOOL_E_INVALID);
	assert_int_equal(addresses_find(directory, BASE, 8 * UNIT, 0, &address), SECPOOL_E_INVALID);
	assert_int_equal(address, 42);
}

static void test_regions_of_an_older_window_are_kept_clear_of(void **state)
{
	(void)state;
	put(BASE - 8 * UNIT, UNIT);
	assert_int_equal(find(100, UNIT), BASE);
	put(BASE - 2 * UNIT, 3 * UNIT);
	assert_int_equal(find(100, UNIT), BASE + 2 * UNIT);
	put(BASE + 200 * UNIT, UNIT);
	assert_int_equal(find(100, 90 * UNIT), BASE + 2 * UNIT);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_first_fit_with_gaps),
		TEST(test_released_ranges_are_used_again),
		TEST(test_a_full_window_is_refused),
		TEST(test_bad_arguments_are_refused),
		TEST(test_regions_of_an_older_window_are_kept_clear_of),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
