/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device that a new policy revokes, or whose firmware goes from it, while programs read and write: what they have there moves to other devices by itself and nothing is lost; where it can't move, or the policy keeps it there,
 * it is given up when its time is over, also when keymgrd is killed meanwhile: what has another copy is made again, what has none is lost to its program, each under a new key. timeout: 240
 */
#include <stdlib.h>

#include "lib/base/os.h"
#include "tests/fault/load.h"

enum { PAGES = 2048, LOCAL_BYTES = 4 << 20, TEXT_MOST = 1 << 16 };

static struct secpool *pool;
static struct secpool_region *region;
static unsigned reloads;

/* The policy of support_policy with these lines at its end: they are among those of devices. It is taken by SIGHUP, or by a start. */
static void write_policy(const char *lines)
{
	const char *path = support_policy(0);
	char text[TEXT_MOST], *before = NULL;
	size_t bytes = 0;
	int length;

	SUPPORT_OK(os_read_file(path, TEXT_MOST / 2, &before, &bytes));
	length = snprintf(text, sizeof text, "%.*s%s", (int)bytes, before, lines);
	SUPPORT_CHECK(length > 0 && length < (int)sizeof text);
	SUPPORT_OK(os_write_file_durable(support_path("policy.yaml"), text, (size_t)length, 0600));
	free(before);
}

static void reload(const char *lines)
{
	write_policy(lines);
	SUPPORT_CHECK(kill(support_daemon("keymgrd"), SIGHUP) == 0);
	load_await_events("policy-reloaded", NULL, "", ++reloads);
}

static void revoke_device(const char *device, const char *more)
{
	char lines[256];

	snprintf(lines, sizeof lines, "  revoked: [%s]\n%s", device, more);
	reload(lines);
}

/* A new daemon counts events from where the old one was: so does this. */
struct count {
	const char *kind, *device, *words;
	unsigned found;
};

static bool count_event(const struct msg *row, void *arg)
{
	const struct msg_event_row *event = &row->u.event_row;
	struct count *count = arg;

	count->found += strcmp(event->kind, count->kind) == 0 &&
			strcmp(event->device, count->device) == 0 &&
			strstr(event->detail, count->words) != NULL;
	return true;
}

static unsigned events_of(const char *kind, const char *device, const char *words)
{
	struct count count = {kind, device, words, 0};

	SUPPORT_OK(
		support_list("keymgr.sock", MSG_LIST_EVENTS, MSG_EVENT_ROW, count_event, &count));
	return count.found;
}

static bool take_use(const struct msg *row, void *arg)
{
	struct msg_use_row *found = arg;

	if (strcmp(row->u.use_row.id, found->id) == 0)
		*found = row->u.use_row;
	return true;
}

static uint64_t used_on(const char *device)
{
	struct msg_use_row found = {.slot = 0};

	MSG_SET(found.id, device);
	SUPPORT_OK(support_list("keymgr.sock", MSG_LIST_USE, MSG_USE_ROW, take_use, &found));
	return found.used_bytes;
}

static void find_used(char device[8])
{
	for (int i = 0; i < 8; i++) {
		snprintf(device, 8, "dev%d", i);
		if (used_on(device) > 0)
			return;
	}
	support_fail("no device is in use");
}

static void begin(bool mirrored)
{
	pool = support_open("alpha", LOCAL_BYTES);
	load_catch_bus();
	region = mirrored ? load_redundant(pool, PAGES, false) : load_single(pool, "one", PAGES);
	load_begin(region, PAGES);
	load_await(1000);
}

static void finish(void)
{
	SUPPORT_OK(secpool_region_release(region, NULL));
	secpool_close(pool);
}

/* The device is taken back by a policy that has nothing against it. */
static void take_back(const char *device)
{
	reload("");
	support_attest(device, LOAD_WAIT_MS);
	support_wait_device(device, "online", true, LOAD_WAIT_MS);
}

/* Revoked by its id, or refused since its firmware is not listed any more: it is emptied, overwritten and offline, and the program has a new key. */
static void moves(bool mirrored)
{
	char device[8];

	begin(mirrored);
	find_used(device);
	revoke_device(device, "");
	load_await_events("device-revoked", device, "moves to other devices", 1);
	load_await_events("region-revoked", device,
		mirrored ? "data redundant: now move" : "data single: now move", 1);
	support_wait_device(device, "offline", false, LOAD_WAIT_MS);
	SUPPORT_CHECK(used_on(device) == 0);
	load_await_events("key-rotated", NULL, "", 1);
	load_await(1000);
	load_end();
	SUPPORT_CHECK(load_lost(region) == 0 && events_of("device-lost", device, "") == 0);
	finish();
	take_back(device);
}

/* Both of two fault domains are needed: nothing can move, and when the time is over the copy there is given up. keymgrd is killed meanwhile, which puts nothing off. */
static int given_up(void *arg)
{
	static const char lines[] = "  revoked: [dev1]\n  revoke_seconds: 4\n";
	struct secpool_event event;
	uint64_t began;

	(void)arg;
	reloads = 0;
	begin(true);
	revoke_device("dev1", "  revoke_seconds: 4\n");
	load_await_events("device-revoked", "dev1", "", 1);
	began = clock_now_ns();
	support_kill_daemon("keymgrd");
	write_policy(lines);
	support_up(2, "64M", support_path("policy.yaml"));
	load_await_events("device-lost", "dev1", "its time is over", 1);
	/* as long as the policy says and no longer, but for what a busy machine adds */
	if (clock_now_ns() - began > 30 * CLOCK_NS_PER_S)
		support_fail("it was given up only after %llu ms",
			(unsigned long long)((clock_now_ns() - began) / CLOCK_NS_PER_MS));
	if (!support_event(pool, SECPOOL_EVENT_DEVICE_LOST, LOAD_WAIT_MS, &event))
		support_fail("the program was not told");
	support_wait_device("dev1", "quarantined", false, LOAD_WAIT_MS);
	load_await_events("key-rotated", NULL, "", 1);
	load_await(1000);
	load_end();
	SUPPORT_CHECK(load_lost(region) == 0);
	finish();
	return 0;
}

/* The policy lets only what is redundant move: single data stays readable until its time is over, and is lost then. */
static int kept_and_lost(void *arg)
{
	struct secpool_event event;
	char device[8];
	size_t raised = 0;

	(void)arg;
	reloads = 0;
	begin(false);
	load_end();
	SUPPORT_OK(secpool_flush(region));
	find_used(device);
	revoke_device(device, "  revoke_drains: redundant\n  revoke_seconds: 4\n");
	load_await_events("region-revoked", device, "data single: now hold, then destroy", 1);
	load_check_all();
	if (!support_event(pool, SECPOOL_EVENT_REGION_LOST, LOAD_WAIT_MS, &event))
		support_fail("the program was not told what it lost");
	SUPPORT_CHECK(events_of("device-lost", device, "its time is over") == 1);
	for (size_t page = 0; page < PAGES; page++)
		raised += load_touch_raises(load_memory + page * LOAD_PAGE);
	SUPPORT_CHECK(raised > 0 && load_lost(region) > 0);
	load_await_events("key-rotated", NULL, "", 1);
	finish();
	return 0;
}

/* What the policy keeps there an operator may still drain. */
static int kept_and_drained(void *arg)
{
	char device[8];

	(void)arg;
	reloads = 0;
	begin(false);
	find_used(device);
	revoke_device(device, "  revoke_drains: none\n");
	load_await_events("region-revoked", device, "data single: now hold", 1);
	support_wait_device(device, "quarantined", false, LOAD_WAIT_MS);
	load_await(500);
	SUPPORT_CHECK(used_on(device) > 0);
	SUPPORT_CHECK(support_cli(NULL, 0, "device", "drain", device, "--no-wait", NULL) == 0);
	support_wait_device(device, "offline", false, LOAD_WAIT_MS);
	load_await(500);
	load_end();
	SUPPORT_CHECK(used_on(device) == 0 && load_lost(region) == 0);
	finish();
	return 0;
}

static int mirrored_moves(void *arg)
{
	(void)arg;
	moves(true);
	return 0;
}

static int single_moves(void *arg)
{
	(void)arg;
	moves(false);
	return 0;
}

static void run(unsigned devices, const char *what, int (*part)(void *arg))
{
	uint64_t began = clock_now_ns();

	support_up(devices, "64M", NULL);
	if (support_join(support_fork(part, NULL), 100000) != 0)
		support_fail("%s failed", what);
	printf("%s: %.1f s\n", what, (double)(clock_now_ns() - began) / (double)CLOCK_NS_PER_S);
	support_down();
}

int main(void)
{
	run(3, "mirror:2 moves", mirrored_moves);
	run(3, "no redundancy moves", single_moves);
	run(2, "no room, keymgrd killed", given_up);
	run(2, "kept by the policy", kept_and_lost);
	run(3, "kept, and drained by an operator", kept_and_drained);
	return 0;
}
