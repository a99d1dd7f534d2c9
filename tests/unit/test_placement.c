/* SPDX-License-Identifier: Apache-2.0 */
/* Which devices and which of their free extents are taken: tiers first, then free space; the smallest extent that fits. */
#include "tests/unit/extents_fixture.h"

/* The lowest tiers in which a region fits, as far as different domains allow; more free space counts only within a tier. */
static void test_lower_tiers_are_taken_first(void **state)
{
	static const struct extents_device tiers[] = {
		{1, "left", 1}, {2, "middle", 0}, {3, "right", 2}};
	uint64_t region = 0;

	(void)state;
	for (uint64_t slot = 1; slot <= 3; slot++)
		scrub_all(slot);
	assert_int_equal(create_on(100, 1, tiers, 3, &region), SECPOOL_OK);
	assert_int_equal(create_on(100, 1, tiers, 3, &region), SECPOOL_OK);
	assert_int_equal(use_of(2).used, 200 * MIB);
	assert_int_equal(create_on(100, 2, tiers, 3, &region), SECPOOL_OK);
	check_copies(region, 100 * MIB, 2);
	assert_int_equal(use_of(2).used, 300 * MIB);
	assert_int_equal(use_of(1).used, 100 * MIB);
	/* 212 MiB are left in tier 0: the rest of it is in tier 1 */
	assert_int_equal(create_on(300, 1, tiers, 3, &region), SECPOOL_OK);
	check_copies(region, 300 * MIB, 1);
	assert_int_equal(use_of(2).free, 0);
	assert_int_equal(use_of(1).used, 188 * MIB);
	assert_int_equal(use_of(3).used, 0);
	/* all that is left, in whatever tier */
	assert_int_equal(create_on(324, 2, tiers, 3, &region), SECPOOL_OK);
	check_copies(region, 324 * MIB, 2);
	assert_int_equal(use_of(1).free, 0);
	assert_int_equal(use_of(3).used, 324 * MIB);
	assert_int_equal(create_on(190, 1, tiers, 3, &region), SECPOOL_E_NO_SPACE);
	assert_non_null(strstr(err_detail(), "188 MiB free"));
}

/* Two devices of one domain, of different tiers: copies keep apart, though the fast one has room for both. */
static void test_tiers_within_a_domain(void **state)
{
	static const struct extents_device tiers[] = {
		{1, "left", 0}, {2, "left", 1}, {3, "right", 1}};
	uint64_t region = 0;

	(void)state;
	for (uint64_t slot = 1; slot <= 3; slot++)
		scrub_all(slot);
	assert_int_equal(create_on(64, 2, tiers, 3, &region), SECPOOL_OK);
	assert_int_equal(use_of(1).used, 64 * MIB);
	assert_int_equal(use_of(2).used, 0);
	assert_int_equal(use_of(3).used, 64 * MIB);
	/* what is lost on the far one goes to where no other copy is: no other domain has a device */
	assert_int_equal(directory_begin(directory), SECPOOL_OK);
	assert_int_equal(replace(region, 3, tiers, 2), SECPOOL_E_NO_SPACE);
	assert_int_equal(directory_finish(directory, SECPOOL_OK), SECPOOL_OK);
	assert_int_equal(use_of(2).used, 0);
}

/* What is placed again, or moved, takes the lowest tier as well. */
static void test_a_gap_takes_the_lowest_tier(void **state)
{
	static const struct extents_device tiers[] = {
		{1, "left", 0}, {2, "middle", 2}, {3, "right", 1}};
	uint64_t region = 0, other = 0;

	(void)state;
	for (uint64_t slot = 1; slot <= 3; slot++)
		scrub_all(slot);
	assert_int_equal(create_on(100, 1, tiers, 3, &region), SECPOOL_OK);
	assert_int_equal(create_on(200, 1, &tiers[2], 1, &other), SECPOOL_OK);
	assert_int_equal(CHANGE(replace(region, 1, &tiers[1], 2)), SECPOOL_OK);
	assert_int_equal(use_of(3).used, 300 * MIB);
	assert_int_equal(use_of(2).used, 0);
	assert_int_equal(CHANGE(extents_move(directory, other, 3, tiers, 2)), SECPOOL_OK);
	assert_int_equal(use_of(1).used, 300 * MIB);
	assert_int_equal(use_of(2).used, 0);
}

/* A hole that fits is filled before a larger one is cut. */
static void test_the_smallest_extent_that_fits_is_taken(void **state)
{
	uint64_t region[4], next = 0;
	struct extents_row row;
	uint64_t total = 0;
	size_t count = 0;

	(void)state;
	scrub_all(1);
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(
			create_on(i % 2 ? 8 : 40 + 20 * i, 1, devices, 1, &region[i]), SECPOOL_OK);
	release_and_scrub(region[0]);
	release_and_scrub(region[2]);
	assert_int_equal(use_of(1).free_extents, 3);
	assert_int_equal(use_of(1).largest_free, (512 - 40 - 8 - 80 - 8) * MIB);
	assert_int_equal(create_on(60, 1, devices, 1, &next), SECPOOL_OK);
	assert_int_equal(extents_list(directory, next, 0, &row, 1, &count, &total), SECPOOL_OK);
	assert_int_equal(row.offset, 48 * MIB);
	assert_int_equal(total, 1);
	/* more than any has: the largest first */
	assert_int_equal(create_on(400, 1, devices, 1, &next), SECPOOL_OK);
	assert_int_equal(extents_list(directory, next, 0, &row, 1, &count, &total), SECPOOL_OK);
	assert_int_equal(total, 2);
	assert_int_equal(row.offset, 136 * MIB);
	assert_int_equal(use_of(1).free_extents, 2);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_lower_tiers_are_taken_first),
		TEST(test_tiers_within_a_domain),
		TEST(test_a_gap_takes_the_lowest_tier),
		TEST(test_the_smallest_extent_that_fits_is_taken),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
