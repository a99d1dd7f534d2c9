/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device is added while a program reads and writes mirrored regions that fill two others to the half: what they have there moves to it, one after the other, with keymgrd killed in the middle of the first. The copies stay apart, every
 * byte is what was written, and when it is even nothing moves any more. timeout: 180
 */
#include "tests/fault/load.h"

enum { REGIONS = 4, PAGES = 2048, LOCAL_BYTES = 4 << 20 };
#define REGION_BYTES ((uint64_t)PAGES * LOAD_PAGE)

static bool take_use(const struct msg *row, void *arg)
{
	struct msg_use_row *found = arg;

	if (strcmp(row->u.use_row.id, found->id) == 0)
		*found = row->u.use_row;
	return true;
}

static uint64_t used_on(unsigned device)
{
	struct msg_use_row found = {.slot = 0};

	snprintf(found.id, sizeof found.id, "dev%u", device);
	/* keymgrd may be starting */
	if (support_list("keymgr.sock", MSG_LIST_USE, MSG_USE_ROW, take_use, &found))
		return 0;
	return found.used_bytes;
}

static bool is_even(void *arg)
{
	(void)arg;
	return used_on(2) == 2 * REGION_BYTES && used_on(0) == 3 * REGION_BYTES &&
	       used_on(1) == 3 * REGION_BYTES;
}

static bool check_apart(const struct msg *row, void *arg)
{
	const struct msg_region_row *region = &row->u.region_row;
	unsigned *seen = arg;

	if (region->live_lanes != 2 || !strchr(region->devices, ' '))
		support_fail("region %llu is on '%s', with %u lanes",
			(unsigned long long)region->region, region->devices, region->live_lanes);
	(*seen)++;
	return true;
}

static bool count_rebalancing(const struct msg *row, void *arg)
{
	*(unsigned *)arg += strcmp(row->u.event_row.kind, "rebalancing") == 0;
	return true;
}

static unsigned rebalanced(void)
{
	unsigned count = 0;

	SUPPORT_OK(support_list(
		"keymgr.sock", MSG_LIST_EVENTS, MSG_EVENT_ROW, count_rebalancing, &count));
	return count;
}

static void check_others(struct secpool_region *const regions[REGIONS], bool writes)
{
	for (size_t i = 1; i < REGIONS; i++) {
		uint8_t *memory = secpool_region_address(regions[i]);

		for (size_t page = 0; page < PAGES; page++) {
			uint8_t *at = memory + page * LOAD_PAGE;

			if (writes)
				support_fill(at, LOAD_PAGE, i * PAGES + page);
			else if (!support_matches(at, LOAD_PAGE, i * PAGES + page))
				support_fail(
					"page %zu of region %zu is not what was written", page, i);
		}
	}
}

int main(void)
{
	struct secpool_region *regions[REGIONS];
	struct secpool *pool;
	unsigned seen = 0, moves;

	support_policy_lines = "rebalance_bytes_per_second: 4M\n";
	support_up(2, "64M", NULL);
	pool = support_open("alpha", LOCAL_BYTES);
	load_catch_bus();
	for (size_t i = 0; i < REGIONS; i++)
		regions[i] = load_redundant(pool, PAGES, false);
	check_others(regions, true);
	load_begin(regions[0], PAGES);
	load_await(500);
	SUPPORT_CHECK(used_on(0) == 4 * REGION_BYTES && used_on(1) == 4 * REGION_BYTES);
	SUPPORT_CHECK(rebalanced() == 0);
	support_up(3, "64M", NULL);
	load_await_events("rebalancing", NULL, "50 % of the device are in use, and 0 % of dev2", 1);
	support_kill_daemon("keymgrd");
	load_await(200);
	support_up(3, "64M", NULL);
	if (!support_wait(is_even, NULL, 3 * LOAD_WAIT_MS))
		support_fail("dev0, dev1, dev2 have %llu, %llu, %llu MiB in use",
			(unsigned long long)used_on(0) >> 20, (unsigned long long)used_on(1) >> 20,
			(unsigned long long)used_on(2) >> 20);
	load_await(500);
	load_end();
	check_others(regions, false);
	SUPPORT_OK(
		support_list("keymgr.sock", MSG_LIST_REGIONS, MSG_REGION_ROW, check_apart, &seen));
	SUPPORT_CHECK(seen == REGIONS);
	/* 12.5 percent are still more than the policy's 10, but a move would turn it round: two looks more change nothing */
	moves = rebalanced();
	clock_sleep_ns(6 * CLOCK_NS_PER_S);
	SUPPORT_CHECK(rebalanced() == moves && is_even(NULL));
	for (size_t i = 0; i < REGIONS; i++) {
		SUPPORT_CHECK(load_lost(regions[i]) == 0);
		SUPPORT_OK(secpool_region_release(regions[i], NULL));
	}
	secpool_close(pool);
	support_down();
	return 0;
}
