/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lost pages are made good again by writing them as a whole; and pages that there is no room for are not lost: SIGBUS with an event, until there is room. In both fault modes,
 * and as on a kernel without POISON. timeout: 240
 */
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/uffd.h"
#include "tests/support/support.h"

enum { PAGE = 4096, PAGES = 4096, LOCAL_BYTES = 4 << 20, WAIT_MS = 20000 };

static unsigned without;

enum secpool_error __real_uffd_open(struct uffd *uffd, int device_fd, unsigned how);
enum secpool_error __wrap_uffd_open(struct uffd *uffd, int device_fd, unsigned how);

enum secpool_error __wrap_uffd_open(struct uffd *uffd, int device_fd, unsigned how)
{
	return __real_uffd_open(uffd, device_fd, how | without);
}

static sigjmp_buf out;

static void on_bus(int number)
{
	(void)number;
	siglongjmp(out, 1);
}

static bool touch_raises(const uint8_t *at)
{
	if (sigsetjmp(out, 1) != 0)
		return true;
	(void)*(const volatile uint8_t *)at;
	return false;
}

static void cli(const char *verb, const char *id)
{
	SUPPORT_CHECK(support_cli(NULL, 0, "device", verb, id, NULL) == 0);
}

static uint64_t lost_pages(struct secpool *pool)
{
	struct secpool_stats stats = {.size = sizeof stats};

	SUPPORT_OK(secpool_stats(pool, &stats));
	return stats.lost_pages;
}

/* The device that has the region is not known here: both go, one after the other, the first comes back before. */
static void lose(struct secpool_region *region, uint8_t *buffer)
{
	static const char *const ids[] = {"dev0", "dev1"};

	for (int i = 0; i < 2; i++) {
		bool lost = false;
		cli("pull", ids[i]);
		for (size_t pgno = 0; pgno < PAGES; pgno += 64)
			lost = lost ||
			       secpool_read(region, pgno * PAGE, buffer, PAGE) == SECPOOL_E_LOST;
		cli("plug", ids[i]);
		support_wait_device(ids[i], "online", true, WAIT_MS);
		if (lost)
			return;
	}
	support_fail("nothing was lost");
}

static int rewrite(void *arg)
{
	struct secpool *pool = support_open("alpha", LOCAL_BYTES);
	struct secpool_region *region = support_region(pool, (size_t)PAGES * PAGE, 1);
	uint8_t *memory = secpool_region_address(region), *buffer = malloc(4 * PAGE);
	static bool is_lost[PAGES];
	uint64_t lost = 0, end = clock_now_ns() + (uint64_t)WAIT_MS * CLOCK_NS_PER_MS;

	(void)arg;
	signal(SIGBUS, on_bus);
	for (size_t pgno = 0; pgno < PAGES; pgno++)
		support_fill(memory + pgno * PAGE, PAGE, pgno + 1);
	lose(region, buffer);
	for (size_t pgno = 0; pgno < PAGES; pgno++) {
		is_lost[pgno] = secpool_read(region, pgno * PAGE, buffer, PAGE) == SECPOOL_E_LOST;
		if (!is_lost[pgno] && !support_matches(buffer, PAGE, pgno + 1))
			support_fail("page %zu is wrong", pgno);
		SUPPORT_CHECK(touch_raises(memory + pgno * PAGE) == is_lost[pgno]);
		lost += is_lost[pgno];
	}
	SUPPORT_CHECK(lost > PAGES / 2 && lost_pages(pool) == lost);
	/* a part of one can't be written, nor can a call that reaches from a good one into it do the rest */
	for (size_t pgno = 0; pgno < PAGES; pgno++) {
		if (!is_lost[pgno])
			continue;
		SUPPORT_CHECK(
			secpool_write(region, pgno * PAGE + 8, buffer, 100) == SECPOOL_E_LOST);
		SUPPORT_CHECK(secpool_pin(region, pgno * PAGE, 1) == SECPOOL_E_LOST);
		break;
	}
	/* keymgrd gives the region new space in its own time */
	for (size_t pgno = 0; pgno < PAGES; pgno++) {
		support_fill(buffer, PAGE, 7000 + pgno);
		while (is_lost[pgno] &&
			secpool_write(region, pgno * PAGE, buffer, PAGE) == SECPOOL_E_LOST) {
			SUPPORT_CHECK(clock_now_ns() < end);
			clock_sleep_ns(CLOCK_NS_PER_MS);
		}
	}
	SUPPORT_CHECK(lost_pages(pool) == 0);
	for (int round = 0; round < 2; round++) {
		for (size_t pgno = 0; pgno < PAGES; pgno++) {
			uint64_t seed = is_lost[pgno] ? 7000 + pgno : pgno + 1;
			if (!support_matches(memory + pgno * PAGE, PAGE, seed + (uint64_t)round))
				support_fail("page %zu is wrong in round %d", pgno, round);
			support_fill(memory + pgno * PAGE, PAGE, seed + 1);
		}
	}
	SUPPORT_OK(secpool_region_release(region, NULL));
	secpool_close(pool);
	free(buffer);
	return 0;
}

/* Twice as many dirty pages as there is room for, and nowhere to write them. */
static int no_room(void *arg)
{
	struct secpool *pool = support_open("alpha", LOCAL_BYTES);
	struct secpool_region *region = support_region(pool, (size_t)PAGES * PAGE, 1);
	uint8_t *memory = secpool_region_address(region), buffer[PAGE];
	size_t count, barred = PAGES;
	struct secpool_event event;
	struct secpool_stats stats = {.size = sizeof stats};

	(void)arg;
	signal(SIGBUS, on_bus);
	cli("pull", "dev0");
	cli("pull", "dev1");
	for (size_t pgno = 0; pgno < PAGES && barred == PAGES; pgno++) {
		if (touch_raises(memory + pgno * PAGE))
			barred = pgno;
		else
			support_fill(memory + pgno * PAGE, PAGE, pgno + 1);
	}
	SUPPORT_CHECK(barred > 100 && barred < PAGES);
	SUPPORT_OK(secpool_stats(pool, &stats));
	SUPPORT_CHECK(stats.resident_bytes <= stats.local_bytes_limit);
	do /* one came when the devices went */
		SUPPORT_CHECK(support_event(pool, SECPOOL_EVENT_NO_SPACE, WAIT_MS, &event));
	while (event.range.bytes != PAGE);
	SUPPORT_CHECK(event.range.offset == barred * PAGE);
	SUPPORT_OK(secpool_region_lost(region, NULL, 0, &count));
	SUPPORT_CHECK(count == 0);
	for (size_t pgno = 0; pgno < barred; pgno++)
		SUPPORT_CHECK(support_matches(memory + pgno * PAGE, PAGE, pgno + 1));
	cli("plug", "dev0");
	cli("plug", "dev1");
	support_wait_device("dev0", "online", true, WAIT_MS);
	support_wait_device("dev1", "online", true, WAIT_MS);
	/* in time there is room, and everything goes on */
	for (int i = 0; touch_raises(memory + barred * PAGE); i++) {
		SUPPORT_CHECK(i < 200);
		clock_sleep_ns(100 * CLOCK_NS_PER_MS);
	}
	memset(buffer, 0, sizeof buffer);
	SUPPORT_CHECK(memcmp(memory + barred * PAGE, buffer, PAGE) == 0);
	for (size_t pgno = 0; pgno < PAGES; pgno++)
		support_fill(memory + pgno * PAGE, PAGE, pgno + 5);
	for (size_t pgno = 0; pgno < PAGES; pgno++)
		SUPPORT_CHECK(support_matches(memory + pgno * PAGE, PAGE, pgno + 5));
	SUPPORT_OK(secpool_region_release(region, NULL));
	secpool_close(pool);
	return 0;
}

static void in_each_way(int (*work)(void *arg))
{
	for (int way = 0; way < 3; way++) {
		support_fault_mode = way == 1 ? SECPOOL_FAULT_INLINE : SECPOOL_FAULT_THREAD;
		without = way == 2 ? UFFD_WITHOUT_MOVE | UFFD_WITHOUT_POISON | UFFD_WITHOUT_VECTOR
				   : 0;
		SUPPORT_CHECK(support_join(support_fork(work, NULL), 70000) == 0);
		support_wait_regions(0, WAIT_MS);
		support_wait_device("dev0", "online", true, WAIT_MS);
		support_wait_device("dev1", "online", true, WAIT_MS);
	}
}

int main(void)
{
	support_up(2, "64M", NULL);
	in_each_way(rewrite);
	in_each_way(no_room);
	support_down();
	return 0;
}
