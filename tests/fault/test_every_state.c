/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A real emulated device is brought into each state of docs/states.md while a program reads and writes a mirror that lies on it where the state allows that; and in each the device is pulled, hotplugd is killed, keymgrd is
 * killed. Then the right state is reached, every byte is what was written, and nothing hangs. An argument names the one state to run. timeout: 900
 */
#include <stdlib.h>

#include "lib/base/os.h"
#include "tests/fault/load.h"

enum { PAGES = 2048, LOCAL_BYTES = 4 << 20, DEVICES = 4, TEXT_MOST = 1 << 16 };

static char device[8]; /* the one that it is about */

/* ---- the devices, from outside ---- */

struct seen {
	const char *id;
	struct msg_device_row row;
	bool found;
};

static bool take_row(const struct msg *msg, void *arg)
{
	struct seen *seen = arg;

	if (strcmp(msg->u.device_row.id, seen->id) != 0)
		return true;
	seen->row = msg->u.device_row;
	seen->found = true;
	return false;
}

struct wanted {
	const char *id;
	uint32_t state;
};

static bool is_in_state(void *arg)
{
	const struct wanted *wanted = arg;
	struct seen seen = {.id = wanted->id};

	return support_list("hotplug.sock", MSG_LIST_DEVICES, MSG_DEVICE_ROW, take_row, &seen) ==
		       SECPOOL_OK &&
	       seen.found && seen.row.state == wanted->state;
}

/* By hotplugd alone: keymgrd may be away. */
static void await_state(const char *id, uint32_t state)
{
	struct wanted wanted = {id, state};
	struct seen seen = {.id = id};

	if (support_wait(is_in_state, &wanted, 2 * LOAD_WAIT_MS))
		return;
	(void)!support_list("hotplug.sock", MSG_LIST_DEVICES, MSG_DEVICE_ROW, take_row, &seen);
	support_fail("%s should be %s, is %s (%s)", id, msg_device_state_name(state),
		seen.found ? msg_device_state_name(seen.row.state) : "not listed", seen.row.reason);
}

static bool take_use(const struct msg *row, void *arg)
{
	struct msg_use_row *found = arg;

	if (strcmp(row->u.use_row.id, found->id) == 0)
		*found = row->u.use_row;
	return true;
}

static struct msg_use_row use_of(const char *id)
{
	struct msg_use_row found = {.slot = 0};

	MSG_SET(found.id, id);
	SUPPORT_OK(support_list("keymgr.sock", MSG_LIST_USE, MSG_USE_ROW, take_use, &found));
	return found;
}

/* A device that the region is on. */
static void find_used(char id[8])
{
	for (int i = 0; i < DEVICES; i++) {
		snprintf(id, 8, "dev%d", i);
		if (use_of(id).used_bytes > 0 && use_of(id).state == MSG_DEVICE_ONLINE)
			return;
	}
	support_fail("no device is in use");
}

static void command(const char *verb, const char *id, const char *argument)
{
	char text[512] = "";

	if (support_cli(text, sizeof text, "device", verb, id, argument, NULL) != 0)
		support_fail("%s %s: %s", verb, id, text);
}

/* ---- the policy ---- */

static void reload(const char *lines)
{
	static unsigned reloads;
	char text[TEXT_MOST], *before = NULL;
	size_t bytes = 0;
	int length;

	SUPPORT_OK(os_read_file(support_policy(0), TEXT_MOST / 2, &before, &bytes));
	length = snprintf(text, sizeof text, "%.*s%s", (int)bytes, before, lines);
	SUPPORT_CHECK(length > 0 && length < (int)sizeof text);
	SUPPORT_OK(os_write_file_durable(support_path("policy.yaml"), text, (size_t)length, 0600));
	free(before);
	SUPPORT_CHECK(kill(support_daemon("keymgrd"), SIGHUP) == 0);
	load_await_events("policy-reloaded", NULL, "", ++reloads);
}

/* ---- the device's TPM ---- */

static pid_t find_tpm(const char *id)
{
	DIR *folder = opendir("/proc");
	struct dirent *entry;
	char wanted[512];
	pid_t found = 0;

	snprintf(wanted, sizeof wanted, "%s", support_path("devices/%s/tpm.sock", id));
	SUPPORT_CHECK(folder != NULL);
	while (!found && (entry = readdir(folder)) != NULL) {
		char path[64], line[4096] = "";
		int fd;
		ssize_t count;

		if (entry->d_name[0] < '1' || entry->d_name[0] > '9')
			continue;
		snprintf(path, sizeof path, "/proc/%.20s/cmdline", entry->d_name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		count = fd < 0 ? 0 : read(fd, line, sizeof line - 1);
		os_close(&fd);
		if (count > 0 && memmem(line, (size_t)count, wanted, strlen(wanted)))
			found = (pid_t)atoi(entry->d_name);
	}
	closedir(folder);
	return found;
}

static pid_t stopped_tpm;

static void stop_tpm(void)
{
	stopped_tpm = find_tpm(device);
	SUPPORT_CHECK(stopped_tpm > 0 && kill(stopped_tpm, SIGSTOP) == 0);
}

/* One that died with hotplugd, or with its device, is no more: another is in its place. */
static void continue_tpm(void)
{
	if (stopped_tpm > 0 && find_tpm(device) == stopped_tpm)
		SUPPORT_CHECK(kill(stopped_tpm, SIGCONT) == 0);
	stopped_tpm = 0;
}

/* ---- into each state ---- */

static void be_online(void)
{
}

static void be_lost(void)
{
	command("pull", device, NULL);
}

static void be_offline(void)
{
	command("drain", device, NULL);
}

static void be_absent(void)
{
	be_offline();
	command("pull", device, NULL);
}

struct returned {
	const char *id;
	uint32_t times;
};

static bool has_returned(void *arg)
{
	const struct returned *returned = arg;
	struct seen seen = {.id = returned->id};

	return support_list("hotplug.sock", MSG_LIST_DEVICES, MSG_DEVICE_ROW, take_row, &seen) ==
		       SECPOOL_OK &&
	       seen.found && seen.row.returns == returned->times;
}

/* It comes back by itself until it has to wait, and so often that even a busy machine sees that: the last wait is 8 s. */
static void be_discovered(void)
{
	enum { TIMES = 7 };

	for (uint32_t i = 1; i <= TIMES; i++) {
		struct returned returned = {device, i};

		command("inject", device, "flap:1");
		SUPPORT_CHECK(support_wait(has_returned, &returned, LOAD_WAIT_MS));
		if (i < TIMES)
			await_state(device, MSG_DEVICE_ONLINE);
	}
	await_state(device, MSG_DEVICE_DISCOVERED);
}

static pthread_t attester;

static void *attest(void *arg)
{
	(void)arg;
	(void)support_cli(NULL, 0, "device", "attest", device, NULL);
	return NULL;
}

/* Its TPM says nothing. */
static void be_attesting(void)
{
	be_offline();
	stop_tpm();
	SUPPORT_CHECK(pthread_create(&attester, NULL, attest, NULL) == 0);
}

/* All others but the one that has the other copy are away: there is no room to move to. */
static void be_draining(void)
{
	for (int i = 0; i < DEVICES; i++) {
		char other[8];

		snprintf(other, sizeof other, "dev%d", i);
		if (use_of(other).used_bytes == 0)
			command("pull", other, NULL);
	}
	command("drain", device, "--no-wait");
}

static void be_suspect(void)
{
	command("inject", device, "stuck");
	await_state(device, MSG_DEVICE_SUSPECT);
	command("inject", device, "normal");
}

static void be_quarantined(void)
{
	char lines[128];

	snprintf(lines, sizeof lines, "  revoked: [%s]\n  revoke_drains: none\n", device);
	reload(lines);
}

static const struct row {
	uint32_t state;
	void (*be)(void);
	/* what follows from a pull, a killed hotplugd, a killed keymgrd */
	uint32_t pulled, hotplugd, keymgrd;
} rows[] = {
	{MSG_DEVICE_ABSENT, be_absent, MSG_DEVICE_ABSENT, MSG_DEVICE_LOST, MSG_DEVICE_ABSENT},
	{MSG_DEVICE_DISCOVERED, be_discovered, MSG_DEVICE_LOST, MSG_DEVICE_ONLINE,
		MSG_DEVICE_ONLINE},
	{MSG_DEVICE_ATTESTING, be_attesting, MSG_DEVICE_LOST, MSG_DEVICE_ONLINE, MSG_DEVICE_ONLINE},
	{MSG_DEVICE_ONLINE, be_online, MSG_DEVICE_LOST, MSG_DEVICE_ONLINE, MSG_DEVICE_ONLINE},
	{MSG_DEVICE_DRAINING, be_draining, MSG_DEVICE_LOST, MSG_DEVICE_DRAINING,
		MSG_DEVICE_DRAINING},
	{MSG_DEVICE_OFFLINE, be_offline, MSG_DEVICE_ABSENT, MSG_DEVICE_OFFLINE, MSG_DEVICE_OFFLINE},
	{MSG_DEVICE_QUARANTINED, be_quarantined, MSG_DEVICE_ABSENT, MSG_DEVICE_QUARANTINED,
		MSG_DEVICE_QUARANTINED},
	{MSG_DEVICE_SUSPECT, be_suspect, MSG_DEVICE_LOST, MSG_DEVICE_SUSPECT, MSG_DEVICE_SUSPECT},
	{MSG_DEVICE_LOST, be_lost, MSG_DEVICE_LOST, MSG_DEVICE_LOST, MSG_DEVICE_LOST},
};
_Static_assert(sizeof rows / sizeof *rows == MSG_DEVICE_STATES, "every state");

/* ---- and what is done to it there ---- */

enum deed { DEED_PULL, DEED_HOTPLUGD, DEED_KEYMGRD, DEEDS };
static const char *const deed_names[DEEDS] = {"pulled", "hotplugd killed", "keymgrd killed"};

/* The daemon is started again: by secpool up, which waits for what the devices come to. */
static void start_again(const char *name)
{
	support_kill_daemon(name);
	continue_tpm();
	support_up(DEVICES, "64M", support_path("policy.yaml"));
}

/* A device whose media are out already can't be pulled: that is refused, and changes nothing. */
static void pull(uint32_t state)
{
	bool is_out = state == MSG_DEVICE_ABSENT || state == MSG_DEVICE_LOST;

	if (support_cli(NULL, 0, "device", "pull", device, NULL) != (is_out ? 1 : 0))
		support_fail("pull of %s, which is %s", device, msg_device_state_name(state));
	continue_tpm();
}

static void do_deed(const struct row *row, enum deed deed)
{
	switch (deed) {
	case DEED_PULL:
		pull(row->state);
		await_state(device, row->pulled);
		break;
	case DEED_HOTPLUGD:
		start_again("hotplugd");
		await_state(device, row->hotplugd);
		break;
	case DEED_KEYMGRD:
		start_again("keymgrd");
		await_state(device, row->keymgrd);
		break;
	case DEEDS:
		break;
	}
	if (row->state == MSG_DEVICE_ATTESTING)
		SUPPORT_CHECK(pthread_join(attester, NULL) == 0);
}

/* All devices are online again, with all of their space free that is not in use. */
static void mend(const struct row *row)
{
	if (row->state == MSG_DEVICE_QUARANTINED)
		reload("");
	for (int i = 0; i < DEVICES; i++) {
		struct seen seen;
		char id[8];

		snprintf(id, sizeof id, "dev%d", i);
		seen = (struct seen){.id = id};
		SUPPORT_OK(support_list(
			"hotplug.sock", MSG_LIST_DEVICES, MSG_DEVICE_ROW, take_row, &seen));
		SUPPORT_CHECK(seen.found);
		if (seen.row.state == MSG_DEVICE_LOST || seen.row.state == MSG_DEVICE_ABSENT)
			command("plug", id, NULL);
		else if (seen.row.state != MSG_DEVICE_ONLINE)
			support_attest(id, 2 * LOAD_WAIT_MS);
	}
	for (int i = 0; i < DEVICES; i++) {
		char id[8];

		snprintf(id, sizeof id, "dev%d", i);
		support_wait_device(id, "online", true, 2 * LOAD_WAIT_MS);
	}
}

static bool is_whole(const struct msg *msg, void *arg)
{
	*(bool *)arg = msg->u.region_row.live_lanes == msg->u.region_row.lanes &&
		       msg->u.region_row.rebuild_bytes == 0;
	return false;
}

static bool region_is_whole(void *arg)
{
	bool whole = false;

	(void)arg;
	return support_list("keymgr.sock", MSG_LIST_REGIONS, MSG_REGION_ROW, is_whole, &whole) ==
		       SECPOOL_OK &&
	       whole;
}

/* The program goes on, with every byte; both copies are there before the next one is taken away. */
static void check(struct secpool_region *region)
{
	load_await(500);
	SUPPORT_CHECK(load_lost(region) == 0);
	if (!support_wait(region_is_whole, NULL, 2 * LOAD_WAIT_MS))
		support_fail("the region did not get whole again");
}

static void run(struct secpool_region *region, const struct row *row, enum deed deed)
{
	uint64_t began = clock_now_ns();

	find_used(device);
	row->be();
	await_state(device, row->state);
	load_await(200);
	do_deed(row, deed);
	load_await(200);
	mend(row);
	check(region);
	printf("%s, %s: %.1f s\n", msg_device_state_name(row->state), deed_names[deed],
		(double)(clock_now_ns() - began) / (double)CLOCK_NS_PER_S);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	struct secpool_region *region;
	struct secpool *pool;

	support_up(DEVICES, "64M", NULL);
	pool = support_open("alpha", LOCAL_BYTES);
	load_catch_bus();
	region = load_redundant(pool, PAGES, false);
	load_begin(region, PAGES);
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
		for (int deed = 0; deed < DEEDS; deed++)
			if (argc < 2 || strcmp(argv[1], msg_device_state_name(rows[i].state)) == 0)
				run(region, &rows[i], (enum deed)deed);
	load_end();
	SUPPORT_CHECK(load_lost(region) == 0);
	SUPPORT_OK(secpool_region_release(region, NULL));
	secpool_close(pool);
	support_down();
	return 0;
}
