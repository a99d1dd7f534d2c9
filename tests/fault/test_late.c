/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Devices that answer late. One that is stuck is given up after the policy's bound: a mirrored or coded region goes on, a region with one copy gives SIGBUS and errors, keymgrd and hotplugd find out, and a pool can be closed though
 * the device still does not answer. One that is slow beyond the first bound stays, but what has another copy is not read from it, and what has none is right. timeout: 300
 */
#include "tests/fault/load.h"

enum {
	PAGES = 4096,
	LOCAL_BYTES = 4 << 20,
	GONE_MS = 1000,		  /* the default policy's */
	SLOW_MS = 200,		  /* between its bounds */
	LONGEST_MS = 5 * GONE_MS, /* an access: the bound, and what a busy machine takes */
};

static void await_stuck(struct secpool *pool, const char *id)
{
	struct secpool_event event;

	if (!support_event(pool, SECPOOL_EVENT_DEVICE_LOST, LOAD_WAIT_MS, &event))
		support_fail("%s was not given up", id);
	SUPPORT_CHECK(strcmp(event.device, id) == 0);
	SUPPORT_CHECK(event.cause == SECPOOL_CAUSE_STUCK);
}

/* arg: NULL for a mirror, else an erasure code */
static int stuck_redundant(void *arg)
{
	struct secpool *pool = support_open("alpha", LOCAL_BYTES);
	struct secpool_region *region = load_redundant(pool, PAGES, arg != NULL);

	load_catch_bus();
	load_begin(region, PAGES);
	for (int i = 0; i < 2; i++) {
		char id[8];

		snprintf(id, sizeof id, "dev%d", i);
		load_await(2000);
		load_inject(id, "stuck");
		await_stuck(pool, id);
		load_await(10000);
		/* hotplugd looked for itself, and keymgrd gave other space */
		support_wait_device(id, "suspect", false, LOAD_WAIT_MS);
		clock_sleep_ns(2 * CLOCK_NS_PER_S);
		SUPPORT_OK(secpool_flush(region));
		if (i == 1)
			break;
		load_inject(id, "normal");
		SUPPORT_CHECK(support_cli(NULL, 0, "device", "attest", id, NULL) == 0);
		support_wait_device(id, "online", false, LOAD_WAIT_MS);
	}
	load_end();
	SUPPORT_CHECK(load_lost(region) == 0);
	printf("stuck, %s: %llu accesses, the longest %.1f ms\n", arg ? "coded" : "mirror",
		(unsigned long long)load_accesses, (double)load_longest_ns / CLOCK_NS_PER_MS);
	SUPPORT_CHECK(load_longest_ns < (uint64_t)LONGEST_MS * CLOCK_NS_PER_MS);
	secpool_close(pool); /* dev1 is stuck still */
	return 0;
}

static void set_normal(const char *device)
{
	int fd = open(support_path("devices/%s/media", device), O_RDWR | O_CLOEXEC);
	uint64_t word = EMUMEDIA_NORMAL;
	struct stat status;

	SUPPORT_CHECK(fd >= 0 && fstat(fd, &status) == 0);
	SUPPORT_CHECK(
		pwrite(fd, &word, sizeof word,
			status.st_size - EMUMEDIA_CONTROL_BYTES + EMUMEDIA_WORD_AT) == sizeof word);
	close(fd);
}

/*
 * Nobody but the program finds the device late (hotplugd is dead), so that keymgrd gives nothing instead. When the device answers again its places are used again, and written anew: they
 * are enough when the other device goes.
 */
static int late_for_us_alone(void *arg)
{
	struct secpool *pool = support_open("alpha", LOCAL_BYTES);
	struct secpool_region *region = load_redundant(pool, PAGES, false);
	struct secpool_event event;

	(void)arg;
	load_catch_bus();
	load_begin(region, PAGES);
	load_await(2000);
	while (support_event(pool, SECPOOL_EVENT_DEVICE_ONLINE, 100, &event))
		;
	load_inject("dev0", "stuck");
	support_kill_daemon("hotplugd");
	await_stuck(pool, "dev0");
	load_await(10000);
	set_normal("dev0");
	if (!support_event(pool, SECPOOL_EVENT_DEVICE_ONLINE, LOAD_WAIT_MS, &event))
		support_fail("dev0 answers, and is not used again");
	SUPPORT_CHECK(strcmp(event.device, "dev0") == 0);
	load_await(5000);
	/* what was only on dev1 is on both again */
	clock_sleep_ns(2 * CLOCK_NS_PER_S);
	SUPPORT_OK(secpool_flush(region));
	SUPPORT_CHECK(truncate(support_path("devices/dev1/media"), 0) == 0);
	load_await(5000);
	load_end();
	SUPPORT_CHECK(load_lost(region) == 0);
	SUPPORT_CHECK(load_stats(pool).integrity_failures == 0);
	secpool_close(pool);
	return 0;
}

static int stuck_single(void *arg)
{
	struct secpool *pool = support_open("alpha", LOCAL_BYTES);
	struct secpool_region *region = load_single(pool, "goes", PAGES);
	uint8_t *memory = secpool_region_address(region), buffer[LOAD_PAGE];
	uint64_t began;
	size_t lost = 0;
	char device[8];

	(void)arg;
	load_catch_bus();
	load_find_device("goes", device);
	for (size_t page = 0; page < PAGES; page++)
		support_fill(memory + page * LOAD_PAGE, LOAD_PAGE, page + 1);
	SUPPORT_OK(secpool_flush(region));
	load_inject(device, "stuck");
	began = clock_now_ns();
	for (size_t page = 0; page < PAGES; page++) {
		uint8_t *at = memory + page * LOAD_PAGE;

		if (load_touch_raises(at)) {
			SUPPORT_CHECK(secpool_read(region, page * LOAD_PAGE, buffer, LOAD_PAGE) ==
				      SECPOOL_E_LOST);
			lost++;
		} else if (!support_matches(at, LOAD_PAGE, page + 1)) {
			support_fail("page %zu is neither right nor lost", page);
		}
	}
	printf("stuck, single: %zu of %d pages lost, all known after %.1f ms\n", lost, PAGES,
		(double)(clock_now_ns() - began) / CLOCK_NS_PER_MS);
	SUPPORT_CHECK(lost > 0);
	/* one bound for all of them together, not for each */
	SUPPORT_CHECK(clock_now_ns() - began < 40 * CLOCK_NS_PER_S);
	await_stuck(pool, device);
	secpool_close(pool);
	return 0;
}

/* Reads every 8th page, none of which is resident; returns the ms that it took. */
static uint64_t read_some(struct secpool_region *region)
{
	uint64_t began = clock_now_ns();
	uint8_t buffer[LOAD_PAGE];

	for (size_t page = 3; page < PAGES / 2; page += 8) {
		SUPPORT_OK(secpool_read(region, page * LOAD_PAGE, buffer, LOAD_PAGE));
		SUPPORT_CHECK(support_matches(buffer, LOAD_PAGE, page + 1));
	}
	return (clock_now_ns() - began) / CLOCK_NS_PER_MS;
}

/* All pages written, in the pool and clean, and the first half of them not resident. */
static void write_out(struct secpool_region *region)
{
	uint8_t *memory = secpool_region_address(region), buffer[LOAD_PAGE];

	for (size_t page = 0; page < PAGES; page++)
		support_fill(memory + page * LOAD_PAGE, LOAD_PAGE, page + 1);
	SUPPORT_OK(secpool_flush(region));
	for (int round = 0; round < 2; round++)
		for (size_t at = PAGES / 2 * LOAD_PAGE; at < (size_t)PAGES * LOAD_PAGE;
			at += LOCAL_BYTES / 2)
			SUPPORT_OK(secpool_prefetch(region, at, LOCAL_BYTES / 2));
	for (size_t page = PAGES / 2; page < PAGES; page++) {
		SUPPORT_OK(secpool_read(region, page * LOAD_PAGE, buffer, LOAD_PAGE));
		SUPPORT_CHECK(support_matches(buffer, LOAD_PAGE, page + 1));
	}
}

static int slow_redundant(void *arg)
{
	struct secpool *pool = support_open("alpha", LOCAL_BYTES);
	struct secpool_region *region = load_redundant(pool, PAGES, arg != NULL);
	struct secpool_event event;
	char kind[16];

	load_catch_bus();
	snprintf(kind, sizeof kind, "slow:%d", SLOW_MS);
	/* one after the other, for one of them has the copy that is read first */
	for (int i = 0; i < 2; i++) {
		uint64_t ms;
		char id[8];

		snprintf(id, sizeof id, "dev%d", i);
		write_out(region);
		load_inject(id, kind);
		clock_sleep_ns(5 * SLOW_MS * CLOCK_NS_PER_MS); /* it is suspect by then */
		ms = read_some(region);
		printf("slow %s: %d pages in %llu ms\n", id, PAGES / 16, (unsigned long long)ms);
		SUPPORT_CHECK(ms < PAGES / 16 * SLOW_MS / 8);
		load_inject(id, "normal");
		clock_sleep_ns(3 * CLOCK_NS_PER_S); /* trusted again */
	}
	SUPPORT_CHECK(!support_event(pool, SECPOOL_EVENT_DEVICE_LOST, 100, &event));
	SUPPORT_CHECK(load_lost(region) == 0);
	SUPPORT_OK(secpool_region_release(region, NULL));
	secpool_close(pool);
	return 0;
}

/* With one copy only the slow device can be asked: each page is late, and right. What is written to it meanwhile is kept. */
static int slow_single(void *arg)
{
	struct secpool *pool = support_open("alpha", LOCAL_BYTES);
	struct secpool_region *region = load_single(pool, "slow", PAGES);
	uint8_t *memory = secpool_region_address(region), buffer[LOAD_PAGE];
	struct secpool_event event;
	char device[8], kind[16];

	(void)arg;
	load_catch_bus();
	load_find_device("slow", device);
	write_out(region);
	snprintf(kind, sizeof kind, "slow:%d", SLOW_MS);
	load_inject(device, kind);
	clock_sleep_ns(5 * SLOW_MS * CLOCK_NS_PER_MS);
	for (size_t page = 5; page < PAGES / 2; page += PAGES / 8) {
		SUPPORT_OK(secpool_read(region, page * LOAD_PAGE, buffer, LOAD_PAGE));
		SUPPORT_CHECK(support_matches(buffer, LOAD_PAGE, page + 1));
		support_fill(buffer, LOAD_PAGE, page + 7);
		SUPPORT_OK(secpool_write(region, page * LOAD_PAGE, buffer, LOAD_PAGE));
	}
	SUPPORT_OK(secpool_flush(region));
	load_inject(device, "normal");
	SUPPORT_CHECK(!support_event(pool, SECPOOL_EVENT_DEVICE_LOST, 100, &event));
	for (size_t page = 0; page < PAGES; page++) {
		bool anew = page < PAGES / 2 && page % (PAGES / 8) == 5;
		SUPPORT_CHECK(support_matches(
			memory + page * LOAD_PAGE, LOAD_PAGE, page + (anew ? 7 : 1)));
	}
	SUPPORT_OK(secpool_region_release(region, NULL));
	secpool_close(pool);
	return 0;
}

int main(void)
{
#ifdef LATE_MODE
	support_fault_mode = LATE_MODE;
#endif
	support_up(3, "64M", NULL);
	SUPPORT_CHECK(support_join(support_fork(stuck_redundant, NULL), 90000) == 0);
	support_down();
	support_up(4, "64M", NULL);
	SUPPORT_CHECK(support_join(support_fork(slow_redundant, &load_pages), 60000) == 0);
	SUPPORT_CHECK(support_join(support_fork(stuck_redundant, &load_pages), 90000) == 0);
	support_down();
	support_up(2, "64M", NULL);
	SUPPORT_CHECK(support_join(support_fork(slow_redundant, NULL), 60000) == 0);
	SUPPORT_CHECK(support_join(support_fork(slow_single, NULL), 60000) == 0);
	SUPPORT_CHECK(support_join(support_fork(stuck_single, NULL), 60000) == 0);
	support_down();
	support_up(2, "64M", NULL);
	SUPPORT_CHECK(support_join(support_fork(late_for_us_alone, NULL), 60000) == 0);
	support_down();
	return 0;
}
