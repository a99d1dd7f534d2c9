/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The running totals and free lists of the directory (keymgr/totals.h) against recounts, through thousands of random changes, refused ones and reopenings among them; and the plans
 * of all statements that were run meanwhile: none may read a table from its begin to its end.
 */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "keymgr/addresses.h"
#include "keymgr/regions.h"
#include "lib/base/os.h"

#define MIB	     (1ull << 20)
#define BASE	     0x110000000000ull
#define WINDOW_BYTES (2048 * MIB)
#define DEVICE_BYTES (256 * MIB)
enum { DEVICES = 5, TURNS = 5000, REGIONS_MOST = 200, STATEMENTS_MOST = 256, TENANTS = 3 };

static char folder[PATH_MAX], path[PATH_MAX + 16];
static struct directory *directory;
static const struct extents_device devices[DEVICES] = {
	{1, "a", 0}, {2, "a", 1}, {3, "b", 0}, {4, "c", 0}, {5, "d", 1}};
static uint64_t regions[REGIONS_MOST], seed = 20261128;
static size_t region_count;
static const char *statements[STATEMENTS_MOST];
static size_t statement_count;

static void note(const char *sql)
{
	for (size_t i = 0; i < statement_count; i++)
		if (statements[i] == sql)
			return;
	assert_true(statement_count < STATEMENTS_MOST);
	statements[statement_count++] = sql;
}

/* What keymgrd's code asks goes by here. */
enum secpool_error __real_directory_query(struct directory *d, const char *sql,
	const struct directory_value *values, struct directory_rows **ret_rows);
enum secpool_error __real_directory_run(
	struct directory *d, const char *sql, const struct directory_value *values);
enum secpool_error __real_directory_number(struct directory *d, const char *sql,
	const struct directory_value *values, uint64_t *ret_number);
enum secpool_error __wrap_directory_query(struct directory *d, const char *sql,
	const struct directory_value *values, struct directory_rows **ret_rows);
enum secpool_error __wrap_directory_run(
	struct directory *d, const char *sql, const struct directory_value *values);
enum secpool_error __wrap_directory_number(struct directory *d, const char *sql,
	const struct directory_value *values, uint64_t *ret_number);

enum secpool_error __wrap_directory_query(struct directory *d, const char *sql,
	const struct directory_value *values, struct directory_rows **ret_rows)
{
	note(sql);
	return __real_directory_query(d, sql, values, ret_rows);
}

enum secpool_error __wrap_directory_run(
	struct directory *d, const char *sql, const struct directory_value *values)
{
	note(sql);
	return __real_directory_run(d, sql, values);
}

enum secpool_error __wrap_directory_number(struct directory *d, const char *sql,
	const struct directory_value *values, uint64_t *ret_number)
{
	note(sql);
	return __real_directory_number(d, sql, values, ret_number);
}

static uint64_t pick(uint64_t below)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed % below;
}

/* ---- recounts ---- */

static void expect_none(const char *what, const char *sql)
{
	uint64_t count = 99;
	const struct directory_value values[] = {DIRECTORY_N(EXTENTS_UNIT_BYTES),
		DIRECTORY_N(DEVICE_BYTES), DIRECTORY_N(BASE),
		DIRECTORY_N(BASE + WINDOW_BYTES + ADDRESSES_ALIGN_BYTES), {.kind = DIRECTORY_END}};

	if (__real_directory_number(directory, sql, values, &count) != SECPOOL_OK)
		fail_msg("%s: %s", what, err_detail());
	if (count != 0)
		fail_msg("%s: %llu", what, (unsigned long long)count);
}

/* ?1 unit, ?2 bytes of a device, ?3 begin and ?4 end of the window; each gives the number of what is wrong. */
#define ALL "WITH args(unit, device, base, top) AS (SELECT ?1, ?2, ?3, ?4) "
static const char *const recounts[][2] = {
	{"extents that overlap, or leave something of a device out",
		ALL "SELECT COUNT(*) FROM (SELECT offset, bytes, LEAD(offset, 1, ?2)"
		    " OVER (PARTITION BY slot ORDER BY offset) AS next FROM extents)"
		    " WHERE offset + bytes != next"},
	{"devices whose extents don't begin at 0",
		ALL "SELECT COUNT(*) FROM (SELECT MIN(offset) AS first FROM extents GROUP BY slot)"
		    " WHERE first != 0"},
	{"free neighbours that are not one",
		ALL "SELECT COUNT(*) FROM extents a JOIN extents b ON a.slot = b.slot"
		    " AND a.offset + a.bytes = b.offset WHERE a.state = 2 AND b.state = 2"},
	{"free or unknown extents that are a region's, or used ones that are none's",
		ALL "SELECT COUNT(*) FROM extents WHERE (state IN (0, 2)) = (region IS NOT NULL)"
		    " AND state NOT IN (1, 6)"},
	{"wrong totals of space",
		ALL "SELECT COUNT(*) FROM (SELECT state, slot, bytes, extents FROM space"
		    " WHERE extents != 0 OR bytes != 0 EXCEPT SELECT state, slot, SUM(bytes),"
		    " COUNT(*) FROM extents GROUP BY state, slot)"},
	{"missing totals of space",
		ALL "SELECT COUNT(*) FROM (SELECT state, slot, SUM(bytes), COUNT(*) FROM extents"
		    " GROUP BY state, slot EXCEPT SELECT state, slot, bytes, extents FROM space)"},
	{"regions whose bytes are counted wrong",
		ALL "SELECT COUNT(*) FROM regions r WHERE held != (SELECT IFNULL(SUM(bytes), 0)"
		    " FROM extents WHERE region = r.id)"},
	{"tenants whose use is counted wrong", ALL
		"SELECT COUNT(*) FROM tenant_use u WHERE regions != (SELECT COUNT(*) FROM"
		" regions r WHERE r.tenant = u.tenant AND state != 2) OR releasing !="
		" (SELECT COUNT(*) FROM regions r WHERE r.tenant = u.tenant AND state = 2)"
		" OR bytes != (SELECT IFNULL(SUM(whole + MAX(held - lane * lanes, 0)), 0) FROM"
		" (SELECT tenant, lanes, (bytes + ?1 - 1) / ?1 * ?1 AS whole,"
		" ((bytes / page_bytes + data - 1) / data * page_bytes + ?1 - 1) / ?1 * ?1"
		"  AS lane, (SELECT IFNULL(SUM(bytes), 0) FROM extents"
		"  WHERE region = regions.id) AS held FROM regions) w WHERE w.tenant = u.tenant)"},
	{"tenants whose use is not counted", ALL "SELECT COUNT(*) FROM regions WHERE tenant NOT IN"
						 " (SELECT tenant FROM tenant_use)"},
	{"parts of two lanes in one domain",
		ALL "SELECT COUNT(*) FROM extents a JOIN devices da ON da.slot = a.slot"
		    " JOIN extents b ON b.region = a.region AND b.lane != a.lane"
		    " JOIN devices db ON db.slot = b.slot WHERE a.state IN (3, 7)"
		    " AND b.state IN (3, 7) AND da.domain = db.domain"
		    " AND a.region_offset < b.region_offset + b.bytes"
		    " AND b.region_offset < a.region_offset + a.bytes"},
	{"parts of a lane with two places",
		ALL "SELECT COUNT(*) FROM extents a JOIN extents b ON b.region = a.region"
		    " AND b.lane = a.lane AND b.id != a.id WHERE a.state = 3 AND b.state = 3"
		    " AND a.region_offset < b.region_offset + b.bytes"
		    " AND b.region_offset < a.region_offset + a.bytes"},
	{"addresses in two ranges or in none",
		ALL ", pieces AS (SELECT start, start + bytes AS end FROM address_gaps UNION ALL"
		    " SELECT address, address + (bytes + ?1 - 1) / ?1 * ?1 + ?1 FROM regions)"
		    " SELECT COUNT(*) FROM (SELECT end, LEAD(start, 1, ?4) OVER (ORDER BY start)"
		    " AS next FROM pieces) WHERE end != next"},
	{"gaps of addresses that are not one",
		ALL "SELECT COUNT(*) FROM address_gaps a JOIN address_gaps b"
		    " ON a.start + a.bytes = b.start"},
};

static void recount(void)
{
	for (size_t i = 0; i < sizeof recounts / sizeof *recounts; i++)
		expect_none(recounts[i][0], recounts[i][1]);
	for (size_t i = 0; i < DEVICES; i++) {
		struct extents_use use = {0};

		assert_int_equal(extents_count_use(directory, devices[i].slot, &use), SECPOOL_OK);
		assert_int_equal(use.used + use.free + use.unscrubbed, DEVICE_BYTES);
		assert_true(use.largest_free <= use.free);
		assert_int_equal(use.free == 0, use.free_extents == 0);
	}
}

/* ---- random changes ---- */

static void add_devices(void)
{
	for (size_t i = 0; i < DEVICES; i++) {
		char id[16];

		snprintf(id, sizeof id, "dev%zu", i);
		assert_int_equal(
			__real_directory_run(directory,
				"INSERT INTO devices (slot, id, media, bytes, domain,"
				" state, boot, file_dev, file_ino)"
				" VALUES (?1, ?2, 1, ?3, ?4, 3, '', 0, 0)",
				DIRECTORY_VALUES(DIRECTORY_N(devices[i].slot), DIRECTORY_T(id),
					DIRECTORY_N(DEVICE_BYTES), DIRECTORY_T(devices[i].domain))),
			SECPOOL_OK);
	}
}

#define CHANGE(call)                                                                               \
	({                                                                                         \
		assert_int_equal(directory_begin(directory), SECPOOL_OK);                          \
		directory_finish(directory, (call));                                               \
	})

static void allow(enum secpool_error error, enum secpool_error other)
{
	if (error != SECPOOL_OK && error != other)
		fail_msg("%s: %s", err_name(error), err_detail());
}

static bool make(uint64_t *ret_region)
{
	static const uint32_t shapes[][2] = {{1, 1}, {1, 2}, {1, 3}, {2, 3}, {2, 4}, {3, 4}};
	const uint32_t *shape = shapes[pick(6)];
	struct regions_row row = {.bytes = (pick(40 * 256) + 1) * 4096,
		.page_bytes = 4096,
		.data = shape[0],
		.lanes = shape[1],
		.on_loss = MSG_ON_LOSS_SIGBUS,
		.process = {.pid = (int)pick(5) + 1, .start_ticks = 1}};
	enum secpool_error error;

	snprintf(row.tenant, sizeof row.tenant, "tenant%llu", (unsigned long long)pick(TENANTS));
	error = regions_create(directory, &row, BASE, WINDOW_BYTES, devices, DEVICES);
	allow(error, SECPOOL_E_NO_SPACE);
	if (!error)
		*ret_region = row.id;
	return error == SECPOOL_OK;
}

static void turn_create(void)
{
	uint64_t region;

	if (region_count == REGIONS_MOST || !make(&region))
		return;
	assert_int_equal(regions_set_live(directory, region, region), SECPOOL_OK);
	regions[region_count++] = region;
}

static void turn_undo(void)
{
	uint64_t region;

	if (make(&region))
		assert_int_equal(regions_undo(directory, region), SECPOOL_OK);
}

static void turn_refused(void)
{
	assert_int_equal(directory_begin(directory), SECPOOL_OK);
	allow(extents_take(directory, 0, 2, 20 * MIB, devices, DEVICES), SECPOOL_E_EXISTS);
	assert_int_equal(directory_finish(directory, SECPOOL_E_QUOTA), SECPOOL_E_QUOTA);
}

static void turn_release(void)
{
	size_t at;

	if (region_count == 0)
		return;
	at = pick(region_count);
	assert_int_equal(
		regions_release(directory, regions[at], MSG_CLIENT_ACKNOWLEDGED), SECPOOL_OK);
	regions[at] = regions[--region_count];
}

static void turn_scrub(void)
{
	static const enum msg_readback ends[] = {
		MSG_READBACK_DIFFERED, MSG_READBACK_UNREACHABLE, MSG_READBACK_NOT_OVERWRITTEN};
	struct extents_row row;
	bool done;

	for (uint64_t n = pick(6); n > 0; n--) {
		enum msg_readback end = pick(40) == 0 ? ends[pick(3)] : MSG_READBACK_MATCHED;
		enum secpool_error error = CHANGE(extents_scrub_next(
			directory, devices[pick(DEVICES)].slot, pick(2) == 0, &row));

		allow(error, SECPOOL_E_NOT_FOUND);
		if (!error)
			assert_int_equal(
				CHANGE(extents_scrub_end(directory, &row, end, &done)), SECPOOL_OK);
		if (!error && row.region != 0)
			assert_int_equal(
				regions_add_scrubbed(directory, row.region, end, row.bytes),
				SECPOOL_OK);
	}
}

static void turn_finish(void)
{
	static const uint8_t digest[32];
	struct regions_row row = {.id = 0};
	uint64_t last = 0;
	uint8_t found[32];

	while (regions_next_ended(directory, row.id, &row) == SECPOOL_OK) {
		assert_int_equal(row.state, MSG_REGION_RELEASING);
		assert_int_equal(regions_last_receipt(directory, &last, found), SECPOOL_OK);
		assert_int_equal(
			regions_finish(directory, row.id, last + 1, "text", digest), SECPOOL_OK);
	}
}

/* Devices that are left when one of them is not to be used. */
static size_t others(uint64_t slot, struct extents_device *list)
{
	size_t count = 0;

	for (size_t i = 0; i < DEVICES; i++)
		if (devices[i].slot != slot)
			list[count++] = devices[i];
	return count;
}

static void turn_replace(void)
{
	struct extents_device list[DEVICES];
	uint64_t slot = devices[pick(DEVICES)].slot;
	size_t count = others(slot, list);
	struct regions_row row;
	enum secpool_error error;

	if (region_count == 0)
		return;
	assert_int_equal(regions_find(directory, regions[pick(region_count)], &row), SECPOOL_OK);
	assert_int_equal(directory_begin(directory), SECPOOL_OK);
	assert_int_equal(extents_set_aside(directory, row.id, slot), SECPOOL_OK);
	error = extents_fill(directory, row.id, row.lanes, regions_lane_bytes(&row), list, count);
	allow(error, SECPOOL_E_NO_SPACE);
	assert_int_equal(directory_finish(directory, SECPOOL_OK), SECPOOL_OK);
}

static void turn_move(void)
{
	struct extents_device list[DEVICES];
	uint64_t slot = devices[pick(DEVICES)].slot, region;
	size_t count = others(slot, list);
	bool drained = true;
	enum secpool_error error;

	if (region_count == 0)
		return;
	region = regions[pick(region_count)];
	error = CHANGE(extents_move(directory, region, slot, list, count));
	allow(error, SECPOOL_E_NO_SPACE);
	if (!error && pick(3) > 0)
		allow(CHANGE(extents_moved(directory, region, slot)), SECPOOL_E_BUSY);
	assert_int_equal(extents_drained(directory, slot, &drained), SECPOOL_OK);
}

static void turn_device(void)
{
	uint64_t slot = devices[pick(DEVICES)].slot;

	switch (pick(4)) {
	case 0:
		assert_int_equal(CHANGE(regions_drop_releasing(directory, slot)), SECPOOL_OK);
		break;
	case 1:
		assert_int_equal(CHANGE(extents_scrub_again(directory, slot)), SECPOOL_OK);
		break;
	case 2:
		assert_int_equal(CHANGE(extents_set_aside_device(directory, slot, DEVICE_BYTES)),
			SECPOOL_OK);
		break;
	default:
		assert_int_equal(CHANGE(regions_lose_device(directory, slot)), SECPOOL_OK);
		assert_int_equal(
			CHANGE(extents_reset_device(directory, slot, DEVICE_BYTES)), SECPOOL_OK);
		break;
	}
}

static void turn_ask(void)
{
	struct os_process process = {.pid = (int)pick(5) + 1, .start_ticks = 1};
	struct regions_row owner = {.process = process, .tenant = "tenant1"}, row = {.id = 0};
	struct regions_use use;
	bool has;

	assert_int_equal(regions_of_process(directory, &process, &has), SECPOOL_OK);
	while (regions_next_of(directory, &process, row.id, &row) == SECPOOL_OK)
		assert_int_equal(row.process.pid, process.pid);
	assert_int_equal(regions_touch(directory, &owner, 1, 0, 0, &has), SECPOOL_OK);
	assert_int_equal(regions_count_use(directory, "tenant1", &use), SECPOOL_OK);
}

static void reopen(void)
{
	directory_close(directory);
	directory = NULL;
	assert_int_equal(directory_open(path, &directory), SECPOOL_OK);
	assert_int_equal(CHANGE(extents_restart(directory)), SECPOOL_OK);
}

static void random_turn(void)
{
	uint64_t which = pick(1000);

	if (which < 300)
		turn_create();
	else if (which < 520)
		turn_release();
	else if (which < 800)
		turn_scrub();
	else if (which < 850)
		turn_finish();
	else if (which < 880)
		turn_replace();
	else if (which < 910)
		turn_move();
	else if (which < 940)
		turn_undo();
	else if (which < 960)
		turn_refused();
	else if (which < 980)
		turn_ask();
	else if (which < 990)
		turn_device();
	else
		reopen();
}

/* "SCAN x" reads all of x. Of these there are few rows, whatever is in the pool. */
static bool is_small(const char *step)
{
	static const char *const small[] = {
		"SCAN CONSTANT ROW", "SCAN address_window", "SCAN (subquery"};

	for (size_t i = 0; i < sizeof small / sizeof *small; i++)
		if (strncmp(step, small[i], strlen(small[i])) == 0)
			return true;
	return false;
}

/* Another window, which is rare; and the first row in the order of a key, which EXPLAIN calls a scan as well. */
static bool is_allowed(const char *sql)
{
	static const char *const known[] = {"INSERT INTO address_gaps (start, bytes) SELECT",
		"DELETE FROM address_gaps", "WITH taken AS (SELECT MAX(address",
		"SELECT number, digest FROM receipts ORDER BY number DESC LIMIT 1"};

	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		if (strncmp(sql, known[i], strlen(known[i])) == 0 && !strstr(sql, "start >="))
			return true;
	return false;
}

/* A step that takes all extents of a device, or all of a state there. */
static bool is_device(const char *step)
{
	return strstr(step, " USING ") && strstr(step, "extents_") &&
	       (strstr(step, "(slot=?)") || strstr(step, "(state=? AND slot=?)"));
}

/* Such steps that a statement may have: none when it is about one region, one when it is about those of a device. */
static size_t device_steps(const char *sql)
{
	if (strstr(sql, "WHERE id IN (SELECT region FROM extents"))
		return 1;
	return strstr(sql, "region = ?1") || strstr(sql, "e.region = r.id") ? 0 : SIZE_MAX;
}

static char last_scan[512];

static size_t check_plan(sqlite3 *db, const char *sql)
{
	sqlite3_stmt *statement = NULL;
	char text[4096];
	size_t scans = 0, device = 0;

	snprintf(text, sizeof text, "EXPLAIN QUERY PLAN %s", sql);
	if (sqlite3_prepare_v2(db, text, -1, &statement, NULL) != SQLITE_OK)
		fail_msg("%s: %s", text, sqlite3_errmsg(db));
	while (sqlite3_step(statement) == SQLITE_ROW) {
		const char *step = (const char *)sqlite3_column_text(statement, 3);

		device += is_device(step);
		if ((strncmp(step, "SCAN", 4) == 0 && !is_small(step)) ||
			device > device_steps(sql)) {
			snprintf(last_scan, sizeof last_scan, "%s in %s", step, sql);
			scans++;
		}
	}
	sqlite3_finalize(statement);
	return scans;
}

/* All that the code asked while the test above ran; of triggers too. */
static void test_no_statement_reads_all_of_a_table(void **state)
{
	sqlite3 *db = NULL;
	size_t scans = 0, checked = 0;

	(void)state;
	assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_db_config(db, SQLITE_DBCONFIG_TRIGGER_EQP, 1, NULL), SQLITE_OK);
	for (size_t i = 0; i < statement_count; i++) {
		if (is_allowed(statements[i]))
			continue;
		scans += check_plan(db, statements[i]);
		if (scans > 0)
			fail_msg("%s", last_scan);
		checked++;
	}
	assert_true(checked > 40);
	/* the check itself sees a scan, also in a trigger */
	assert_int_equal(check_plan(db, "SELECT bytes FROM regions WHERE lanes = 2"), 1);
	assert_int_equal(check_plan(db, "UPDATE regions SET lanes = 2 WHERE id = 1"), 0);
	assert_int_equal(sqlite3_exec(db,
				 "CREATE TEMP TRIGGER slow AFTER UPDATE ON regions BEGIN"
				 " UPDATE extents SET lane = 1 WHERE lane = 7; END",
				 NULL, NULL, NULL),
		SQLITE_OK);
	assert_true(check_plan(db, "UPDATE regions SET lanes = 2 WHERE id = 1") > 0);
	assert_int_equal(check_plan(db, "SELECT bytes FROM extents WHERE +region = ?1 AND slot = 2"
					" AND state = 3"),
		1);
	sqlite3_close(db);
}

static void test_totals_stay_right(void **state)
{
	(void)state;
	for (int turn = 0; turn < TURNS; turn++) {
		random_turn();
		if (turn % 20 == 0)
			recount();
	}
	recount();
}

/* All regions end, all is scrubbed: every byte is free, and every address. */
static void test_nothing_is_left_at_the_end(void **state)
{
	struct extents_row row;
	bool done;

	(void)state;
	while (region_count > 0)
		turn_release();
	for (size_t i = 0; i < DEVICES; i++) {
		struct extents_use use = {0};

		assert_int_equal(
			CHANGE(extents_scrub_again(directory, devices[i].slot)), SECPOOL_OK);
		while (CHANGE(extents_scrub_next(directory, devices[i].slot, false, &row)) ==
			SECPOOL_OK)
			assert_int_equal(CHANGE(extents_scrub_end(
						 directory, &row, MSG_READBACK_MATCHED, &done)),
				SECPOOL_OK);
		assert_int_equal(extents_count_use(directory, devices[i].slot, &use), SECPOOL_OK);
		assert_int_equal(use.free, DEVICE_BYTES);
		assert_int_equal(use.largest_free, DEVICE_BYTES);
		assert_int_equal(use.free_extents, 1);
	}
	turn_finish();
	recount();
	expect_none("regions that are left", ALL "SELECT COUNT(*) FROM regions");
	expect_none("addresses that are left",
		ALL "SELECT (?4 - ?3) - (SELECT SUM(bytes) FROM address_gaps)");
}

static int set_up(void **state)
{
	const char *parent = getenv(
		"TMPDIR"); /* on tmpfs, from run.sh: thousands of changes wait for the disk */

	(void)state;
	snprintf(folder, sizeof folder, "%s/secpool-totals-XXXXXX", parent ? parent : "/tmp");
	if (!mkdtemp(folder))
		return -1;
	snprintf(path, sizeof path, "%s/directory.db", folder);
	if (directory_open(path, &directory) != SECPOOL_OK)
		return -1;
	add_devices();
	for (size_t i = 0; i < DEVICES; i++)
		assert_int_equal(
			CHANGE(extents_reset_device(directory, devices[i].slot, DEVICE_BYTES)),
			SECPOOL_OK);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	directory_close(directory);
	return os_remove_tree(folder) == SECPOOL_OK ? 0 : -1;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_totals_stay_right),
		cmocka_unit_test(test_no_statement_reads_all_of_a_table),
		cmocka_unit_test(test_nothing_is_left_at_the_end),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
