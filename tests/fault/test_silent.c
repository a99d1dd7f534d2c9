/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device that goes silent before it is gone: it reads as zeros and swallows stores, as a pulled CXL device does until the kernel notices. Under a mirrored or coded region the
 * program notices nothing. Without redundancy a page is right or lost, never zeros; and what was written to when the device was silent already is never lost, because a write-back counts only when the
 * device was seen alive after it. A program that does nothing is told all the same. timeout: 240
 */
#include "tests/fault/load.h"

enum { PAGES = 4096, LOCAL_BYTES = 4 << 20, SILENT_MS = 1500 };

/* arg: NULL for a mirror, else an erasure code */
static int redundant(void *arg)
{
	struct secpool *pool = support_open("alpha", LOCAL_BYTES);
	struct secpool_region *region = load_redundant(pool, PAGES, arg != NULL);
	struct secpool_event event;

	load_catch_bus();
	load_begin(region, PAGES);
	for (int i = 0; i < 3; i++) {
		uint64_t began;
		pthread_t pull;
		char id[8];

		snprintf(id, sizeof id, "dev%d", i);
		load_await(2000);
		pull = load_pull_silently(id, SILENT_MS);
		began = clock_now_ns();
		if (!support_event(pool, SECPOOL_EVENT_DEVICE_LOST, LOAD_WAIT_MS, &event))
			support_fail("no event for the loss of %s", id);
		SUPPORT_CHECK(strcmp(event.device, id) == 0);
		/* found by what it answered, not by the cut at the end of the silence */
		SUPPORT_CHECK(event.time_ns < began + SILENT_MS * CLOCK_NS_PER_MS / 2);
		load_await(5000);
		SUPPORT_CHECK(pthread_join(pull, NULL) == 0);
		load_await(1000);
		load_plug(id);
		/* the next one only when the copies are complete again */
		clock_sleep_ns(CLOCK_NS_PER_S);
		SUPPORT_OK(secpool_flush(region));
	}
	load_end();
	SUPPORT_CHECK(load_lost(region) == 0);
	/* a device that is not there has no bad bytes */
	SUPPORT_CHECK(load_stats(pool).integrity_failures == 0);
	printf("%s: %llu accesses, the longest %.1f ms\n", arg ? "coded" : "mirror",
		(unsigned long long)load_accesses, (double)load_longest_ns / CLOCK_NS_PER_MS);
	SUPPORT_OK(secpool_region_release(region, NULL));
	secpool_close(pool);
	return 0;
}

/* Every page of the first half is right or lost, every one of the second half right. */
static size_t check_single(struct secpool_region *region)
{
	uint8_t *memory = secpool_region_address(region), buffer[LOAD_PAGE];
	size_t lost = 0;

	for (size_t page = 0; page < 2 * PAGES; page++) {
		uint8_t *at = memory + page * LOAD_PAGE;

		if (load_touch_raises(at + page % LOAD_PAGE)) {
			if (page >= PAGES)
				support_fail("page %zu, written in the silence, is lost", page);
			SUPPORT_CHECK(secpool_read(region, page * LOAD_PAGE, buffer, LOAD_PAGE) ==
				      SECPOOL_E_LOST);
			lost++;
		} else if (!support_matches(at, LOAD_PAGE, page + 1)) {
			support_fail("page %zu is neither right nor lost", page);
		}
	}
	return lost;
}

static int single(void *arg)
{
	struct secpool *pool = support_open("alpha", LOCAL_BYTES);
	struct secpool_region *region = load_single(pool, "goes", 2 * PAGES);
	uint8_t *memory = secpool_region_address(region);
	struct secpool_event event;
	char device[8];
	pthread_t pull;
	size_t lost;

	(void)arg;
	load_catch_bus();
	load_find_device("goes", device);
	for (size_t page = 0; page < PAGES; page++)
		support_fill(memory + page * LOAD_PAGE, LOAD_PAGE, page + 1);
	pull = load_pull_silently(device, SILENT_MS);
	for (size_t page = PAGES; page < 2 * PAGES; page++)
		support_fill(memory + page * LOAD_PAGE, LOAD_PAGE, page + 1);
	lost = check_single(region);
	SUPPORT_CHECK(pthread_join(pull, NULL) == 0);
	SUPPORT_CHECK(check_single(region) == lost);
	printf("single: %zu of %d pages were lost\n", lost, 2 * PAGES);
	SUPPORT_CHECK(lost > 0 && lost < PAGES);
	/* as of a device that is gone: nothing was found to be wrong */
	while (support_event(pool, SECPOOL_EVENT_REGION_LOST, 300, &event))
		SUPPORT_CHECK(event.cause == SECPOOL_CAUSE_REMOVED);
	SUPPORT_CHECK(load_stats(pool).integrity_failures == 0);
	SUPPORT_OK(secpool_region_release(region, NULL));
	secpool_close(pool);
	load_plug(device);
	return 0;
}

/* The program touches nothing, and hears of it in the silence. */
static int idle(void *arg)
{
	struct secpool *pool = support_open("alpha", LOCAL_BYTES);
	struct secpool_event event;
	uint64_t began;
	pthread_t pull;

	(void)arg;
	SUPPORT_CHECK(support_event(pool, SECPOOL_EVENT_DEVICE_ONLINE, LOAD_WAIT_MS, &event));
	clock_sleep_ns(200ull * CLOCK_NS_PER_MS);
	pull = load_pull_silently("dev0", SILENT_MS);
	began = clock_now_ns();
	SUPPORT_CHECK(support_event(pool, SECPOOL_EVENT_DEVICE_LOST, LOAD_WAIT_MS, &event));
	SUPPORT_CHECK(event.time_ns < began + SILENT_MS * CLOCK_NS_PER_MS / 2);
	SUPPORT_CHECK(pthread_join(pull, NULL) == 0);
	secpool_close(pool);
	return 0;
}

int main(void)
{
#ifdef SILENT_MODE
	support_fault_mode = SILENT_MODE;
#endif
	support_up(3, "64M", NULL);
	SUPPORT_CHECK(support_join(support_fork(redundant, NULL), 90000) == 0);
	support_down();
	support_up(4, "64M", NULL);
	SUPPORT_CHECK(support_join(support_fork(redundant, &load_pages), 90000) == 0);
	support_down();
	support_up(2, "64M", NULL);
	SUPPORT_CHECK(support_join(support_fork(single, NULL), 60000) == 0);
	SUPPORT_CHECK(support_join(support_fork(idle, NULL), 60000) == 0);
	support_down();
	return 0;
}
