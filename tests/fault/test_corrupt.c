/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes that flip on a device (`secpool device inject corrupt:N`), thousands of places at once. Under a mirrored region every page is right, and the bad copies are written anew; without redundancy a
 * page is right or lost, and each lost one is told of with its cause. timeout: 180
 */
#include "lib/base/clock.h"
#include "tests/fault/load.h"

enum { PAGES = 4096, LOCAL_BYTES = 4 << 20 };

static void write_all(struct secpool_region *region, uint64_t round)
{
	uint8_t *memory = secpool_region_address(region);

	for (size_t page = 0; page < PAGES; page++)
		support_fill(memory + page * LOAD_PAGE, LOAD_PAGE, round * PAGES + page);
	SUPPORT_OK(secpool_flush(region));
}

static void read_all(struct secpool_region *region, uint64_t round)
{
	uint8_t *memory = secpool_region_address(region);

	for (size_t page = 0; page < PAGES; page++)
		if (!support_matches(memory + page * LOAD_PAGE, LOAD_PAGE, round * PAGES + page))
			support_fail("page %zu is not what was written", page);
}

/* Once something bad was met the whole region is checked, in the background: waits until nothing more is found. */
static struct secpool_stats settled(struct secpool *pool)
{
	struct secpool_stats before = load_stats(pool), now;

	for (;;) {
		clock_sleep_ns(CLOCK_NS_PER_S / 2);
		now = load_stats(pool);
		if (now.integrity_failures == before.integrity_failures &&
			now.repairs == before.repairs)
			return now;
		before = now;
	}
}

static int mirrored(void *arg)
{
	struct secpool *pool = support_open("alpha", LOCAL_BYTES);
	struct secpool_region *region = support_region(pool, (size_t)PAGES * LOAD_PAGE, 2);
	struct secpool_event event;
	struct secpool_stats stats;

	(void)arg;
	load_catch_bus();
	/* one after the other, for one of them has the copy that is read first; writing heals what was not read */
	for (uint64_t i = 0; i < 2; i++) {
		write_all(region, i);
		load_inject(i ? "dev1" : "dev0", "corrupt:4096");
		read_all(region, i);
	}
	stats = settled(pool);
	printf("mirror: %llu bad copies, %llu repaired\n",
		(unsigned long long)stats.integrity_failures, (unsigned long long)stats.repairs);
	SUPPORT_CHECK(stats.integrity_failures > 100 && stats.repairs == stats.integrity_failures);
	SUPPORT_CHECK(support_event(pool, SECPOOL_EVENT_BAD_COPY, 1000, &event));
	SUPPORT_CHECK(event.cause == SECPOOL_CAUSE_INTEGRITY);
	/* repaired: in the end the same pages again find nothing. The check of the whole region may pause and go on between two readings */
	for (unsigned round = 0;; round++) {
		stats = settled(pool);
		read_all(region, 1);
		read_all(region, 1);
		if (load_stats(pool).integrity_failures == stats.integrity_failures)
			break;
		SUPPORT_CHECK(round < 20);
	}
	SUPPORT_CHECK(load_lost(region) == 0);
	SUPPORT_OK(secpool_region_release(region, NULL));
	secpool_close(pool);
	return 0;
}

/* All copies go bad while all pages are resident and clean: the patrol finds it, and what is resident is written anew. Nothing is lost when it is needed. */
static int resident(void *arg)
{
	enum { FEW = 512 };
	struct secpool *pool = support_open("alpha", LOCAL_BYTES);
	struct secpool_region *region = support_region(pool, (size_t)FEW * LOAD_PAGE, 2), *other;
	uint8_t *memory = secpool_region_address(region), *room;
	struct secpool_stats stats;

	(void)arg;
	load_catch_bus();
	for (size_t page = 0; page < FEW; page++)
		support_fill(memory + page * LOAD_PAGE, LOAD_PAGE, page);
	SUPPORT_OK(secpool_flush(region));
	load_inject("dev0", "corrupt:4096");
	load_inject("dev1", "corrupt:4096");
	do /* as far as the patrol has not come yet */
		clock_sleep_ns(CLOCK_NS_PER_S / 10);
	while (load_stats(pool).repairs == 0);
	stats = settled(pool);
	printf("resident: %llu bad copies, %llu repaired\n",
		(unsigned long long)stats.integrity_failures, (unsigned long long)stats.repairs);
	SUPPORT_CHECK(stats.integrity_failures > 100 && stats.repairs == stats.integrity_failures);
	/* out of local memory with them */
	other = support_region(pool, (size_t)PAGES * LOAD_PAGE, 2);
	room = secpool_region_address(other);
	for (size_t page = 0; page < PAGES; page++)
		room[page * LOAD_PAGE] = 1;
	for (size_t page = 0; page < FEW; page++)
		if (!support_matches(memory + page * LOAD_PAGE, LOAD_PAGE, page))
			support_fail("page %zu is not what was written", page);
	SUPPORT_CHECK(load_lost(region) == 0);
	SUPPORT_OK(secpool_region_release(other, NULL));
	SUPPORT_OK(secpool_region_release(region, NULL));
	secpool_close(pool);
	return 0;
}

static int single(void *arg)
{
	struct secpool *pool = support_open("alpha", LOCAL_BYTES);
	struct secpool_region *region = load_single(pool, "one", PAGES);
	uint8_t *memory = secpool_region_address(region), buffer[LOAD_PAGE];
	size_t lost = 0, told = 0;
	struct secpool_event event;
	char device[8];

	(void)arg;
	load_catch_bus();
	load_find_device("one", device);
	write_all(region, 3);
	load_inject(device, "corrupt:4096");
	for (size_t page = 0; page < PAGES; page++) {
		uint8_t *at = memory + page * LOAD_PAGE;

		if (load_touch_raises(at + page % LOAD_PAGE)) {
			SUPPORT_CHECK(secpool_read(region, page * LOAD_PAGE, buffer, LOAD_PAGE) ==
				      SECPOOL_E_LOST);
			lost++;
		} else if (!support_matches(at, LOAD_PAGE, 3ull * PAGES + page)) {
			support_fail("page %zu is neither right nor lost", page);
		}
	}
	while (support_event(pool, SECPOOL_EVENT_REGION_LOST, 300, &event)) {
		SUPPORT_CHECK(event.cause == SECPOOL_CAUSE_INTEGRITY && event.region == region);
		SUPPORT_CHECK(strcmp(event.device, device) == 0);
		told += event.range.bytes / LOAD_PAGE;
	}
	printf("single: %zu pages lost, %zu told\n", lost, told);
	SUPPORT_CHECK(lost > 50 && told == lost && load_stats(pool).lost_pages == lost);
	/* the device is there, and one tenant's word is not enough to take it from others */
	support_wait_device(device, "online", false, LOAD_WAIT_MS);
	SUPPORT_OK(secpool_region_release(region, NULL));
	secpool_close(pool);
	return 0;
}

int main(void)
{
	support_up(2, "32M", NULL);
	SUPPORT_CHECK(support_join(support_fork(mirrored, NULL), 60000) == 0);
	SUPPORT_CHECK(support_join(support_fork(resident, NULL), 60000) == 0);
	SUPPORT_CHECK(support_join(support_fork(single, NULL), 60000) == 0);
	support_down();
	return 0;
}
