/* SPDX-License-Identifier: Apache-2.0 */
/* Which two devices are too far apart, and which share may go from one to the other; that moving one after the other comes to an end; and that a program that stands still in the middle of it holds nobody up. */
#include <sys/mman.h>

#include "keymgr/devices.h"
#include "keymgr/events.h"
#include "keymgr/rebalance.h"
#include "keymgr/session.h"
#include "lib/base/clock.h"
#include "lib/base/media.h"
#include "tests/unit/extents_fixture.h"

static uint64_t later_ns; /* than the clock says */

uint64_t __real_clock_now_ns(void);
uint64_t __wrap_clock_now_ns(void);
uint64_t __wrap_clock_now_ns(void)
{
	return __real_clock_now_ns() + later_ns;
}

static void furthest_apart(void **state)
{
	struct rebalance_device list[] = {
		{.slot = 1, .used = 50 * MIB, .bytes = 100 * MIB},
		{.slot = 2, .used = 120 * MIB, .bytes = 200 * MIB},
		{.slot = 3, .used = 10 * MIB, .bytes = 50 * MIB},
		{.slot = 4, .used = 0, .bytes = 50 * MIB, .tier = 1},
	};
	size_t from = 9, to = 9;

	(void)state;
	assert_true(rebalance_choose(list, 4, 10, &from, &to));
	/* the fourth is empty, but slower than the others */
	assert_int_equal(list[from].slot, 2);
	assert_int_equal(list[to].slot, 3);
	assert_true(rebalance_choose(list, 4, 39, &from, &to));
	from = to = 9;
	assert_false(rebalance_choose(list, 4, 40, &from, &to));
	assert_false(rebalance_choose(list, 1, 1, &from, &to));
	assert_false(rebalance_choose(list, 0, 1, &from, &to));
	assert_int_equal(from, 9);
	/* what is on a slower one may come to a faster one */
	list[3].used = 50 * MIB;
	assert_true(rebalance_choose(list, 4, 10, &from, &to));
	assert_int_equal(list[from].slot, 4);
	assert_int_equal(list[to].slot, 3);
}

static void never_to_and_fro(void **state)
{
	struct rebalance_device from = {.used = 60 * MIB, .bytes = 100 * MIB};
	struct rebalance_device to = {.used = 20 * MIB, .bytes = 100 * MIB};

	(void)state;
	assert_true(rebalance_fits(&from, &to, 2 * MIB));
	assert_true(rebalance_fits(&from, &to, 20 * MIB));
	assert_false(rebalance_fits(&from, &to, 22 * MIB));
	assert_false(rebalance_fits(&from, &to, 62 * MIB));
	to.bytes = 40 * MIB;
	assert_true(rebalance_fits(&from, &to, 2 * MIB));
	assert_false(rebalance_fits(&from, &to, 4 * MIB));
}

/* With shares of any size: each move brings them nearer, so there is a last one. */
static void comes_to_an_end(void **state)
{
	uint64_t shares[4][16], seed = 7;
	struct rebalance_device list[4];
	unsigned moves = 0;
	size_t from, to;
	bool moved = true;

	(void)state;
	for (size_t d = 0; d < 4; d++) {
		list[d] = (struct rebalance_device){.slot = d + 1, .bytes = (400 + 100 * d) * MIB};
		for (size_t i = 0; i < 16; i++) {
			seed = seed * 6364136223846793005ull + 1442695040888963407ull;
			shares[d][i] = d < 2 ? (seed >> 60) * 2 * MIB : 0;
			list[d].used += shares[d][i];
		}
	}
	while (moved && rebalance_choose(list, 4, 1, &from, &to)) {
		moved = false;
		for (size_t i = 0; i < 16 && !moved; i++)
			for (size_t j = 0; j < 16 && !moved; j++) {
				if (shares[from][i] == 0 || shares[to][j] != 0 ||
					!rebalance_fits(&list[from], &list[to], shares[from][i]))
					continue;
				list[from].used -= shares[from][i];
				list[to].used += shares[from][i];
				shares[to][j] = shares[from][i];
				shares[from][i] = 0;
				moved = true;
				assert_true(++moves < 1000);
			}
	}
	assert_true(moves > 4);
}

/* ---- a daemon's parts, as far as rebalancing asks them ---- */

static struct daemon daemon_ = {.faultfd = -1, .enclave = -1};
static struct policy *policy;
static int listener = -1;

static int set_up_daemon(void **state)
{
	static const char text[] = "version: 1\nrebalance_bytes_per_second: 1M\ntenants: "
				   "[]\ndevices: {firmware: [f]}\n";
	char address[96];

	if (set_up(state) != 0)
		return -1;
	later_ns = 0;
	snprintf(address, sizeof address, "%s/s", folder);
	daemon_.directory = directory;
	if (policy_load_text(text, sizeof text - 1, "test", &policy) != SECPOOL_OK ||
		sd_event_new(&daemon_.loop) < 0 ||
		sock_listen(address, 0600, &listener) != SECPOOL_OK ||
		server_new(&daemon_, listener, &daemon_.server) != SECPOOL_OK ||
		session_new_table(&daemon_.sessions) != SECPOOL_OK ||
		events_new(&daemon_, &daemon_.events) != SECPOOL_OK ||
		devices_new(&daemon_, &daemon_.devices) != SECPOOL_OK)
		return -1;
	daemon_.policy = policy;
	for (size_t i = 0; i < 3; i++) {
		struct devices_row *row = devices_at(daemon_.devices, devices[i].slot);

		row->state = MSG_DEVICE_ONLINE;
		row->fresh_until_ns = UINT64_MAX;
		row->media_fd = memfd_create("media", MFD_CLOEXEC);
		if (ftruncate(row->media_fd, (off_t)media_bytes(true, row->bytes)) != 0)
			return -1;
		scrub_all(devices[i].slot);
	}
	return rebalance_new(&daemon_, &daemon_.rebalance) == SECPOOL_OK ? 0 : -1;
}

static int tear_down_daemon(void **state)
{
	rebalance_free(daemon_.rebalance);
	devices_free(daemon_.devices);
	events_free(daemon_.events);
	session_free_table(daemon_.sessions);
	server_free(daemon_.server);
	os_close(&listener);
	sd_event_unref(daemon_.loop);
	policy_free(policy);
	daemon_ = (struct daemon){.faultfd = -1, .enclave = -1};
	return tear_down(state);
}

/* A look, so many seconds later. */
static void look(uint64_t seconds)
{
	uint64_t next_ns = 0;

	later_ns += seconds * CLOCK_NS_PER_S;
	assert_int_equal(rebalance_look(daemon_.rebalance, &next_ns), SECPOOL_OK);
	assert_true(next_ns >= REBALANCE_LOOK_NS && next_ns <= REBALANCE_REST_NS);
}

static bool under_way(uint64_t region)
{
	return rebalance_is_under_way(daemon_.rebalance, region, 1);
}

/* The first of two programs takes its targets, moves a little, and stands still. */
static void stopped_program_is_passed_over(void **state)
{
	struct session session = {.table = daemon_.sessions};
	uint64_t stopped = 0, other = 0;

	(void)state;
	assert_int_equal(create_on(100, 1, devices, 1, &stopped), SECPOOL_OK);
	assert_int_equal(create_on(100, 1, devices, 1, &other), SECPOOL_OK);
	assert_int_equal(directory_run(directory, "UPDATE regions SET state = ?1",
				 DIRECTORY_VALUES(DIRECTORY_N(MSG_REGION_LIVE))),
		SECPOOL_OK);
	look(0);
	assert_true(under_way(stopped));
	assert_int_equal(CHANGE(extents_move(directory, stopped, 1, devices, 3)), SECPOOL_OK);
	for (uint64_t done = 1; done <= 5; done++) {
		assert_int_equal(
			session_note_walk(&session, stopped, MSG_PROGRESS_REBUILD, done, 9),
			SECPOOL_OK);
		look(20);
		assert_true(under_way(stopped));
	}
	look(20);
	assert_true(under_way(stopped));
	look(20);
	assert_true(under_way(other));
	assert_int_equal(CHANGE(extents_move(directory, other, 1, devices, 3)), SECPOOL_OK);
	assert_int_equal(CHANGE(extents_moved(directory, other, 1)), SECPOOL_OK);
	for (unsigned i = 0; i < 5; i++) {
		look(20);
		assert_false(under_way(stopped) || under_way(other));
	}
	/* it goes on, where it was, and ends */
	assert_int_equal(
		session_note_walk(&session, stopped, MSG_PROGRESS_REBUILD, 6, 9), SECPOOL_OK);
	look(20);
	assert_true(under_way(stopped));
	assert_int_equal(CHANGE(extents_moved(directory, stopped, 1)), SECPOOL_OK);
	assert_int_equal(
		session_note_walk(&session, stopped, MSG_PROGRESS_REBUILD, 9, 9), SECPOOL_OK);
	look(2);
	assert_false(under_way(stopped));
	assert_int_equal(use_of(1).used, 0);
}

/* A program that does not take targets keeps nobody waiting either, and has its turn again. */
static void program_that_does_not_begin_is_passed_over(void **state)
{
	uint64_t first = 0, second = 0;

	(void)state;
	assert_int_equal(create_on(100, 1, devices, 1, &first), SECPOOL_OK);
	assert_int_equal(create_on(100, 1, devices, 1, &second), SECPOOL_OK);
	assert_int_equal(directory_run(directory, "UPDATE regions SET state = ?1",
				 DIRECTORY_VALUES(DIRECTORY_N(MSG_REGION_LIVE))),
		SECPOOL_OK);
	look(0);
	assert_true(under_way(first));
	look(31);
	assert_true(under_way(second));
	look(31);
	assert_true(under_way(first));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(furthest_apart),
		cmocka_unit_test(never_to_and_fro),
		cmocka_unit_test(comes_to_an_end),
		cmocka_unit_test_setup_teardown(
			stopped_program_is_passed_over, set_up_daemon, tear_down_daemon),
		cmocka_unit_test_setup_teardown(program_that_does_not_begin_is_passed_over,
			set_up_daemon, tear_down_daemon),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
