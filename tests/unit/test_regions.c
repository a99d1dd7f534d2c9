/* SPDX-License-Identifier: Apache-2.0 */
/* What a tenant is charged, regions that never were live, who may report on what, and what receipts say and keep. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "keymgr/regions.h"
#include "lib/base/os.h"

#define MIB  (1ull << 20)
#define BASE 0x110000000000ull

static struct directory *directory;
static char folder[64];
static const struct extents_device devices[] = {{1, "a", 0}, {2, "b", 0}, {3, "c", 0}};

/* Within a change of its own. */
#define CHANGE(call)                                                                               \
	(directory_begin(directory) ? SECPOOL_E_STORE : directory_finish(directory, (call)))

static void set_free(uint64_t slot)
{
	assert_int_equal(directory_run(directory, "UPDATE extents SET state = ?2 WHERE slot = ?1",
				 DIRECTORY_VALUES(DIRECTORY_N(slot), DIRECTORY_N(EXTENTS_FREE))),
		SECPOOL_OK);
}

static int set_up(void **state)
{
	char path[96];

	(void)state;
	snprintf(folder, sizeof folder, "/tmp/secpool-regions-XXXXXX");
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof path, "%s/directory.db", folder);
	assert_int_equal(directory_open(path, &directory), SECPOOL_OK);
	for (uint64_t slot = 1; slot <= 3; slot++) {
		char id[8];

		snprintf(id, sizeof id, "dev%u", (unsigned)slot);
		assert_int_equal(
			directory_run(directory,
				"INSERT INTO devices (slot, id, media, bytes, domain, state, boot,"
				" file_dev, file_ino) VALUES (?1, ?2, 1, ?3, ?4, 3, '', 0, 0)",
				DIRECTORY_VALUES(DIRECTORY_N(slot), DIRECTORY_T(id),
					DIRECTORY_N(64 * MIB),
					DIRECTORY_T(devices[slot - 1].domain))),
			SECPOOL_OK);
		assert_int_equal(
			CHANGE(extents_reset_device(directory, slot, 64 * MIB)), SECPOOL_OK);
		set_free(slot);
	}
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	directory_close(directory);
	directory = NULL;
	return os_remove_tree(folder) == SECPOOL_OK ? 0 : -1;
}

/* What the region has on a device is given up, and space for it taken on others. */
static enum secpool_error replace(
	uint64_t region, uint64_t slot, const struct extents_device *on, size_t count)
{
	struct regions_row row;
	enum secpool_error error = regions_find(directory, region, &row);

	if (!error)
		error = extents_set_aside(directory, region, slot);
	return error ? error
		     : extents_fill(
			       directory, region, row.lanes, regions_lane_bytes(&row), on, count);
}

static struct regions_row create(uint64_t bytes, uint32_t copies, size_t device_count)
{
	struct regions_row row = {.bytes = bytes,
		.page_bytes = 4096,
		.data = 1,
		.lanes = copies,
		.on_loss = MSG_ON_LOSS_SIGBUS,
		.uid = 7,
		.process = {.pid = 11, .start_ticks = 22}};

	MSG_SET(row.tenant, "t");
	assert_int_equal(regions_create(directory, &row, BASE, 1ull << 40, devices, device_count),
		SECPOOL_OK);
	return row;
}

static struct regions_use used(void)
{
	struct regions_use use = {.regions = 99, .bytes = 99};

	assert_int_equal(regions_count_use(directory, "t", &use), SECPOOL_OK);
	return use;
}

static uint64_t count(const char *sql)
{
	uint64_t number = 0;

	assert_int_equal(directory_number(directory, sql, DIRECTORY_VALUES(), &number), SECPOOL_OK);
	return number;
}

static void test_quota_counts_whole_units(void **state)
{
	(void)state;
	assert_int_equal(regions_quota_bytes(1), EXTENTS_UNIT_BYTES);
	assert_int_equal(regions_quota_bytes(EXTENTS_UNIT_BYTES), EXTENTS_UNIT_BYTES);
	assert_int_equal(regions_quota_bytes(EXTENTS_UNIT_BYTES + 1), 2 * EXTENTS_UNIT_BYTES);
	assert_true(regions_quota_bytes(UINT64_MAX) == UINT64_MAX);
	assert_int_equal(used().bytes, 0);
	create(4096, 2, 3);
	assert_int_equal(used().bytes, EXTENTS_UNIT_BYTES);
	create(3 * MIB, 1, 3);
	assert_int_equal(used().bytes, EXTENTS_UNIT_BYTES + 4 * MIB);
	assert_int_equal(used().regions, 2);
}

static void test_what_is_being_released_counts(void **state)
{
	struct regions_row row = create(8 * MIB, 1, 1);
	uint8_t digest[32] = {1};
	struct extents_row extent;
	bool done = false;

	(void)state;
	assert_int_equal(regions_set_live(directory, row.id, 0), SECPOOL_OK);
	assert_int_equal(regions_release(directory, row.id, MSG_CLIENT_ACKNOWLEDGED), SECPOOL_OK);
	assert_int_equal(used().bytes, 8 * MIB);
	assert_int_equal(used().regions, 0);
	assert_int_equal(CHANGE(extents_scrub_next(directory, 1, true, &extent)), SECPOOL_OK);
	assert_int_equal(used().bytes, 8 * MIB);
	assert_int_equal(CHANGE(extents_scrub_end(directory, &extent, MSG_READBACK_MATCHED, &done)),
		SECPOOL_OK);
	assert_int_equal(regions_finish(directory, row.id, 1, "text", digest), SECPOOL_OK);
	assert_int_equal(used().bytes, 0);
}

static void test_what_is_set_aside_counts(void **state)
{
	struct regions_row row = create(8 * MIB, 1, 1);

	(void)state;
	assert_int_equal(regions_set_live(directory, row.id, 0), SECPOOL_OK);
	assert_int_equal(CHANGE(replace(row.id, 1, devices + 1, 1)), SECPOOL_OK);
	assert_int_equal(used().bytes, 16 * MIB);
	assert_int_equal(CHANGE(replace(row.id, 2, devices + 2, 1)), SECPOOL_OK);
	assert_int_equal(used().bytes, 24 * MIB);
	/* given up and not replaced: nothing beyond its copies */
	assert_int_equal(CHANGE(extents_reset_device(directory, 1, 64 * MIB)), SECPOOL_OK);
	assert_int_equal(CHANGE(extents_reset_device(directory, 2, 64 * MIB)), SECPOOL_OK);
	assert_int_equal(used().bytes, 8 * MIB);
}

static void test_undo_leaves_nothing(void **state)
{
	struct regions_row other = create(4 * MIB, 1, 1), row = create(8 * MIB, 3, 3);

	(void)state;
	assert_int_equal(regions_undo(directory, row.id), SECPOOL_OK);
	assert_int_equal(regions_find(directory, row.id, &row), SECPOOL_E_NOT_FOUND);
	assert_int_equal(regions_undo(directory, row.id), SECPOOL_E_NOT_FOUND);
	/* one free extent on each device, behind the other region's on the first */
	assert_int_equal(count("SELECT COUNT(*) FROM extents WHERE state = 2"), 3);
	assert_int_equal(count("SELECT SUM(bytes) FROM extents WHERE state = 2"), 188 * MIB);
	assert_int_equal(count("SELECT COUNT(*) FROM receipts"), 0);
	assert_int_equal(used().bytes, 4 * MIB);
	/* a live one is not undone */
	assert_int_equal(regions_set_live(directory, other.id, 0), SECPOOL_OK);
	assert_int_equal(regions_undo(directory, other.id), SECPOOL_E_NOT_FOUND);
	assert_int_equal(regions_find(directory, other.id, &other), SECPOOL_OK);
	assert_int_equal(count("SELECT COUNT(*) FROM extents WHERE region IS NOT NULL"), 1);
}

static void test_regions_of_a_process(void **state)
{
	struct os_process mine = {.pid = 11, .start_ticks = 22},
			  later = {.pid = 11, .start_ticks = 23};
	struct regions_row row;
	bool has = true;

	(void)state;
	assert_int_equal(regions_of_process(directory, &mine, &has), SECPOOL_OK);
	assert_false(has);
	row = create(4 * MIB, 1, 1);
	assert_int_equal(regions_set_live(directory, row.id, 0), SECPOOL_OK);
	assert_int_equal(regions_of_process(directory, &mine, &has), SECPOOL_OK);
	assert_true(has);
	assert_int_equal(regions_of_process(directory, &later, &has), SECPOOL_OK);
	assert_false(has);
	assert_int_equal(regions_release(directory, row.id, MSG_CLIENT_DEAD), SECPOOL_OK);
	has = true;
	assert_int_equal(regions_of_process(directory, &mine, &has), SECPOOL_OK);
	assert_false(has);
}

static bool touch(struct regions_row owner, uint64_t slot, uint64_t offset, uint64_t bytes)
{
	bool is_so = false;

	assert_int_equal(regions_touch(directory, &owner, slot, offset, bytes, &is_so), SECPOOL_OK);
	return is_so;
}

static void test_only_an_owner_touches(void **state)
{
	struct regions_row first = create(4 * MIB, 1, 1), row = create(4 * MIB, 1, 1), other = row;

	(void)state;
	assert_false(touch(row, 1, 4 * MIB, 1)); /* not live yet */
	assert_int_equal(regions_set_live(directory, first.id, 0), SECPOOL_OK);
	assert_int_equal(regions_set_live(directory, row.id, 0), SECPOOL_OK);
	assert_true(touch(row, 1, 4 * MIB, 1));
	assert_true(touch(row, 1, 8 * MIB - 1, 1));
	assert_true(touch(row, 1, 4 * MIB - 1, 2));
	assert_false(touch(row, 1, 4 * MIB - 1, 1));
	assert_false(touch(row, 1, 8 * MIB, 1));
	assert_false(touch(row, 1, UINT64_MAX, 1));
	assert_false(touch(row, 2, 4 * MIB, 1));
	assert_false(touch(row, 2, 0, 0));
	assert_true(touch(row, 1, 0, 0));
	other.id = 0; /* any of its regions */
	assert_true(touch(other, 1, 0, 1));
	other.uid++;
	assert_false(touch(other, 1, 0, 0));
	other.uid--;
	MSG_SET(other.tenant, "u");
	assert_false(touch(other, 1, 0, 0));
	MSG_SET(other.tenant, "t");
	other.process.start_ticks++;
	assert_false(touch(other, 1, 0, 0));
	/* given up, but it may still write there */
	assert_int_equal(CHANGE(replace(row.id, 1, devices + 1, 1)), SECPOOL_OK);
	assert_true(touch(row, 1, 4 * MIB, 1));
}

static void test_what_was_not_overwritten_is_unreachable(void **state)
{
	struct regions_row row = create(4 * MIB, 1, 1);

	(void)state;
	for (int outcome = MSG_READBACK_MATCHED; outcome <= MSG_READBACK_NOT_OVERWRITTEN; outcome++)
		assert_int_equal(regions_add_scrubbed(directory, row.id, (enum msg_readback)outcome,
					 1ull << (4 * outcome)),
			SECPOOL_OK);
	assert_int_equal(regions_find(directory, row.id, &row), SECPOOL_OK);
	assert_int_equal(row.scrubbed_bytes, 0x110);
	assert_int_equal(row.unreachable_bytes, 0x11000);
	assert_int_equal(row.differed, 1);
}

static void test_space_that_was_not_overwritten_is_kept_away(void **state)
{
	struct regions_row row = create(4 * MIB, 1, 1);
	struct extents_row extent;
	bool done = false;

	(void)state;
	assert_int_equal(regions_set_live(directory, row.id, 0), SECPOOL_OK);
	assert_int_equal(regions_release(directory, row.id, MSG_CLIENT_DEAD), SECPOOL_OK);
	assert_int_equal(CHANGE(extents_scrub_next(directory, 1, true, &extent)), SECPOOL_OK);
	assert_int_equal(
		CHANGE(extents_scrub_end(directory, &extent, MSG_READBACK_NOT_OVERWRITTEN, &done)),
		SECPOOL_OK);
	assert_true(done);
	assert_int_equal(
		count("SELECT state FROM extents WHERE slot = 1 AND offset = 0"), EXTENTS_DIFFERED);
	assert_int_equal(
		CHANGE(extents_scrub_next(directory, 1, false, &extent)), SECPOOL_E_NOT_FOUND);
}

static void test_old_receipts_go(void **state)
{
	uint8_t digest[32] = {1, 2, 3}, found[32];
	uint64_t number = 0;

	(void)state;
	assert_int_equal(regions_finish(directory, 1, 1, "one", digest), SECPOOL_OK);
	assert_int_equal(regions_finish(directory, 2, 2, "two", digest), SECPOOL_OK);
	assert_int_equal(
		regions_finish(directory, 3, REGIONS_RECEIPTS_KEPT, "kept", digest), SECPOOL_OK);
	assert_int_equal(count("SELECT MIN(number) FROM receipts"), 1);
	digest[0] = 9;
	assert_int_equal(
		regions_finish(directory, 4, REGIONS_RECEIPTS_KEPT + 1, "new", digest), SECPOOL_OK);
	assert_int_equal(count("SELECT MIN(number) FROM receipts"), 2);
	assert_int_equal(regions_last_receipt(directory, &number, found), SECPOOL_OK);
	assert_int_equal(number, REGIONS_RECEIPTS_KEPT + 1);
	assert_memory_equal(found, digest, 32);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_quota_counts_whole_units),
		TEST(test_what_is_being_released_counts),
		TEST(test_what_is_set_aside_counts),
		TEST(test_undo_leaves_nothing),
		TEST(test_regions_of_a_process),
		TEST(test_only_an_owner_touches),
		TEST(test_what_was_not_overwritten_is_unreachable),
		TEST(test_space_that_was_not_overwritten_is_kept_away),
		TEST(test_old_receipts_go),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
