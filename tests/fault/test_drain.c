/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device is drained while programs read and write: what regions of every redundancy have there is moved, nothing is lost, the device goes offline with nothing left on it, and may then be pulled. Also
 * without room at first, with both daemons killed in the middle, and with the device, or where it is moved to, pulled in the middle. timeout: 240
 */
#include <sys/wait.h>

#include "tests/fault/load.h"

enum { PAGES = 2048, LOCAL_BYTES = 4 << 20 };

static struct secpool *pool;

static void drain(const char *device, bool waits)
{
	char text[512] = "";

	if (support_cli(text, sizeof text, "device", "drain", device, waits ? NULL : "--no-wait",
		    NULL) != 0)
		support_fail("drain %s: %s", device, text);
}

static bool take_use(const struct msg *row, void *arg)
{
	struct msg_use_row *found = arg;

	if (strcmp(row->u.use_row.id, found->id) != 0)
		return true;
	*found = row->u.use_row;
	return false;
}

/* What keymgrd says of a device. */
static struct msg_use_row use_of(const char *device)
{
	struct msg_use_row found = {.slot = 0};

	MSG_SET(found.id, device);
	SUPPORT_OK(support_list("keymgr.sock", MSG_LIST_USE, MSG_USE_ROW, take_use, &found));
	return found;
}

static void check_empty(const char *device)
{
	struct msg_use_row use = use_of(device);

	if (use.used_bytes || use.unscrubbed_bytes)
		support_fail("%s has %llu bytes in use and %llu to overwrite after its drain",
			device, (unsigned long long)use.used_bytes,
			(unsigned long long)use.unscrubbed_bytes);
}

/* A device that has something in use, of those that are online. */
static void find_used(char device[8])
{
	for (int i = 0; i < 8; i++) {
		snprintf(device, 8, "dev%d", i);
		if (use_of(device).used_bytes > 0 && use_of(device).state == MSG_DEVICE_ONLINE)
			return;
	}
	support_fail("no device is in use");
}

static void begin(struct secpool_region *(*make)(void))
{
	pool = support_open("alpha", LOCAL_BYTES);
	load_catch_bus();
	load_begin(make(), PAGES);
	load_await(2000);
}

static void finish(struct secpool_region *region)
{
	load_end();
	SUPPORT_CHECK(load_lost(region) == 0 && load_stats(pool).lost_pages == 0);
	SUPPORT_OK(secpool_region_release(region, NULL));
	secpool_close(pool);
}

static struct secpool_region *region_made;

static struct secpool_region *make_single(void)
{
	return region_made = load_single(pool, "one", PAGES);
}

static struct secpool_region *make_mirror(void)
{
	return region_made = load_redundant(pool, PAGES, false);
}

static struct secpool_region *make_coded(void)
{
	return region_made = load_redundant(pool, PAGES, true);
}

/* Drained, pulled, plugged again: the program notices nothing. */
static int moves(void *arg)
{
	struct secpool_region *(*const makes[])(void) = {make_single, make_mirror, make_coded};
	char device[8];

	begin(makes[(uintptr_t)arg]);
	find_used(device);
	drain(device, true);
	check_empty(device);
	support_wait_device(device, "offline", false, LOAD_WAIT_MS);
	load_await(2000);
	SUPPORT_CHECK(support_cli(NULL, 0, "device", "pull", device, NULL) == 0);
	load_await(5000);
	finish(region_made);
	load_plug(device);
	return 0;
}

/* A part of what the command prints. */
static void expect_in(const char *text, const char *part)
{
	if (!strstr(text, part))
		support_fail("'%s' is not in: %s", part, text);
}

/* Overwrites all that is free, and says how much that was: by the command and by an event. Nothing is in use. */
static void test_scrub_says(void)
{
	char text[4096] = "";

	SUPPORT_CHECK(support_cli(text, sizeof text, "device", "scrub", "dev1", NULL) == 0);
	expect_in(text, "dev1: 64 MiB overwritten and read back, 0 B in use and left alone");
	load_await_events("device-scrubbed", "dev1",
		"67108864 bytes overwritten and read back, 0 read back otherwise, 0 not", 1);
	SUPPORT_CHECK(use_of("dev1").unscrubbed_bytes == 0 && use_of("dev1").scrub_bytes == 0);
	SUPPORT_CHECK(
		support_cli(text, sizeof text, "device", "scrub", "dev1", "--no-wait", NULL) == 0);
	expect_in(text, "is being overwritten again");
	load_await_events("device-scrubbed", "dev1", "", 2);
}

/* While it waits for room: all that is in use is to be moved and overwritten, and nothing was. */
static void check_progress(const char *device)
{
	struct msg_use_row use = use_of(device);
	char text[8192] = "";

	SUPPORT_CHECK(use.drain_bytes == 2 * use.used_bytes && use.drain_done_bytes == 0);
	SUPPORT_CHECK(support_cli(text, sizeof text, "device", "list", NULL) == 0);
	expect_in(text, "drain 0 %");
	SUPPORT_CHECK(support_cli(text, sizeof text, "device", "list", "--json", NULL) == 0);
	expect_in(text, "\"progress\":\"drain 0 %\"");
	SUPPORT_CHECK(support_cli(text, sizeof text, "top", NULL) == 0);
	expect_in(text, "[........................]   0 %");
}

/* An offline device is taken into use again by a new attestation. */
static void test_back(void)
{
	drain("dev1", true);
	support_wait_device("dev1", "offline", false, LOAD_WAIT_MS);
	SUPPORT_CHECK(support_cli(NULL, 0, "device", "attest", "dev1", NULL) == 0);
	support_wait_device("dev1", "online", true, LOAD_WAIT_MS);
}

/* The only other device is away: the drain waits, the program is told, and it goes on when there is room. */
static int waits_for_room(void *arg)
{
	struct secpool_event event;

	(void)arg;
	begin(make_mirror);
	drain("dev0", false);
	if (!support_event(pool, SECPOOL_EVENT_NO_SPACE, LOAD_WAIT_MS, &event))
		support_fail("no event said that there is no room");
	load_await(2000);
	support_wait_device("dev0", "draining", false, LOAD_WAIT_MS);
	check_progress("dev0");
	load_plug("dev2");
	support_wait_device("dev0", "offline", false, LOAD_WAIT_MS);
	check_empty("dev0");
	finish(region_made);
	SUPPORT_CHECK(support_cli(NULL, 0, "device", "attest", "dev0", NULL) == 0);
	return 0;
}

/* Killed in the middle, the drain goes on when they are back. */
static int daemons_die(void *arg)
{
	const char *name = arg;
	char device[8];

	begin(make_mirror);
	find_used(device);
	drain(device, false);
	support_kill_daemon(name);
	load_await(1000);
	support_up(4, "64M", NULL);
	support_wait_device(device, "offline", false, LOAD_WAIT_MS);
	check_empty(device);
	finish(region_made);
	SUPPORT_CHECK(support_cli(NULL, 0, "device", "attest", device, NULL) == 0);
	support_wait_device(device, "online", true, LOAD_WAIT_MS);
	return 0;
}

/* The device itself goes while it is drained, then one of the others does: mirrors and codes lose nothing. */
static int pulled_in_the_middle(void *arg)
{
	struct secpool_event event;
	char device[8], other[8];

	begin(arg ? make_coded : make_mirror);
	find_used(device);
	drain(device, false);
	SUPPORT_CHECK(support_cli(NULL, 0, "device", "pull", device, NULL) == 0);
	if (!support_event(pool, SECPOOL_EVENT_REGION_WHOLE, LOAD_WAIT_MS, &event))
		support_fail("the region did not get whole again");
	load_plug(device);
	find_used(device);
	drain(device, false);
	do
		find_used(other);
	while (strcmp(other, device) == 0);
	SUPPORT_CHECK(support_cli(NULL, 0, "device", "pull", other, NULL) == 0);
	load_await(2000);
	support_wait_device(device, "offline", false, LOAD_WAIT_MS);
	load_plug(other);
	finish(region_made);
	SUPPORT_CHECK(support_cli(NULL, 0, "device", "attest", device, NULL) == 0);
	support_wait_device(device, "online", true, LOAD_WAIT_MS);
	return 0;
}

static void run(const char *what, int (*part)(void *arg), void *arg)
{
	uint64_t began = clock_now_ns();

	if (support_join(support_fork(part, arg), 60000) != 0)
		support_fail("%s failed", what);
	printf("%s: %.1f s\n", what, (double)(clock_now_ns() - began) / (double)CLOCK_NS_PER_S);
}

int main(void)
{
	support_up(4, "64M", NULL);
	run("no redundancy", moves, (void *)0);
	run("mirror:2", moves, (void *)1);
	run("ec:2+1", moves, (void *)2);
	test_back();
	test_scrub_says();
	run("keymgrd killed", daemons_die, (void *)(uintptr_t) "keymgrd");
	run("hotplugd killed", daemons_die, (void *)(uintptr_t) "hotplugd");
	run("mirror:2, pulled", pulled_in_the_middle, (void *)0);
	run("ec:2+1, pulled", pulled_in_the_middle, (void *)1);
	for (int i = 2; i < 4; i++) {
		char device[8];
		snprintf(device, sizeof device, "dev%d", i);
		SUPPORT_CHECK(support_cli(NULL, 0, "device", "pull", device, NULL) == 0);
	}
	run("no room", waits_for_room, NULL);
	support_down();
	return 0;
}
