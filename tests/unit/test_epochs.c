/* SPDX-License-Identifier: Apache-2.0 */
/* A region's epochs in the directory: two keys at most have a name, what is wanted stays wanted, and a device that went takes the keys of what lies there, and of nothing else. */
#include "keymgr/epochs.h"
#include "keymgr/regionkeys.h"
#include "keymgr/rotate.h"
#include "keymgr/session.h"
#include "keymgr/wraps.h"
#include "lib/base/clock.h"
#include "tests/unit/extents_fixture.h"

/* Of the fixture's devices, all of whose space is free. */
static int set_up_free(void **state)
{
	if (set_up(state) != 0)
		return -1;
	for (uint64_t slot = 1; slot <= 3; slot++)
		scrub_all(slot);
	return 0;
}

/* A region of one copy on that device; wrap 0: it is not live yet. */
static uint64_t make(const char *tenant, uint64_t slot, uint64_t wrap)
{
	struct regions_row row = {.bytes = 4 * MIB,
		.page_bytes = 4096,
		.data = 1,
		.lanes = 1,
		.on_loss = MSG_ON_LOSS_SIGBUS,
		.process = {.pid = 11, .start_ticks = 22}};

	MSG_SET(row.tenant, tenant);
	assert_int_equal(regions_create(directory, &row, BASE, 1ull << 40, &devices[slot - 1], 1),
		SECPOOL_OK);
	if (wrap)
		assert_int_equal(regions_set_live(directory, row.id, wrap), SECPOOL_OK);
	return row.id;
}

static struct regions_row row_of(uint64_t region)
{
	struct regions_row row;

	assert_int_equal(regions_find(directory, region, &row), SECPOOL_OK);
	return row;
}

static void assert_keys(
	uint64_t region, uint64_t epoch, uint64_t wrap, uint64_t next_epoch, uint64_t next_wrap)
{
	struct regions_row row = row_of(region);

	assert_int_equal(row.epoch, epoch);
	assert_int_equal(row.wrap, wrap);
	assert_int_equal(row.next_epoch, next_epoch);
	assert_int_equal(row.next_wrap, next_wrap);
}

static void test_one_key_after_the_other(void **state)
{
	uint64_t region = make("t", 1, 5);
	struct regions_row row = row_of(region);

	(void)state;
	assert_int_equal(epochs_new(&row), 2);
	assert_int_equal(epochs_end(directory, region, 2), SECPOOL_E_NOT_FOUND);
	assert_int_equal(epochs_begin(directory, region, 2, 6), SECPOOL_OK);
	assert_keys(region, 1, 5, 2, 6);
	/* one that its client did not take: the next has another number */
	row = row_of(region);
	assert_int_equal(epochs_new(&row), 3);
	assert_int_equal(epochs_begin(directory, region, 3, 7), SECPOOL_OK);
	assert_int_equal(epochs_end(directory, region, 2), SECPOOL_E_NOT_FOUND);
	assert_keys(region, 1, 5, 3, 7);
	assert_int_equal(epochs_end(directory, region, 3), SECPOOL_OK);
	assert_keys(region, 3, 7, 0, 0);
	assert_int_equal(epochs_end(directory, region, 3), SECPOOL_E_NOT_FOUND);
	/* released in the middle: neither has a name any more */
	assert_int_equal(epochs_begin(directory, region, 4, 8), SECPOOL_OK);
	assert_int_equal(regions_release(directory, region, MSG_CLIENT_DEAD), SECPOOL_OK);
	assert_keys(region, 3, 0, 4, 0);
	assert_int_equal(epochs_begin(directory, region, 5, 9), SECPOOL_E_NOT_FOUND);
	assert_int_equal(epochs_end(directory, region, 4), SECPOOL_E_NOT_FOUND);
}

static uint64_t next_wanted(uint64_t after)
{
	struct regions_row row;
	enum secpool_error error = epochs_wanted(directory, after, &row);

	if (error) {
		assert_int_equal(error, SECPOOL_E_NOT_FOUND);
		return 0;
	}
	assert_true(row.rotate);
	return row.id;
}

static void test_what_is_wanted(void **state)
{
	uint64_t mine = make("t", 1, 5), others = make("u", 1, 6), young = make("t", 2, 0);
	uint64_t count = 99;

	(void)state;
	assert_int_equal(next_wanted(0), 0);
	assert_int_equal(epochs_want(directory, "t", &count), SECPOOL_OK);
	assert_int_equal(count, 1); /* not one that is not live */
	assert_int_equal(next_wanted(0), mine);
	assert_int_equal(next_wanted(mine), 0);
	assert_false(row_of(others).rotate || row_of(young).rotate);
	assert_int_equal(epochs_want(directory, "nobody", &count), SECPOOL_OK);
	assert_int_equal(count, 0);
	/* a new key ends the wish; one that comes while pages move outlives their end */
	assert_int_equal(epochs_begin(directory, mine, 2, 7), SECPOOL_OK);
	assert_int_equal(next_wanted(0), 0);
	assert_int_equal(epochs_want(directory, "t", &count), SECPOOL_OK);
	assert_int_equal(epochs_end(directory, mine, 2), SECPOOL_OK);
	assert_int_equal(next_wanted(0), mine);
	/* a region that is released has no wishes */
	assert_int_equal(regions_release(directory, mine, MSG_CLIENT_DEAD), SECPOOL_OK);
	assert_int_equal(next_wanted(0), 0);
}

static void test_age(void **state)
{
	uint64_t old = make("t", 1, 5), moving = make("t", 1, 6), wanted = make("u", 1, 7);
	uint64_t count = 99, then;

	(void)state;
	assert_int_equal(
		epochs_want_older(directory, clock_calendar_ns() - CLOCK_NS_PER_S * 3600, &count),
		SECPOOL_OK);
	assert_int_equal(count, 0);
	assert_int_equal(epochs_begin(directory, moving, 2, 8), SECPOOL_OK);
	assert_int_equal(epochs_want(directory, "u", &count), SECPOOL_OK);
	then = clock_calendar_ns() + 1;
	assert_int_equal(epochs_want_older(directory, then, &count), SECPOOL_OK);
	assert_int_equal(count, 1);
	assert_int_equal(next_wanted(0), old);
	assert_int_equal(next_wanted(old), wanted);
	/* after a recovery it is no matter how old a key is, or whether its region is moving to another already: both were stored */
	assert_int_equal(epochs_want_all(directory), SECPOOL_OK);
	assert_int_equal(next_wanted(0), old);
	assert_int_equal(next_wanted(old), moving);
	assert_int_equal(next_wanted(moving), wanted);
	assert_int_equal(epochs_end(directory, moving, 2), SECPOOL_OK);
	assert_int_equal(next_wanted(old), moving);
	assert_int_equal(epochs_begin(directory, moving, 3, 10), SECPOOL_OK);
	/* a new key is young */
	assert_int_equal(epochs_begin(directory, old, 2, 9), SECPOOL_OK);
	assert_int_equal(epochs_end(directory, old, 2), SECPOOL_OK);
	assert_int_equal(epochs_want_older(directory, then, &count), SECPOOL_OK);
	assert_int_equal(count, 0);
}

/* ---- a key that its client never took, when another is asked for ---- */

static struct {			   /* what the wrapped ones were asked, in this order */
	enum secpool_error record; /* the audit's answer */
	uint64_t ended, erased;
	bool named; /* the row named the slot when it was erased, or the end was not recorded yet */
	bool failed;
} drop;

enum secpool_error __wrap_session_region(
	const struct server_connection *connection, uint64_t region, struct regions_row *ret_row);
enum secpool_error __wrap_session_region(
	const struct server_connection *connection, uint64_t region, struct regions_row *ret_row)
{
	(void)connection;
	return regions_find(directory, region, ret_row);
}

enum secpool_error __wrap_regionkeys_end(
	struct daemon *daemon, uint64_t region, uint64_t epoch, struct msg *ret_answer);
enum secpool_error __wrap_regionkeys_end(
	struct daemon *daemon, uint64_t region, uint64_t epoch, struct msg *ret_answer)
{
	(void)daemon;
	(void)region;
	(void)ret_answer;
	if (drop.record)
		return err_set(drop.record, "the audit is full");
	drop.ended = epoch;
	return SECPOOL_OK;
}

enum secpool_error __wrap_wraps_erase(struct wraps *wraps, uint64_t slot);
enum secpool_error __wrap_wraps_erase(struct wraps *wraps, uint64_t slot)
{
	struct regions_row row;

	(void)wraps;
	drop.erased = slot;
	drop.named = drop.ended == 0 || regions_find(directory, 1, &row) != SECPOOL_OK ||
		     row.next_wrap != 0;
	return SECPOOL_OK;
}

enum secpool_error __wrap_regionkeys_make(struct server_connection *connection,
	const struct regions_row *region, uint64_t epoch, struct msg_enc_key_wrapped *ret_wrapped);
enum secpool_error __wrap_regionkeys_make(struct server_connection *connection,
	const struct regions_row *region, uint64_t epoch, struct msg_enc_key_wrapped *ret_wrapped)
{
	(void)connection;
	(void)region;
	(void)ret_wrapped;
	return err_set(SECPOOL_E_BUSY, "epoch %llu", (unsigned long long)epoch);
}

void __wrap_daemon_fail(struct daemon *daemon, const char *event, enum secpool_error error);
void __wrap_daemon_fail(struct daemon *daemon, const char *event, enum secpool_error error)
{
	(void)daemon;
	(void)event;
	(void)error;
	drop.failed = true;
}

static void test_a_key_that_was_not_taken(void **state)
{
	uint64_t region = make("t", 1, 5);
	struct daemon daemon = {.directory = directory};
	struct session session = {.tenant = "t"};
	struct server_connection connection = {.daemon = &daemon, .session = &session};
	struct msg ask = {.type = MSG_REGION_ROTATE};

	(void)state;
	assert_int_equal(region, 1);
	ask.u.region_rotate.region = region;
	ask.u.region_rotate.epoch = 1;
	assert_int_equal(epochs_begin(directory, region, 2, 6), SECPOOL_OK);
	/* no record, no end: the slot is whole, for the enclave has its key still, and the next generation wraps it anew */
	drop.record = SECPOOL_E_STORE;
	assert_int_equal(rotate_handle_begin(&connection, &ask, NULL), SECPOOL_E_STORE);
	assert_keys(region, 1, 5, 2, 6);
	assert_int_equal(drop.erased, 0);
	/* the record, then the row, then the slot; and only then another key */
	drop.record = SECPOOL_OK;
	assert_int_equal(rotate_handle_begin(&connection, &ask, NULL), SECPOOL_E_BUSY);
	assert_string_equal(err_detail(), "epoch 3");
	assert_keys(region, 1, 5, 2, 0);
	assert_true(drop.ended == 2 && drop.erased == 6 && !drop.named && !drop.failed);
}

/* The regions whose keys went with a device; what they were is in the order of their places. */
static size_t forget(uint64_t slot, struct regions_row *rows, size_t most)
{
	size_t count = 99;
	uint64_t offset = 0;

	assert_int_equal(
		CHANGE(epochs_forget(directory, slot, &offset, rows, most, &count)), SECPOOL_OK);
	return count;
}

static void test_a_device_takes_its_keys(void **state)
{
	uint64_t first = make("t", 1, 5), second = make("t", 1, 6), other = make("t", 2, 7);
	struct regions_row rows[4];

	(void)state;
	assert_int_equal(epochs_begin(directory, second, 2, 8), SECPOOL_OK);
	assert_int_equal(forget(1, rows, 1), 1);
	assert_int_equal(rows[0].id, first);
	assert_int_equal(rows[0].wrap, 5);
	assert_int_equal(forget(1, rows, 4), 1);
	assert_int_equal(rows[0].wrap, 6);
	assert_int_equal(rows[0].next_wrap, 8);
	assert_int_equal(forget(1, rows, 4), 0);
	assert_keys(first, 1, 0, 0, 0);
	assert_keys(second, 1, 0, 2, 0);
	assert_keys(other, 1, 7, 0, 0);
	/* both get new keys, also the one that was about to have one */
	assert_int_equal(next_wanted(0), first);
	assert_int_equal(next_wanted(first), second);
	assert_int_equal(next_wanted(second), 0);
	assert_int_equal(epochs_end(directory, second, 2), SECPOOL_OK);
	assert_keys(second, 2, 0, 0, 0);
	assert_true(row_of(second).rotate);
}

/* A region with many places on a device is found once, and each call goes on where the one before ended. */
static void test_places_are_looked_at_once(void **state)
{
	uint64_t first = make("t", 1, 5), second = make("t", 1, 6), offset = 0, before;
	struct regions_row rows[4];
	size_t count = 99;

	(void)state;
	/* the first region's place is two now */
	assert_int_equal(
		directory_run(directory, "UPDATE extents SET bytes = bytes / 2 WHERE region = ?1",
			DIRECTORY_VALUES(DIRECTORY_N(first))),
		SECPOOL_OK);
	assert_int_equal(
		directory_run(directory,
			"INSERT INTO extents (slot, offset, bytes, state, region, lane,"
			" region_offset) SELECT slot, offset + bytes, bytes, state, region,"
			" lane, bytes FROM extents WHERE region = ?1",
			DIRECTORY_VALUES(DIRECTORY_N(first))),
		SECPOOL_OK);
	assert_int_equal(CHANGE(epochs_forget(directory, 1, &offset, rows, 2, &count)), SECPOOL_OK);
	assert_int_equal(count, 1);
	assert_int_equal(rows[0].id, first);
	before = offset;
	assert_true(before > 0);
	assert_int_equal(CHANGE(epochs_forget(directory, 1, &offset, rows, 4, &count)), SECPOOL_OK);
	assert_int_equal(count, 1);
	assert_int_equal(rows[0].id, second);
	assert_true(offset > before);
	assert_int_equal(CHANGE(epochs_forget(directory, 1, &offset, rows, 4, &count)), SECPOOL_OK);
	assert_int_equal(count, 0);
}

/* What a region gave up on a device lies under the keys that it had then. */
static void test_what_was_set_aside(void **state)
{
	uint64_t region = make("t", 1, 5);
	struct regions_row rows[4];

	(void)state;
	assert_int_equal(epochs_begin(directory, region, 2, 6), SECPOOL_OK);
	assert_int_equal(CHANGE(extents_set_aside(directory, region, 1)), SECPOOL_OK);
	assert_int_equal(
		CHANGE(extents_fill(directory, region, 1, 4 * MIB, &devices[1], 1)), SECPOOL_OK);
	/* pages under either key may be there */
	assert_int_equal(epochs_end(directory, region, 2), SECPOOL_OK);
	assert_int_equal(forget(1, rows, 4), 1);
	assert_int_equal(epochs_begin(directory, region, 3, 7), SECPOOL_OK);
	/* until the one that came before it was given up is no more */
	assert_int_equal(forget(1, rows, 4), 1);
	assert_int_equal(epochs_begin(directory, region, 4, 8), SECPOOL_OK);
	assert_int_equal(epochs_end(directory, region, 4), SECPOOL_OK);
	assert_int_equal(forget(1, rows, 4), 0);
	assert_keys(region, 4, 8, 0, 0);
	/* where it is now, it is */
	assert_int_equal(forget(2, rows, 4), 1);
	/* and what it gives up of that under this key as well, when its device goes by another way */
	assert_int_equal(epochs_begin(directory, region, 5, 9), SECPOOL_OK);
	assert_int_equal(CHANGE(extents_set_aside_device(directory, 2, 512 * MIB)), SECPOOL_OK);
	assert_int_equal(epochs_end(directory, region, 5), SECPOOL_OK);
	assert_int_equal(forget(2, rows, 4), 1);
}

/* Overwrites what is to be overwritten on the device: what is not there counts as gone with it. */
static void scrub(uint64_t slot)
{
	struct extents_row row;
	bool done;

	while (CHANGE(extents_scrub_next(directory, slot, true, &row)) == SECPOOL_OK)
		assert_int_equal(
			CHANGE(extents_scrub_end(directory, &row, MSG_READBACK_MATCHED, &done)),
			SECPOOL_OK);
}

/* What was moved off a device is there until it is overwritten: a pull before that is a loss of the key, one after it is not. */
static void test_what_was_moved(void **state)
{
	uint64_t region = make("t", 1, 5);
	struct regions_row rows[4];
	uint64_t left = 0;

	(void)state;
	assert_int_equal(CHANGE(extents_move(directory, region, 1, &devices[1], 1)), SECPOOL_OK);
	assert_int_equal(CHANGE(extents_moved(directory, region, 1)), SECPOOL_OK);
	assert_int_equal(forget(1, rows, 4), 1);
	assert_int_equal(rows[0].id, region);
	assert_int_equal(next_wanted(0), region);
	/* under the key that came before: it costs no other */
	assert_int_equal(epochs_begin(directory, region, 2, 6), SECPOOL_OK);
	assert_int_equal(epochs_end(directory, region, 2), SECPOOL_OK);
	assert_int_equal(forget(1, rows, 4), 0);
	/* the same while it is being overwritten, and no more when it was */
	assert_int_equal(CHANGE(extents_move(directory, region, 2, &devices[2], 1)), SECPOOL_OK);
	assert_int_equal(CHANGE(extents_moved(directory, region, 2)), SECPOOL_OK);
	assert_int_equal(CHANGE(extents_scrub_next(directory, 2, true, &(struct extents_row){0})),
		SECPOOL_OK);
	assert_int_equal(forget(2, rows, 4), 1);
	assert_int_equal(CHANGE(extents_restart(directory)), SECPOOL_OK);
	assert_int_equal(epochs_begin(directory, region, 3, 7), SECPOOL_OK);
	assert_int_equal(epochs_end(directory, region, 3), SECPOOL_OK);
	scrub(1);
	scrub(2);
	assert_int_equal(forget(1, rows, 4) + forget(2, rows, 4), 0);
	assert_int_equal(regions_extents_left(directory, region, &left), SECPOOL_OK);
	assert_int_equal(left, 1);
}

static void test_one_alone_is_wanted(void **state)
{
	uint64_t first = make("t", 1, 5), second = make("t", 1, 6), young = make("t", 2, 0);

	(void)state;
	assert_int_equal(epochs_want_one(directory, second), SECPOOL_OK);
	assert_int_equal(epochs_want_one(directory, young), SECPOOL_OK);
	assert_false(row_of(first).rotate || row_of(young).rotate);
	assert_int_equal(next_wanted(0), second);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			test_one_key_after_the_other, set_up_free, tear_down),
		cmocka_unit_test_setup_teardown(test_what_is_wanted, set_up_free, tear_down),
		cmocka_unit_test_setup_teardown(test_age, set_up_free, tear_down),
		cmocka_unit_test_setup_teardown(
			test_a_key_that_was_not_taken, set_up_free, tear_down),
		cmocka_unit_test_setup_teardown(
			test_a_device_takes_its_keys, set_up_free, tear_down),
		cmocka_unit_test_setup_teardown(
			test_places_are_looked_at_once, set_up_free, tear_down),
		cmocka_unit_test_setup_teardown(test_what_was_set_aside, set_up_free, tear_down),
		cmocka_unit_test_setup_teardown(test_what_was_moved, set_up_free, tear_down),
		cmocka_unit_test_setup_teardown(test_one_alone_is_wanted, set_up_free, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
