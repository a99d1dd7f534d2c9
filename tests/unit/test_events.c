/* SPDX-License-Identifier: Apache-2.0 */
/* The history of events: a flood drives out the flooder's own only, ranges that repeat are one, none is dropped. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "keymgr/devices.h"
#include "keymgr/directory.h"
#include "keymgr/events.h"
#include "keymgr/hotplug.h"
#include "lib/base/os.h"

static struct daemon daemon_;
static struct devices devices;
static char folder[64];

static int set_up(void **state)
{
	char path[96];

	(void)state;
	daemon_ = (struct daemon){.enclave = -1, .faultfd = -1, .devices = &devices};
	snprintf(folder, sizeof folder, "/tmp/secpool-events-XXXXXX");
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof path, "%s/directory.db", folder);
	assert_int_equal(directory_open(path, &daemon_.directory), SECPOOL_OK);
	assert_true(sd_event_new(&daemon_.loop) >= 0);
	assert_int_equal(events_new(&daemon_, &daemon_.events), SECPOOL_OK);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	events_free(daemon_.events);
	sd_event_unref(daemon_.loop);
	directory_close(daemon_.directory);
	return os_remove_tree(folder) == SECPOOL_OK ? 0 : -1;
}

/* Lets the loop write what waits. */
static void settle(void)
{
	while (sd_event_run(daemon_.loop, 0) > 0)
		;
}

static uint64_t number(const char *sql)
{
	uint64_t found = 0;

	settle();
	assert_int_equal(
		directory_number(daemon_.directory, sql, DIRECTORY_VALUES(), &found), SECPOOL_OK);
	return found;
}

static void lose(const char *tenant, uint64_t offset, uint64_t bytes)
{
	struct events_about about = {
		.device = "dev0", .tenant = tenant, .region = 5, .offset = offset, .bytes = bytes};

	events_record(&daemon_, "range-lost", &about, "cause: tag");
}

static void test_a_flood_keeps_the_others(void **state)
{
	struct events_about about = {.device = "dev1"}, theirs = {.tenant = "quiet", .region = 9};
	struct sock_peer peer = {.pid = 1, .uid = 2};

	(void)state;
	events_record(&daemon_, "device-online", &about, "first of all");
	events_record(&daemon_, "created", &theirs, "theirs");
	for (unsigned i = 0; i < 3 * EVENTS_KEPT_EACH; i++)
		lose("loud", 2ull * i, 1);
	for (int i = 0; i < 3 * EVENTS_KEPT_EACH; i++)
		events_refused(&daemon_, &peer, SECPOOL_E_DENIED);
	assert_int_equal(
		number("SELECT COUNT(*) FROM events WHERE tenant = 'loud'"), EVENTS_KEPT_EACH);
	/* the newest of them are what stayed */
	assert_int_equal(number("SELECT MIN(offset) FROM events WHERE tenant = 'loud'"),
		4 * EVENTS_KEPT_EACH);
	assert_true(number("SELECT COUNT(*) FROM events WHERE kind = 'refused'") <= 100);
	assert_int_equal(number("SELECT COUNT(*) FROM events WHERE kind = 'device-online'"), 1);
	assert_int_equal(number("SELECT COUNT(*) FROM events WHERE tenant = 'quiet'"), 1);
}

/* More in one turn of the loop than its table has places for. */
static void test_own_events_are_not_dropped(void **state)
{
	struct events_about about = {.device = "dev1"};

	(void)state;
	for (int i = 0; i < 2000; i++)
		events_record(&daemon_, "device-online", &about, "number %d", i);
	assert_int_equal(number("SELECT COUNT(DISTINCT detail) FROM events"), 2000);
}

static void test_repeated_ranges_are_one(void **state)
{
	(void)state;
	for (int i = 0; i < 10; i++)
		lose("t", 4096, 4096);
	lose("t", 8192, 4096); /* goes on */
	lose("t", 0, 8192);    /* and meets it */
	lose("t", 1 << 20, 4096);
	lose("u", 4096, 4096);
	assert_int_equal(number("SELECT COUNT(*) FROM events WHERE tenant = 't'"), 2);
	assert_int_equal(
		number("SELECT bytes FROM events WHERE tenant = 't' AND offset = 0"), 12288);
	assert_int_equal(number("SELECT COUNT(*) FROM events WHERE tenant = 'u'"), 1);
}

/* Things that happen twice to a device are two events. */
static void test_devices_events_are_not_merged(void **state)
{
	struct events_about about = {.device = "dev1", .bytes = 64 << 20};

	(void)state;
	events_record(&daemon_, "device-online", &about, "slot 1");
	events_record(&daemon_, "device-online", &about, "slot 1");
	assert_int_equal(number("SELECT COUNT(*) FROM events"), 2);
}

/* hotplugd tells of a device that keymgrd never had online. */
static void test_a_refused_newcomer_is_told(void **state)
{
	struct server_connection connection = {.daemon = &daemon_, .fd = -1};
	struct msg msg = {.type = MSG_DEVICE_STATE};
	struct sock_extra extra = {.fd_count = 0};

	(void)state;
	MSG_SET(msg.u.device_state.id, "dev7");
	MSG_SET(msg.u.device_state.cause, "firmware not listed");
	msg.u.device_state.state = MSG_DEVICE_ATTESTING;
	assert_int_equal(hotplug_handle_state(&connection, &msg, &extra), SECPOOL_OK);
	assert_int_equal(number("SELECT COUNT(*) FROM events"), 0);
	msg.u.device_state.state = MSG_DEVICE_QUARANTINED;
	assert_int_equal(hotplug_handle_state(&connection, &msg, &extra), SECPOOL_OK);
	assert_int_equal(number("SELECT COUNT(*) FROM events WHERE kind = 'device-quarantined'"
				" AND device = 'dev7' AND detail = 'firmware not listed'"),
		1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_a_flood_keeps_the_others),
		TEST(test_own_events_are_not_dropped),
		TEST(test_repeated_ranges_are_one),
		TEST(test_devices_events_are_not_merged),
		TEST(test_a_refused_newcomer_is_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
