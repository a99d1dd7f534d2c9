/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Placement through the whole of secpool: devices of three tiers by the latency that they say they have, regions on the lowest tiers that hold them, copies in different domains, what a
 * pulled device had on the next tier; as `secpool device list` and `region list` show it. timeout: 120
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/os.h"
#include "lib/wire/msg.h"
#include "tests/support/support.h"

#define MIB (1ull << 20)
enum { DEVICES = 4, WAIT_MS = 20000 };

/* dev0 is what it is: memory of this machine */
static const char *const latencies[DEVICES] = {NULL, "90000", "5000", "5000"};
static const char *const tiers[DEVICES] = {"near", "rest", "far", "far"};

/* The device comes back with the latency in its identity, which is read when it is plugged. */
static void set_latency(unsigned device, const char *latency_ns)
{
	const char *path = support_path("devices/dev%u/identity.json", device);
	char id[16], text[1024], *old = NULL, *end;
	size_t bytes = 0;

	snprintf(id, sizeof id, "dev%u", device);
	SUPPORT_OK(os_read_file(path, sizeof text / 2, &old, &bytes));
	end = strrchr(old, '}');
	SUPPORT_CHECK(end != NULL);
	*end = '\0';
	snprintf(text, sizeof text, "%s, \"latency_ns\": %s}", old, latency_ns);
	free(old);
	SUPPORT_OK(os_write_file_durable(path, text, strlen(text), 0600));
	SUPPORT_CHECK(support_cli(NULL, 0, "device", "pull", id, NULL) == 0);
	SUPPORT_CHECK(support_cli(NULL, 0, "device", "plug", id, NULL) == 0);
	support_wait_device(id, "online", true, WAIT_MS);
}

static bool check_tier(const struct msg *row, void *arg)
{
	unsigned *seen = arg;

	for (unsigned i = 0; i < DEVICES; i++) {
		char id[16];

		snprintf(id, sizeof id, "dev%u", i);
		if (strcmp(row->u.use_row.id, id) != 0)
			continue;
		if (strcmp(row->u.use_row.tier, tiers[i]) != 0)
			support_fail("%s is in tier '%s', not '%s', with %llu ns", id,
				row->u.use_row.tier, tiers[i],
				(unsigned long long)row->u.use_row.latency_ns);
		SUPPORT_CHECK(row->u.use_row.latency_ns > 0);
		(*seen)++;
	}
	return true;
}

struct wanted {
	const char *name, *devices, *or_devices;
	char found[256];
};

/* The same words, in whatever order: it is that in which the devices came first. Ids are no part of each other. */
static bool same_words(const char *found, const char *wanted)
{
	char words[64], *rest = NULL;

	snprintf(words, sizeof words, "%s", wanted);
	for (char *word = strtok_r(words, " ", &rest); word; word = strtok_r(NULL, " ", &rest))
		if (!strstr(found, word))
			return false;
	return strlen(found) == strlen(wanted);
}

static bool take_region(const struct msg *row, void *arg)
{
	struct wanted *wanted = arg;

	if (strcmp(row->u.region_row.name, wanted->name) == 0)
		snprintf(wanted->found, sizeof wanted->found, "%s", row->u.region_row.devices);
	return true;
}

static bool is_there(void *arg)
{
	struct wanted *wanted = arg;

	SUPPORT_OK(
		support_list("keymgr.sock", MSG_LIST_REGIONS, MSG_REGION_ROW, take_region, wanted));
	return same_words(wanted->found, wanted->devices) ||
	       same_words(wanted->found, wanted->or_devices);
}

static void expect_places(const char *name, const char *devices, const char *or_devices)
{
	struct wanted wanted = {.name = name, .devices = devices, .or_devices = or_devices};

	if (!support_wait(is_there, &wanted, WAIT_MS))
		support_fail("region %s is on '%s', not on '%s' or '%s'", name, wanted.found,
			devices, or_devices);
}

static struct secpool_region *make(
	struct secpool *pool, const char *name, unsigned copies, size_t bytes)
{
	struct secpool_region_options options = {.size = sizeof options,
		.bytes = bytes,
		.redundancy = copies > 1 ? SECPOOL_REDUNDANCY_MIRROR : SECPOOL_REDUNDANCY_NONE,
		.copies = copies,
		.on_loss = copies > 1 ? SECPOOL_ON_LOSS_FAILOVER : SECPOOL_ON_LOSS_SIGBUS,
		.name = name};
	struct secpool_region *region;

	SUPPORT_OK(secpool_region_create(pool, &options, &region));
	return region;
}

static void show(void)
{
	char text[8192];

	SUPPORT_CHECK(support_cli(text, sizeof text, "device", "list", NULL) == 0);
	SUPPORT_CHECK(strstr(text, "TIER") && strstr(text, "near") && strstr(text, "far"));
	SUPPORT_CHECK(support_cli(text, sizeof text, "device", "list", "--json", NULL) == 0);
	SUPPORT_CHECK(strstr(text, "\"latency_ns\":90000") && strstr(text, "\"tier\":\"rest\""));
	SUPPORT_CHECK(support_cli(text, sizeof text, "region", "list", NULL) == 0);
	SUPPORT_CHECK(strstr(text, "DEVICES") && strstr(text, "dev0"));
}

int main(void)
{
	struct secpool *pool;
	unsigned seen = 0;

	support_up(DEVICES, "64M", NULL);
	for (unsigned i = 0; i < DEVICES; i++)
		if (latencies[i])
			set_latency(i, latencies[i]);
	support_wait_device("dev0", "online", true, WAIT_MS);
	SUPPORT_OK(support_list("keymgr.sock", MSG_LIST_USE, MSG_USE_ROW, check_tier, &seen));
	SUPPORT_CHECK(seen == DEVICES);
	pool = support_open("alpha", 4 * MIB);
	make(pool, "one", 1, 8 * MIB);
	expect_places("one", "dev0", "dev0");
	make(pool, "two", 2, 8 * MIB);
	expect_places("two", "dev0 dev2", "dev0 dev3");
	/* more than tier near has left (48 MiB): as much as there is of it, and none of the slowest */
	make(pool, "large", 1, 60 * MIB);
	expect_places("large", "dev0 dev2", "dev0 dev3");
	show();
	/* what was on it goes to the other far device, though dev1 has more free space */
	SUPPORT_CHECK(support_cli(NULL, 0, "device", "pull", "dev0", NULL) == 0);
	expect_places("two", "dev2 dev3", "dev2 dev3");
	/* and then to the slowest, where there is nothing else */
	SUPPORT_CHECK(support_cli(NULL, 0, "device", "pull", "dev2", NULL) == 0);
	expect_places("two", "dev1 dev3", "dev1 dev3");
	secpool_close(pool);
	support_down();
	return 0;
}
