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

/* A region's row, as regions_create makes it. */
static void put(uint64_t address, uint64_t bytes)
{
	assert_int_equal(directory_run(directory,
				 "INSERT INTO regions (tenant, uid, pid, start_ticks, address,"
				 " bytes, page_bytes, data, lanes, on_loss, name, state, epoch)"
				 " VALUES ('t', 0, 1, 1, ?1, ?2, 4096, 1, 1, 1, '', 1, 1)",
				 DIRECTORY_VALUES(DIRECTORY_N(address), DIRECTORY_N(bytes))),
		SECPOOL_OK);
}

static enum secpool_error try_take(
	uint64_t base, uint64_t units, uint64_t bytes, uint64_t *ret_address)
{
	enum secpool_error error = directory_begin(directory);

	if (!error)
		error = addresses_take(directory, base, units * UNIT, bytes, ret_address);
	if (!error)
		put(*ret_address, bytes);
	return directory_finish(directory, error);
}

static uint64_t take(uint64_t units, uint64_t bytes)
{
	uint64_t address = 0;

	assert_int_equal(try_take(BASE, units, bytes, &address), SECPOOL_OK);
	return address;
}

static void give(uint64_t address, uint64_t bytes)
{
	assert_int_equal(directory_begin(directory), SECPOOL_OK);
	assert_int_equal(directory_run(directory, "DELETE FROM regions WHERE address = ?1",
				 DIRECTORY_VALUES(DIRECTORY_N(address))),
		SECPOOL_OK);
	assert_int_equal(addresses_give(directory, address, bytes), SECPOOL_OK);
	assert_int_equal(directory_finish(directory, SECPOOL_OK), SECPOOL_OK);
}

static uint64_t count_gaps(void)
{
	uint64_t count = 99;

	assert_int_equal(directory_number(directory, "SELECT COUNT(*) FROM address_gaps",
				 DIRECTORY_VALUES(), &count),
		SECPOOL_OK);
	return count;
}

static void test_ranges_have_a_gap_behind_them(void **state)
{
	(void)state;
	assert_int_equal(take(100, 4096), BASE);
	assert_int_equal(take(100, UNIT), BASE + 2 * UNIT);
	assert_int_equal(take(100, 3 * UNIT), BASE + 4 * UNIT);
	assert_int_equal(take(100, UNIT + 1), BASE + 8 * UNIT);
	assert_int_equal(take(100, UNIT), BASE + 11 * UNIT);
	assert_int_equal(count_gaps(), 1);
}

static void test_the_smallest_gap_that_fits_is_taken(void **state)
{
	uint64_t address[6];

	(void)state;
	for (int i = 0; i < 6; i++)
		address[i] = take(100, (i == 1 ? 5 : i == 3 ? 3 : 1) * UNIT);
	give(address[1], 5 * UNIT);
	give(address[3], 3 * UNIT);
	assert_int_equal(count_gaps(), 3);
	assert_int_equal(take(100, 3 * UNIT), address[3]);
	/* the hole of five units takes four, not six */
	assert_int_equal(take(100, 5 * UNIT + 1), address[5] + 2 * UNIT);
	assert_int_equal(take(100, 4 * UNIT), address[1]);
	/* one unit is left there, which has no room for a region and what stays empty behind it */
	assert_int_equal(take(100, UNIT), address[5] + 9 * UNIT);
}

/* In every order of three neighbours. */
static void test_neighbours_that_are_given_back_are_one_gap(void **state)
{
	static const int orders[][3] = {
		{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};

	(void)state;
	for (size_t i = 0; i < sizeof orders / sizeof *orders; i++) {
		uint64_t address[3];

		for (int j = 0; j < 3; j++)
			address[j] = take(8, UNIT);
		for (int j = 0; j < 3; j++)
			give(address[orders[i][j]], UNIT);
		assert_int_equal(count_gaps(), 1);
		assert_int_equal(take(8, 8 * UNIT), BASE);
		give(BASE, 8 * UNIT);
	}
}

static void test_a_full_window_is_refused(void **state)
{
	uint64_t address = 42;

	(void)state;
	assert_int_equal(try_take(BASE, 4, 4 * UNIT + 1, &address), SECPOOL_E_NO_SPACE);
	assert_int_equal(take(4, 4 * UNIT), BASE);
	assert_int_equal(try_take(BASE, 4, UNIT, &address), SECPOOL_E_NO_SPACE);
	give(BASE, 4 * UNIT);
	assert_int_equal(take(4, UNIT), BASE);
	assert_int_equal(try_take(BASE, 4, 3 * UNIT, &address), SECPOOL_E_NO_SPACE);
	assert_int_equal(address, 42);
	assert_int_equal(take(4, 2 * UNIT), BASE + 2 * UNIT);
}

static void test_bad_arguments_are_refused(void **state)
{
	uint64_t address = 42;

	(void)state;
	assert_int_equal(try_take(BASE + 4096, 8, 1, &address), SECPOOL_E_INVALID);
	assert_int_equal(try_take(BASE, 8, 0, &address), SECPOOL_E_INVALID);
	assert_int_equal(address, 42);
}

static void test_a_change_that_is_taken_back_gives_the_range_back(void **state)
{
	uint64_t address = 0;

	(void)state;
	assert_int_equal(directory_begin(directory), SECPOOL_OK);
	assert_int_equal(addresses_take(directory, BASE, 8 * UNIT, UNIT, &address), SECPOOL_OK);
	assert_int_equal(directory_finish(directory, SECPOOL_E_NO_SPACE), SECPOOL_E_NO_SPACE);
	assert_int_equal(take(8, 8 * UNIT), BASE);
}

/* The policy names another window while regions of the old one are there, inside, below and above it, and across its ends. */
static void test_another_window_keeps_clear_of_older_regions(void **state)
{
	uint64_t address = 0;

	(void)state;
	put(BASE - 8 * UNIT, UNIT);
	put(BASE - 2 * UNIT, 3 * UNIT);
	put(BASE + 10 * UNIT, UNIT);
	put(BASE + 200 * UNIT, UNIT);
	assert_int_equal(take(100, UNIT), BASE + 2 * UNIT);
	assert_int_equal(take(100, 80 * UNIT), BASE + 12 * UNIT);
	/* across its begin, and what it gives back below it is not the window's */
	give(BASE - 2 * UNIT, 3 * UNIT);
	assert_int_equal(take(100, UNIT), BASE);
	give(BASE - 8 * UNIT, UNIT);
	give(BASE + 200 * UNIT, UNIT);
	assert_int_equal(try_take(BASE, 100, 7 * UNIT, &address), SECPOOL_OK);
	assert_int_equal(address, BASE + 93 * UNIT);
	/* back to where the first one was, with what is there now */
	assert_int_equal(try_take(BASE - 100 * UNIT, 100, 90 * UNIT, &address), SECPOOL_OK);
	assert_int_equal(address, BASE - 100 * UNIT);
	assert_int_equal(try_take(BASE - 100 * UNIT, 100, 9 * UNIT, &address), SECPOOL_E_NO_SPACE);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_ranges_have_a_gap_behind_them),
		TEST(test_the_smallest_gap_that_fits_is_taken),
		TEST(test_neighbours_that_are_given_back_are_one_gap),
		TEST(test_a_full_window_is_refused),
		TEST(test_bad_arguments_are_refused),
		TEST(test_a_change_that_is_taken_back_gives_the_range_back),
		TEST(test_another_window_keeps_clear_of_older_regions),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
