/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/extents_fixture.h"

static void test_unscrubbed_space_is_never_handed_out(void **state)
{
	uint64_t region = 0;

	(void)state;
	assert_int_equal(use_of(1).unscrubbed, 512 * MIB);
	assert_int_equal(create(4, 1, &region), SECPOOL_E_NO_SPACE);
	assert_int_equal(region, 0);
	scrub_all(2);
	assert_int_equal(use_of(2).free, 512 * MIB);
	assert_int_equal(create(4, 1, &region), SECPOOL_OK);
	assert_int_equal(use_of(2).used, 4 * MIB);
}

static void test_copies_are_in_different_domains(void **state)
{
	uint64_t region = 0;

	(void)state;
	for (uint64_t slot = 1; slot <= 3; slot++)
		scrub_all(slot);
	assert_int_equal(create(100, 2, &region), SECPOOL_OK);
	check_copies(region, 100 * MIB, 2);
	/* larger than a device, and with a copy over two of them */
	assert_int_equal(create(600, 2, &region), SECPOOL_OK);
	check_copies(region, 600 * MIB, 2);
	assert_int_equal(create(600, 2, &region), SECPOOL_E_NO_SPACE);
	assert_int_equal(create(8, 4, &region), SECPOOL_E_NOT_ATTESTED);
	assert_non_null(strstr(err_detail(), "there are 3"));
}

static void test_all_space_can_be_used(void **state)
{
	uint64_t region = 0;

	(void)state;
	for (uint64_t slot = 1; slot <= 3; slot++)
		scrub_all(slot);
	assert_int_equal(create(768, 2, &region), SECPOOL_OK);
	check_copies(region, 768 * MIB, 2);
	assert_int_equal(use_of(1).free + use_of(2).free + use_of(3).free, 0);
}

static void test_odd_sizes_are_rounded_and_bad_ones_refused(void **state)
{
	(void)state;
	scrub_all(1);
	assert_int_equal(CHANGE(extents_take(directory, 0, 1, 0, devices, 3)), SECPOOL_E_INVALID);
	assert_int_equal(CHANGE(extents_take(directory, 0, 0, 1, devices, 3)), SECPOOL_E_INVALID);
	assert_int_equal(CHANGE(extents_take(directory, 0, 4, UINT64_MAX / 2, devices, 3)),
		SECPOOL_E_INVALID);
	assert_int_equal(use_of(1).free, 512 * MIB);
}

static void test_released_space_is_scrubbed_first(void **state)
{
	struct extents_row row;
	uint64_t region = 0;
	bool done = false;

	(void)state;
	assert_int_equal(CHANGE(extents_scrub_next(directory, 1, false, &row)), SECPOOL_OK);
	assert_int_equal(row.bytes, EXTENTS_SCRUB_BYTES);
	assert_int_equal(CHANGE(extents_scrub_next(directory, 1, true, &row)), SECPOOL_E_NOT_FOUND);
	assert_int_equal(CHANGE(extents_scrub_end(directory, &row, MSG_READBACK_MATCHED, &done)),
		SECPOOL_OK);
	assert_true(done);
	assert_int_equal(create(8, 1, &region), SECPOOL_OK);
	assert_int_equal(regions_release(directory, region, MSG_CLIENT_DEAD), SECPOOL_OK);
	assert_int_equal(use_of(1).free, 56 * MIB);
	assert_int_equal(CHANGE(extents_scrub_next(directory, 1, false, &row)), SECPOOL_OK);
	assert_int_equal(row.region, region);
	assert_int_equal(CHANGE(extents_scrub_end(directory, &row, MSG_READBACK_MATCHED, &done)),
		SECPOOL_OK);
	assert_int_equal(use_of(1).free, 64 * MIB);
	/* a second end of the same job changes nothing */
	assert_int_equal(CHANGE(extents_scrub_end(directory, &row, MSG_READBACK_MATCHED, &done)),
		SECPOOL_OK);
	assert_false(done);
}

static void test_a_restart_scrubs_again(void **state)
{
	struct extents_row row, again;
	uint64_t region = 0, left = 9;

	(void)state;
	scrub_all(1);
	assert_int_equal(create(8, 1, &region), SECPOOL_OK);
	assert_int_equal(regions_release(directory, region, MSG_CLIENT_DEAD), SECPOOL_OK);
	assert_int_equal(CHANGE(extents_scrub_next(directory, 1, true, &row)), SECPOOL_OK);
	assert_int_equal(
		CHANGE(extents_scrub_next(directory, 1, true, &again)), SECPOOL_E_NOT_FOUND);
	assert_int_equal(CHANGE(extents_restart(directory)), SECPOOL_OK);
	assert_int_equal(CHANGE(extents_scrub_next(directory, 1, true, &again)), SECPOOL_OK);
	assert_int_equal(again.id, row.id);
	assert_int_equal(regions_extents_left(directory, region, &left), SECPOOL_OK);
	assert_int_equal(left, 1);
}

static void test_differing_space_is_kept_away(void **state)
{
	struct extents_row row;
	bool done = false;

	(void)state;
	assert_int_equal(CHANGE(extents_scrub_next(directory, 1, false, &row)), SECPOOL_OK);
	assert_int_equal(CHANGE(extents_scrub_end(directory, &row, MSG_READBACK_DIFFERED, &done)),
		SECPOOL_OK);
	scrub_all(1);
	assert_int_equal(use_of(1).free, 448 * MIB);
	assert_int_equal(use_of(1).unscrubbed, 64 * MIB);
}

static void test_unreachable_space_becomes_unknown(void **state)
{
	struct regions_row row;
	uint64_t region = 0, left = 9;

	(void)state;
	scrub_all(1);
	assert_int_equal(create(8, 1, &region), SECPOOL_OK);
	assert_int_equal(regions_release(directory, region, MSG_CLIENT_DEAD), SECPOOL_OK);
	assert_int_equal(CHANGE(regions_drop_releasing(directory, 1)), SECPOOL_OK);
	assert_int_equal(regions_find(directory, region, &row), SECPOOL_OK);
	assert_int_equal(row.unreachable_bytes, 8 * MIB);
	assert_int_equal(regions_extents_left(directory, region, &left), SECPOOL_OK);
	assert_int_equal(left, 0);
	assert_int_equal(use_of(1).unscrubbed, 8 * MIB);
	scrub_all(1);
	assert_int_equal(use_of(1).free, 512 * MIB);
}

static void test_replace_takes_a_free_domain(void **state)
{
	struct extents_row rows[8];
	uint64_t region = 0, total = 0;
	size_t count = 0;

	(void)state;
	for (uint64_t slot = 1; slot <= 3; slot++)
		scrub_all(slot);
	assert_int_equal(create(100, 2, &region), SECPOOL_OK);
	assert_int_equal(CHANGE(replace(region, 1, devices + 1, 2)), SECPOOL_OK);
	check_copies(region, 100 * MIB, 2);
	assert_int_equal(extents_list(directory, region, 0, rows, 8, &count, &total), SECPOOL_OK);
	for (size_t i = 0; i < count; i++)
		assert_int_not_equal(rows[i].slot, 1);
	/* its client may still write to the old place: it stays the region's until the end */
	assert_int_equal(use_of(1).used, 100 * MIB);
	release_and_scrub(region);
	for (uint64_t slot = 1; slot <= 3; slot++)
		assert_int_equal(use_of(slot).free, 512 * MIB);
}

static void test_replace_without_space_gives_up_the_places(void **state)
{
	struct extents_row rows[8];
	uint64_t region = 0, total = 0;
	enum secpool_error error;
	size_t count = 0;

	(void)state;
	for (uint64_t slot = 1; slot <= 2; slot++)
		scrub_all(slot);
	assert_int_equal(create(100, 2, &region), SECPOOL_OK);
	assert_int_equal(directory_begin(directory), SECPOOL_OK);
	error = replace(region, 1, devices + 1, 2);
	assert_int_equal(error, SECPOOL_E_NO_SPACE);
	assert_int_equal(directory_finish(directory, SECPOOL_OK), SECPOOL_OK);
	assert_int_equal(extents_list(directory, region, 0, rows, 8, &count, &total), SECPOOL_OK);
	assert_int_equal(total, 1);
	assert_int_equal(rows[0].slot, 2);
	assert_int_equal(use_of(2).used, 100 * MIB);
}

static void test_new_media_lose_all_places(void **state)
{
	struct regions_row row;
	uint64_t region = 0;

	(void)state;
	scrub_all(1);
	assert_int_equal(create(8, 1, &region), SECPOOL_OK);
	assert_int_equal(CHANGE(regions_lose_device(directory, 1)), SECPOOL_OK);
	assert_int_equal(CHANGE(extents_reset_device(directory, 1, 512 * MIB)), SECPOOL_OK);
	assert_int_equal(regions_find(directory, region, &row), SECPOOL_OK);
	assert_int_equal(row.unreachable_bytes, 8 * MIB);
	assert_int_equal(use_of(1).unscrubbed, 512 * MIB);
}

static uint64_t bytes_in(uint64_t region, enum extents_state kind)
{
	uint64_t bytes = 0;

	assert_int_equal(directory_number(directory,
				 "SELECT IFNULL(SUM(bytes), 0) FROM extents WHERE slot = 1"
				 " AND region = ?1 AND state = ?2",
				 DIRECTORY_VALUES(DIRECTORY_N(region), DIRECTORY_N(kind)), &bytes),
		SECPOOL_OK);
	return bytes;
}

/* A client that maps the file goes on writing to it, whatever the mark says: its space must not be handed out. */
static void test_new_contents_of_one_file_keep_what_is_mapped(void **state)
{
	uint64_t live = 0, ended = 0, scrubbed = 0, next = 0;
	struct extents_row row;
	bool done = true;

	(void)state;
	scrub_all(1);
	assert_int_equal(create(8, 1, &scrubbed), SECPOOL_OK);
	assert_int_equal(create(8, 1, &live), SECPOOL_OK);
	assert_int_equal(create(8, 1, &ended), SECPOOL_OK);
	assert_int_equal(regions_release(directory, scrubbed, MSG_CLIENT_DEAD), SECPOOL_OK);
	assert_int_equal(CHANGE(extents_scrub_next(directory, 1, true, &row)), SECPOOL_OK);
	assert_int_equal(regions_release(directory, ended, MSG_CLIENT_DEAD), SECPOOL_OK);
	assert_int_equal(CHANGE(extents_set_aside_device(directory, 1, 512 * MIB)), SECPOOL_OK);
	check_cover(1, 512 * MIB);
	assert_int_equal(bytes_in(live, EXTENTS_SET_ASIDE), 8 * MIB);
	assert_int_equal(bytes_in(ended, EXTENTS_RELEASING), 8 * MIB);
	assert_int_equal(bytes_in(scrubbed, EXTENTS_RELEASING), 8 * MIB);
	assert_int_equal(use_of(1).free, 0);
	assert_int_equal(use_of(1).unscrubbed, 504 * MIB);
	/* the scrub that was under way was of the contents before */
	assert_int_equal(CHANGE(extents_scrub_end(directory, &row, MSG_READBACK_MATCHED, &done)),
		SECPOOL_OK);
	assert_false(done);
	scrub_all(1);
	assert_int_equal(use_of(1).free, 504 * MIB);
	assert_int_equal(create(512, 1, &next), SECPOOL_E_NO_SPACE);
	assert_int_equal(create(504, 1, &next), SECPOOL_OK);
	assert_int_equal(bytes_in(live, EXTENTS_SET_ASIDE), 8 * MIB);
	release_and_scrub(live);
	assert_int_equal(use_of(1).free, 8 * MIB);
}

/* A place that is released again and again does not keep others waiting; and what could not begin is chosen again. */
static void test_older_regions_are_scrubbed_first(void **state)
{
	uint64_t first = 0, older = 0, newer = 0;
	struct extents_row row, again;
	bool done = false;

	(void)state;
	scrub_all(1);
	assert_int_equal(create_on(8, 1, devices, 1, &first), SECPOOL_OK);
	assert_int_equal(create_on(8, 1, devices, 1, &older), SECPOOL_OK);
	release_and_scrub(first);
	assert_int_equal(create_on(8, 1, devices, 1, &newer),
		SECPOOL_OK); /* where the first was: before the older one */
	assert_int_equal(regions_release(directory, newer, MSG_CLIENT_DEAD), SECPOOL_OK);
	assert_int_equal(regions_release(directory, older, MSG_CLIENT_DEAD), SECPOOL_OK);
	assert_int_equal(CHANGE(extents_scrub_next(directory, 1, true, &row)), SECPOOL_OK);
	assert_int_equal(row.region, older);
	assert_int_equal(CHANGE(extents_scrub_back(directory, &row)), SECPOOL_OK);
	assert_int_equal(bytes_in(older, EXTENTS_RELEASING), 8 * MIB);
	assert_int_equal(CHANGE(extents_scrub_next(directory, 1, true, &again)), SECPOOL_OK);
	assert_int_equal(again.id, row.id);
	assert_int_equal(CHANGE(extents_scrub_end(directory, &again, MSG_READBACK_MATCHED, &done)),
		SECPOOL_OK);
	assert_true(done);
	/* one that is done with stays so */
	assert_int_equal(CHANGE(extents_scrub_back(directory, &row)), SECPOOL_OK);
	assert_int_equal(bytes_in(older, EXTENTS_RELEASING), 0);
	assert_int_equal(CHANGE(extents_scrub_next(directory, 1, true, &row)), SECPOOL_OK);
	assert_int_equal(row.region, newer);
	assert_true(row.offset < again.offset);
}

static void test_region_numbers_and_receipts(void **state)
{
	uint8_t digest[32] = {1, 2, 3}, found[32];
	uint64_t first = 0, second = 0, number = 9;
	struct regions_use use = {0};
	struct regions_row row;

	(void)state;
	scrub_all(1);
	assert_int_equal(create(4, 1, &first), SECPOOL_OK);
	assert_int_equal(regions_set_live(directory, first, 5), SECPOOL_OK);
	assert_int_equal(regions_set_live(directory, first, 5), SECPOOL_E_NOT_FOUND);
	assert_int_equal(regions_count_use(directory, "t", &use), SECPOOL_OK);
	assert_int_equal(use.bytes, 4 * MIB);
	assert_int_equal(regions_last_receipt(directory, &number, found), SECPOOL_OK);
	assert_int_equal(number, 0);
	release_and_scrub(first);
	assert_int_equal(
		regions_add_scrubbed(directory, first, MSG_READBACK_MATCHED, 5), SECPOOL_OK);
	assert_int_equal(regions_set_destroyed(directory, first, 77, 3), SECPOOL_OK);
	assert_int_equal(regions_find(directory, first, &row), SECPOOL_OK);
	assert_int_equal(row.scrubbed_bytes, 5);
	assert_int_equal(row.destroyed_ns, 77);
	assert_int_equal(row.client, MSG_CLIENT_ACKNOWLEDGED);
	assert_int_equal(regions_count_use(directory, "t", &use), SECPOOL_OK);
	assert_int_equal(use.regions, 0);
	assert_int_equal(regions_finish(directory, first, 1, "text", digest), SECPOOL_OK);
	assert_int_equal(regions_find(directory, first, &row), SECPOOL_E_NOT_FOUND);
	assert_int_equal(regions_last_receipt(directory, &number, found), SECPOOL_OK);
	assert_int_equal(number, 1);
	assert_memory_equal(found, digest, 32);
	assert_int_equal(create(4, 1, &second), SECPOOL_OK);
	assert_true(second > first);
	assert_int_equal(regions_next(directory, first, &row), SECPOOL_OK);
	assert_int_equal(row.id, second);
	assert_int_equal(row.address, BASE);
}

/* What is to be placed anew meets the other lane in one domain first, then in the other. */
static void test_a_gap_beside_two_domains(void **state)
{
	uint64_t region = 0, filler[2] = {0};

	(void)state;
	for (uint64_t slot = 1; slot <= 3; slot++)
		scrub_all(slot);
	assert_int_equal(create_on(312, 1, &devices[1], 1, &filler[0]), SECPOOL_OK);
	assert_int_equal(create_on(312, 1, &devices[2], 1, &filler[1]), SECPOOL_OK);
	assert_int_equal(create(300, 2, &region), SECPOOL_OK);
	assert_int_equal(use_of(1).used, 300 * MIB);
	for (int i = 0; i < 2; i++)
		assert_int_equal(CHANGE(extents_release(directory, filler[i])), SECPOOL_OK);
	scrub_all(2);
	scrub_all(3);
	assert_int_equal(CHANGE(replace(region, 1, &devices[1], 2)), SECPOOL_OK);
	check_copies(region, 300 * MIB, 2);
}

static bool drained(uint64_t slot)
{
	bool is = false;

	assert_int_equal(extents_drained(directory, slot, &is), SECPOOL_OK);
	return is;
}

static size_t count_rows(uint64_t region, enum extents_state state)
{
	struct extents_row rows[64];
	size_t count = 0, found = 0;
	uint64_t total = 0;

	assert_int_equal(extents_list(directory, region, 0, rows, 64, &count, &total), SECPOOL_OK);
	for (size_t i = 0; i < count; i++)
		found += rows[i].state == state;
	return found;
}

static void test_a_move(void **state)
{
	uint64_t region = 0, other = 0;

	(void)state;
	for (uint64_t slot = 1; slot <= 3; slot++)
		scrub_all(slot);
	assert_int_equal(create_on(100, 1, devices, 1, &region), SECPOOL_OK);
	assert_int_equal(create_on(500, 1, &devices[1], 1, &other), SECPOOL_OK);
	/* no room: nothing is kept */
	assert_int_equal(
		CHANGE(extents_move(directory, region, 1, &devices[1], 1)), SECPOOL_E_NO_SPACE);
	assert_int_equal(count_rows(region, EXTENTS_TARGET), 0);
	assert_int_equal(CHANGE(extents_moved(directory, region, 1)), SECPOOL_E_BUSY);
	/* on both others, and no more when it is asked again */
	assert_int_equal(CHANGE(extents_move(directory, region, 1, &devices[1], 2)), SECPOOL_OK);
	assert_int_equal(count_rows(region, EXTENTS_TARGET), 1);
	assert_int_equal(CHANGE(extents_move(directory, region, 1, &devices[1], 2)), SECPOOL_OK);
	assert_int_equal(count_rows(region, EXTENTS_TARGET), 1);
	assert_int_equal(use_of(3).used, 100 * MIB);
	assert_false(drained(1));
	/* the target is lost, and another one is found */
	assert_int_equal(CHANGE(extents_set_aside(directory, region, 3)), SECPOOL_OK);
	assert_int_equal(CHANGE(extents_moved(directory, region, 1)), SECPOOL_E_BUSY);
	assert_int_equal(CHANGE(extents_move(directory, region, 1, &devices[2], 1)), SECPOOL_OK);
	assert_int_equal(CHANGE(extents_moved(directory, region, 1)), SECPOOL_OK);
	check_copies(region, 100 * MIB, 1);
	assert_int_equal(use_of(1).used, 0);
	assert_false(drained(1));
	scrub_all(1);
	assert_true(drained(1));
	assert_int_equal(CHANGE(extents_scrub_again(directory, 1)), SECPOOL_OK);
	assert_int_equal(use_of(1).unscrubbed, 512 * MIB);
	scrub_all(1);
	assert_true(drained(1));
}

/* The old place is lost in the middle: the target is the place; and a region that ends takes both with it. */
static void test_a_move_that_is_cut_short(void **state)
{
	uint64_t region = 0;

	(void)state;
	for (uint64_t slot = 1; slot <= 3; slot++)
		scrub_all(slot);
	assert_int_equal(create_on(100, 1, devices, 1, &region), SECPOOL_OK);
	assert_int_equal(CHANGE(extents_move(directory, region, 1, &devices[1], 2)), SECPOOL_OK);
	assert_int_equal(CHANGE(replace(region, 1, &devices[1], 2)), SECPOOL_OK);
	check_copies(region, 100 * MIB, 1);
	assert_int_equal(count_rows(region, EXTENTS_TARGET), 0);
	assert_int_equal(CHANGE(extents_move(directory, region, 2, &devices[2], 1)), SECPOOL_OK);
	assert_int_equal(CHANGE(extents_release(directory, region)), SECPOOL_OK);
	for (uint64_t slot = 1; slot <= 3; slot++) {
		scrub_all(slot);
		assert_int_equal(use_of(slot).free, 512 * MIB);
	}
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_unscrubbed_space_is_never_handed_out),
		TEST(test_copies_are_in_different_domains),
		TEST(test_all_space_can_be_used),
		TEST(test_odd_sizes_are_rounded_and_bad_ones_refused),
		TEST(test_released_space_is_scrubbed_first),
		TEST(test_a_restart_scrubs_again),
		TEST(test_differing_space_is_kept_away),
		TEST(test_unreachable_space_becomes_unknown),
		TEST(test_replace_takes_a_free_domain),
		TEST(test_replace_without_space_gives_up_the_places),
		TEST(test_new_media_lose_all_places),
		TEST(test_new_contents_of_one_file_keep_what_is_mapped),
		TEST(test_older_regions_are_scrubbed_first),
		TEST(test_region_numbers_and_receipts),
		TEST(test_a_gap_beside_two_domains),
		TEST(test_a_move),
		TEST(test_a_move_that_is_cut_short),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
