/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Erasure-coded regions from outside: every pair of six devices may go from ec:4+2, and reads and writes go on right; when they come back the region is whole again; three gone
 * lose exactly the pages that were on them; bytes that were changed on the media, of data or of parity, are never believed and are made good. timeout: 240
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "tests/support/support.h"

enum { PAGE = 4096, DATA = 4, PARITY = 2, DEVICES = DATA + PARITY };
/* more than eight times the local memory; the last stripe is not full */
enum { PAGES = 8191, LOCAL_BYTES = 4 << 20, WAIT_MS = 20000 };

static struct secpool *pool;
static struct secpool_region *region;
static uint8_t *memory;
static uint64_t seeds[PAGES];

static void write_page(size_t pgno, uint64_t seed)
{
	seeds[pgno] = seed;
	support_fill(memory + pgno * PAGE, PAGE, seed);
}

static void check_page(size_t pgno)
{
	if (!support_matches(memory + pgno * PAGE, PAGE, seeds[pgno]))
		support_fail("page %zu is wrong", pgno);
}

static void check_all(void)
{
	for (size_t pgno = 0; pgno < PAGES; pgno++)
		check_page(pgno);
}

static void pull(unsigned device)
{
	char id[8];

	snprintf(id, sizeof id, "dev%u", device);
	SUPPORT_CHECK(support_cli(NULL, 0, "device", "pull", id, NULL) == 0);
}

static void plug(unsigned device)
{
	char id[8];

	snprintf(id, sizeof id, "dev%u", device);
	SUPPORT_CHECK(support_cli(NULL, 0, "device", "plug", id, NULL) == 0);
	support_wait_device(id, "online", true, WAIT_MS);
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

/* There is no seventh device: what was lost has no place until they are back. */
static void lose_two(unsigned first, unsigned second, uint64_t round)
{
	pull(first);
	pull(second);
	for (size_t pgno = 0; pgno < PAGES; pgno++) {
		check_page(pgno);
		if (pgno % 3 == round % 3) /* single pages of stripes, and whole runs below */
			write_page(pgno, seeds[pgno] + 1000003);
	}
	for (size_t pgno = 512 * round % 4096; pgno < 512 * round % 4096 + 512; pgno++)
		write_page(pgno, seeds[pgno] + 999983);
	SUPPORT_OK(secpool_flush(region));
	check_all();
	forget_events();
	plug(first);
	plug(second);
	await_whole();
}

static void test_any_two_may_go(void)
{
	static const unsigned pairs[][2] = {{0, 1}, {4, 5}, {0, 5}, {2, 3}, {1, 4}};

	for (unsigned i = 0; i < sizeof pairs / sizeof *pairs; i++)
		lose_two(pairs[i][0], pairs[i][1], i);
	check_all();
}

/* A part of a device's media, changed behind everybody's back. */
static void spoil(unsigned device, size_t bytes)
{
	char *path = strdup(support_path("devices/dev%u/media", device));
	uint8_t *noise = malloc(bytes);
	int fd = open(path, O_RDWR | O_CLOEXEC);

	SUPPORT_CHECK(noise && fd >= 0);
	for (size_t i = 0; i < bytes; i++)
		noise[i] = (uint8_t)(i * 37 + device);
	SUPPORT_CHECK(pwrite(fd, noise, bytes, 0) == (ssize_t)bytes);
	close(fd);
	free(noise);
	free(path);
}

static struct secpool_stats stats(void)
{
	struct secpool_stats now = {.size = sizeof now};

	SUPPORT_OK(secpool_stats(pool, &now));
	return now;
}

/* A round of the patrol (32 MiB at 16 MiB a second) that finds nothing: parity that was spoiled and not needed is good again. */
static void await_patrol(void)
{
	struct secpool_stats before, now = stats();

	do {
		before = now;
		clock_sleep_ns(5 * CLOCK_NS_PER_S / 2);
		now = stats();
	} while (now.integrity_failures != before.integrity_failures);
}

/*
 * Of each stripe two cells are spoiled, of data, of parity, and of one each: all is there, and made good. Wherever the lanes of parity are, one pair is of both kinds: then what is decoded by the
 * spoiled one must be seen to be wrong, and the other be used.
 */
static void test_spoiled_bytes(void)
{
	static const unsigned pairs[][2] = {{0, 1}, {2, 3}, {4, 5}, {0, 3}, {1, 4}, {2, 5}};
	struct secpool_stats before = stats(), after;

	for (size_t pgno = 0; pgno < PAGES; pgno++)
		write_page(pgno, 77 + pgno);
	SUPPORT_OK(secpool_flush(region));
	for (unsigned pair = 0; pair < sizeof pairs / sizeof *pairs; pair++) {
		/* all of them: the lanes may lie anywhere */
		spoil(pairs[pair][0], 64 << 20);
		spoil(pairs[pair][1], 64 << 20);
		check_all();
		check_all(); /* what is resident is not read */
		SUPPORT_CHECK(stats().lost_pages == 0);
		/* single pages, so that parity is read to make differences: a spoiled one must not come to harm later */
		for (size_t pgno = pair; pgno < PAGES; pgno += 5)
			write_page(pgno, seeds[pgno] + 31);
		SUPPORT_OK(secpool_flush(region));
		await_patrol();
		check_all();
	}
	after = stats();
	SUPPORT_CHECK(after.integrity_failures > before.integrity_failures);
	SUPPORT_CHECK(after.repairs > before.repairs);
	SUPPORT_CHECK(after.lost_pages == 0);
}

/* With three of six gone what was on them is lost, page by page, and nothing else. */
static void test_three_gone(void)
{
	static uint8_t is_lost[PAGES];
	static struct secpool_range ranges[PAGES];
	uint8_t *buffer = malloc(PAGE);
	size_t count, lost = 0;

	SUPPORT_OK(secpool_flush(region));
	pull(0);
	pull(2);
	pull(4);
	for (size_t pgno = 0; pgno < PAGES; pgno++) {
		enum secpool_error error = secpool_read(region, pgno * PAGE, buffer, PAGE);
		if (error == SECPOOL_E_LOST)
			is_lost[pgno] = 1;
		else if (error || !support_matches(buffer, PAGE, seeds[pgno]))
			support_fail("page %zu: %s", pgno,
				error ? secpool_strerror(error) : "wrong bytes");
		lost += is_lost[pgno];
	}
	SUPPORT_OK(secpool_region_lost(region, ranges, PAGES, &count));
	for (size_t i = 0; i < count; i++)
		for (size_t at = ranges[i].offset; at < ranges[i].offset + ranges[i].bytes;
			at += PAGE) {
			SUPPORT_CHECK(is_lost[at / PAGE] == 1);
			is_lost[at / PAGE] = 2;
			lost--;
		}
	if (lost != 0)
		support_fail("%zu pages are lost and not reported", lost);
	/* in each stripe there were one to three of four, but for what is resident */
	SUPPORT_CHECK(stats().lost_pages > PAGES / 8 && stats().lost_pages < PAGES * 3 / 4 + 1);
	free(buffer);
}

int main(void)
{
	support_up(DEVICES, "64M", NULL);
	pool = support_open("alpha", LOCAL_BYTES);
	region = support_coded(pool, (size_t)PAGES * PAGE, DATA, PARITY);
	memory = secpool_region_address(region);
	for (size_t pgno = 0; pgno < PAGES; pgno++)
		write_page(pgno, pgno + 1);
	check_all();
	test_any_two_may_go();
	test_spoiled_bytes();
	test_three_gone();
	SUPPORT_OK(secpool_region_release(region, NULL));
	secpool_close(pool);
	support_down();
	return 0;
}
