/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Swap under load: a device is pulled and another one, which was never seen before, takes its place, again and again, while a program reads and writes; then the old ones come back. Three of
 * four at any time, and the region is whole again each time. timeout: 180
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "tests/support/support.h"

enum { PAGE = 4096, PAGES = 4096, LOCAL_BYTES = 4 << 20, WAIT_MS = 30000, THREADS = 2 };

static struct secpool *pool;
static struct secpool_region *region;
static uint8_t *memory;
static _Atomic bool over;
static _Atomic uint64_t accesses;

/* Each thread has its own pages: the seed of each is its number and how often it was written. */
static void *work(void *arg)
{
	size_t self = (size_t)(uintptr_t)arg, pgno = self;
	static uint64_t rounds[PAGES];
	uint64_t random = 88172645463325252ull + self;

	while (!atomic_load(&over)) {
		random ^= random << 13;
		random ^= random >> 7;
		random ^= random << 17;
		pgno = random % (PAGES / THREADS) * THREADS + self;
		if (!support_matches(memory + pgno * PAGE, PAGE, pgno + PAGES * rounds[pgno] + 1))
			support_fail("page %zu is wrong", pgno);
		if (random >> 40 & 1)
			support_fill(memory + pgno * PAGE, PAGE, pgno + PAGES * ++rounds[pgno] + 1);
		atomic_fetch_add(&accesses, 1);
	}
	for (pgno = self; pgno < PAGES; pgno += THREADS)
		if (!support_matches(memory + pgno * PAGE, PAGE, pgno + PAGES * rounds[pgno] + 1))
			support_fail("page %zu is wrong at the end", pgno);
	return NULL;
}

static void await_whole(void)
{
	struct secpool_event event;

	if (!support_event(pool, SECPOOL_EVENT_REGION_WHOLE, WAIT_MS, &event))
		support_fail("the region did not get whole again");
}

static void forget_events(void)
{
	struct secpool_event event = {.size = sizeof event};

	while (secpool_event_next(pool, &event) == SECPOOL_OK)
		;
}

static void pull(unsigned number)
{
	char id[8];

	snprintf(id, sizeof id, "dev%u", number);
	forget_events();
	SUPPORT_CHECK(support_cli(NULL, 0, "device", "pull", id, NULL) == 0);
}

/* `secpool up` with one device more than there are makes that one, beside what runs. */
static void add(unsigned number)
{
	char count[8], id[8];

	snprintf(count, sizeof count, "%u", number + 1);
	snprintf(id, sizeof id, "dev%u", number);
	/* the pulled ones are missing, and it says so: what counts is the device itself */
	(void)support_cli(NULL, 0, "up", "--devices", count, "--device-bytes", "64M", "--policy",
		support_policy(0), NULL);
	support_wait_device(id, "online", true, WAIT_MS);
}

/* Whether any part of the region is on the device that was pulled can't be known here: then there is nothing to rebuild, and no event. */
static bool has_region(unsigned number)
{
	char text[8192], id[8];

	snprintf(id, sizeof id, "dev%u", number);
	SUPPORT_CHECK(support_cli(text, sizeof text, "region", "list", "--json", NULL) == 0);
	return strstr(text, id) != NULL;
}

int main(void)
{
	pthread_t threads[THREADS];
	uint64_t before;
	unsigned rebuilds = 0;

	support_up(4, "64M", NULL);
	pool = support_open("alpha", LOCAL_BYTES);
	region = support_region(pool, (size_t)PAGES * PAGE, 2);
	memory = secpool_region_address(region);
	for (size_t pgno = 0; pgno < PAGES; pgno++)
		support_fill(memory + pgno * PAGE, PAGE, pgno + 1);
	pull(3); /* three of four from here on */
	for (size_t i = 0; i < THREADS; i++)
		SUPPORT_CHECK(pthread_create(&threads[i], NULL, work, (void *)i) == 0);
	for (unsigned round = 0; round < 3; round++) {
		bool held = has_region(round);
		before = atomic_load(&accesses);
		pull(round);
		add(4 + round);
		if (held)
			await_whole();
		rebuilds += held;
		SUPPORT_CHECK(atomic_load(&accesses) > before);
	}
	/* the old ones come back, one by one, each for one of the new */
	for (unsigned round = 0; round < 3; round++) {
		char id[8];
		bool held = has_region(4 + round);
		pull(4 + round);
		snprintf(id, sizeof id, "dev%u", round);
		SUPPORT_CHECK(support_cli(NULL, 0, "device", "plug", id, NULL) == 0);
		support_wait_device(id, "online", true, WAIT_MS);
		if (held)
			await_whole();
		rebuilds += held;
	}
	SUPPORT_CHECK(rebuilds >= 3);
	atomic_store(&over, true);
	for (size_t i = 0; i < THREADS; i++)
		SUPPORT_CHECK(pthread_join(threads[i], NULL) == 0);
	struct secpool_stats stats = {.size = sizeof stats};
	SUPPORT_OK(secpool_stats(pool, &stats));
	SUPPORT_CHECK(stats.lost_pages == 0 && stats.integrity_failures == 0);
	SUPPORT_OK(secpool_region_release(region, NULL));
	secpool_close(pool);
	support_down();
	return 0;
}
