/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pulled device is destroyed by key: the stored key of each region that had space there is overwritten within 100 ms, and nowhere in the key store of afterwards are its bytes; other regions keep
 * theirs. The programs go on, also after a restart of keymgrd, and their regions are released as ever. timeout: 120
 */
#include "keymgr/wraps.h"
#include "tests/fault/load.h"

enum { PAGES = 1024, LOCAL_BYTES = 4 << 20, SLOTS = 3 };
/* DESIGN.md section 6; said, and held to ten times as much on a busy machine */
#define PROMISED_NS (100 * CLOCK_NS_PER_MS)

static uint8_t before[SLOTS][KEYFILE_SLOT_BYTES], after[SLOTS][KEYFILE_SLOT_BYTES];

struct destroyed {
	uint64_t lost_ns, longest_ns; /* from the device's loss */
	unsigned count;
};

static bool take_destroyed(const struct msg *row, void *arg)
{
	const struct msg_event_row *event = &row->u.event_row;
	struct destroyed *destroyed = arg;

	if (strcmp(event->kind, "device-lost") == 0)
		destroyed->lost_ns = event->time_ns;
	if (strcmp(event->kind, "key-destroyed") != 0)
		return true;
	destroyed->count++;
	SUPPORT_CHECK(destroyed->lost_ns != 0);
	if (event->time_ns - destroyed->lost_ns > destroyed->longest_ns)
		destroyed->longest_ns = event->time_ns - destroyed->lost_ns;
	return true;
}

/* How many regions' keys were destroyed, and the longest time that it took. */
static unsigned count_destroyed(uint64_t *ret_longest_ns)
{
	struct destroyed destroyed = {.count = 0};

	SUPPORT_OK(support_list(
		"keymgr.sock", MSG_LIST_EVENTS, MSG_EVENT_ROW, take_destroyed, &destroyed));
	*ret_longest_ns = destroyed.longest_ns;
	return destroyed.count;
}

static void fill(struct secpool_region *region)
{
	uint8_t *memory = secpool_region_address(region);

	for (size_t page = 0; page < PAGES; page++)
		support_fill(memory + page * LOAD_PAGE, LOAD_PAGE, page);
	SUPPORT_OK(secpool_flush(region));
}

static void check(struct secpool_region *region)
{
	uint8_t *memory = secpool_region_address(region);

	for (size_t page = 0; page < PAGES; page++)
		if (!support_matches(memory + page * LOAD_PAGE, LOAD_PAGE, page))
			support_fail("page %zu is not what was written", page);
}

static bool any_destroyed(void *arg)
{
	uint64_t longest_ns;

	(void)arg;
	return count_destroyed(&longest_ns) > 0;
}

static void check_store(void)
{
	uint64_t longest_ns;
	unsigned changed = 0, destroyed;

	/* the program may see the loss before keymgrd does */
	if (!support_wait(any_destroyed, NULL, LOAD_WAIT_MS))
		support_fail("no key was destroyed");
	load_read_store(SLOTS, after);
	for (int i = 0; i < SLOTS; i++) {
		bool differs = memcmp(before[i], after[i], KEYFILE_SLOT_BYTES) !=
			       0; /* lint: memcmp of public bytes */
		size_t found = load_count_in_state(before[i]);
		changed += differs;
		if (found != (differs ? 0 : 1))
			support_fail(
				"slot %d: its old bytes are %zu times in the key store", i, found);
	}
	destroyed = count_destroyed(&longest_ns);
	printf("%u of %d keys destroyed, the last %.1f ms after the loss\n", destroyed, SLOTS,
		(double)longest_ns / (double)CLOCK_NS_PER_MS);
	SUPPORT_CHECK(changed >= 1 && changed < SLOTS && destroyed == changed);
	SUPPORT_CHECK(longest_ns < 10 * PROMISED_NS);
}

int main(void)
{
	struct secpool_region *one, *two, *mirror;
	struct secpool_event event;
	struct secpool *pool;
	char device[8];

	support_up(4, "64M", NULL);
	pool = support_open("alpha", LOCAL_BYTES);
	load_catch_bus();
	one = load_single(pool, "one", PAGES);
	two = load_single(pool, "two", PAGES);
	mirror = support_region(pool, PAGES * LOAD_PAGE, 2);
	fill(one);
	fill(two);
	fill(mirror);
	load_read_store(SLOTS, before);
	load_find_device("one", device);
	SUPPORT_CHECK(support_cli(NULL, 0, "device", "pull", device, NULL) == 0);
	if (!support_event(pool, SECPOOL_EVENT_DEVICE_LOST, LOAD_WAIT_MS, &event))
		support_fail("the program was not told of the loss");
	check_store();
	check(two);
	check(mirror);
	support_kill_daemon("keymgrd");
	support_up(4, "64M", NULL);
	support_wait_regions(3, LOAD_WAIT_MS);
	if (!support_event(pool, SECPOOL_EVENT_DAEMON_BACK, LOAD_WAIT_MS, &event))
		support_fail("the program does not see keymgrd again");
	fill(mirror);
	check(mirror);
	SUPPORT_OK(secpool_region_release(one, NULL));
	SUPPORT_OK(secpool_region_release(two, NULL));
	SUPPORT_OK(secpool_region_release(mirror, NULL));
	secpool_close(pool);
	support_down();
	return 0;
}
