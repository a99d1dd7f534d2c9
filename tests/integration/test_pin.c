/* SPDX-License-Identifier: Apache-2.0 */
/* secpool_pin, secpool_unpin, secpool_prefetch, and reading and writing of whole pages that are not resident. timeout: 120 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/support/support.h"

enum { PAGE = 4096, PAGES = 4096, LOCAL = 4 << 20, LOCAL_PAGES = LOCAL / PAGE };

static uint64_t fills(struct secpool *pool)
{
	struct secpool_stats stats = {.size = sizeof stats};

	SUPPORT_OK(secpool_stats(pool, &stats));
	return stats.fills;
}

static uint64_t faults(struct secpool *pool)
{
	struct secpool_stats stats = {.size = sizeof stats};

	SUPPORT_OK(secpool_stats(pool, &stats));
	return stats.faults;
}

static bool resident(const uint8_t *page)
{
	unsigned char there = 0;

	SUPPORT_CHECK(mincore((void *)(uintptr_t)page, PAGE, &there) == 0);
	return there & 1;
}

static void fill_all(uint8_t *memory)
{
	for (size_t i = 0; i < PAGES; i++)
		support_fill(memory + i * PAGE, PAGE, i + 1);
}

static void test_pins(struct secpool *pool, struct secpool_region *region, uint8_t *memory)
{
	uint64_t before;

	SUPPORT_OK(secpool_pin(region, 100, 3 * PAGE)); /* touches four pages */
	SUPPORT_OK(secpool_pin(region, 2 * PAGE, 5 * PAGE));
	for (size_t i = 0; i < PAGES; i++)
		SUPPORT_CHECK(support_matches(memory + i * PAGE, PAGE, i + 1));
	before = faults(pool);
	for (size_t i = 0; i < 7; i++) {
		SUPPORT_CHECK(resident(memory + i * PAGE));
		memory[i * PAGE] ^= 0; /* written to: no fault, they are writable */
	}
	SUPPORT_CHECK(faults(pool) == before);
	/* a pin ends as it was made, and what another covers stays */
	SUPPORT_CHECK(secpool_unpin(region, 0, 3 * PAGE) == SECPOOL_E_NOT_FOUND);
	SUPPORT_OK(secpool_unpin(region, 100, 3 * PAGE));
	SUPPORT_CHECK(secpool_unpin(region, 100, 3 * PAGE) == SECPOOL_E_NOT_FOUND);
	for (int round = 0; round < 2; round++)
		for (size_t i = PAGES / 2; i < PAGES; i++)
			SUPPORT_CHECK(support_matches(memory + i * PAGE, PAGE, i + 1));
	SUPPORT_CHECK(!resident(memory) && !resident(memory + PAGE));
	for (size_t i = 2; i < 7; i++)
		SUPPORT_CHECK(resident(memory + i * PAGE));
	SUPPORT_OK(secpool_unpin(region, 2 * PAGE, 5 * PAGE));
}

static void test_pin_limits(struct secpool_region *region)
{
	SUPPORT_CHECK(secpool_pin(NULL, 0, PAGE) == SECPOOL_E_INVALID);
	SUPPORT_CHECK(secpool_pin(region, (size_t)PAGES * PAGE, 1) == SECPOOL_E_INVALID);
	SUPPORT_CHECK(secpool_pin(region, 1, (size_t)PAGES * PAGE) == SECPOOL_E_INVALID);
	SUPPORT_CHECK(secpool_unpin(region, 1, SIZE_MAX) == SECPOOL_E_INVALID);
	SUPPORT_CHECK(secpool_prefetch(region, 1, SIZE_MAX) == SECPOOL_E_INVALID);
	SUPPORT_CHECK(secpool_pin(region, 0, LOCAL) == SECPOOL_E_LIMIT);
	/* nothing of it counts */
	SUPPORT_OK(secpool_pin(region, 0, LOCAL / 2));
	SUPPORT_CHECK(secpool_pin(region, LOCAL, PAGE) == SECPOOL_E_LIMIT);
	SUPPORT_OK(secpool_unpin(region, 0, LOCAL / 2));
	SUPPORT_OK(secpool_pin(region, LOCAL, PAGE));
	SUPPORT_OK(secpool_unpin(region, LOCAL, PAGE));
	SUPPORT_OK(secpool_pin(region, 0, 0));
	SUPPORT_OK(secpool_unpin(region, 0, 0));
}

/* The kernel writes to a pinned page by itself: read(2) from a file that is open with O_DIRECT. */
static void test_direct_io(struct secpool_region *region, uint8_t *memory)
{
	char name[] = "/var/tmp/secpool-direct.XXXXXX";
	int fd = mkstemp(name);
	uint8_t *block = aligned_alloc(PAGE, PAGE);

	SUPPORT_CHECK(fd >= 0 && block != NULL);
	support_fill(block, PAGE, 4711);
	SUPPORT_CHECK(write(fd, block, PAGE) == PAGE && fsync(fd) == 0);
	close(fd);
	fd = open(name, O_RDONLY | O_DIRECT | O_CLOEXEC);
	unlink(name);
	if (fd >= 0) { /* the folder's file system may not have O_DIRECT */
		SUPPORT_OK(secpool_pin(region, 9 * PAGE, PAGE));
		SUPPORT_CHECK(read(fd, memory + 9 * PAGE, PAGE) == PAGE);
		SUPPORT_CHECK(support_matches(memory + 9 * PAGE, PAGE, 4711));
		SUPPORT_OK(secpool_unpin(region, 9 * PAGE, PAGE));
		close(fd);
	} else {
		memcpy(memory + 9 * PAGE, block, PAGE);
	}
	for (size_t i = PAGES / 2; i < PAGES; i++)
		SUPPORT_CHECK(support_matches(memory + i * PAGE, PAGE, i + 1));
	SUPPORT_CHECK(support_matches(memory + 9 * PAGE, PAGE, 4711)); /* out and back */
	support_fill(memory + 9 * PAGE, PAGE, 10);
	free(block);
}

static void test_prefetch(struct secpool *pool, struct secpool_region *region, uint8_t *memory)
{
	uint64_t before;
	size_t there = 0;

	for (size_t i = PAGES / 2; i < PAGES; i++)
		(void)*(volatile uint8_t *)(memory + i * PAGE);
	SUPPORT_OK(secpool_prefetch(region, 0, LOCAL / 4));
	before = faults(pool);
	for (size_t i = 0; i < LOCAL_PAGES / 4; i++)
		there += resident(memory + i * PAGE);
	/* the order in which pages leave is kept by chunks of entries: a few may go early, also while we look */
	SUPPORT_CHECK(there >= LOCAL_PAGES / 4 * 3 / 4);
	for (size_t i = 0; i < LOCAL_PAGES / 4; i++)
		SUPPORT_CHECK(support_matches(memory + i * PAGE, PAGE, i + 1));
	SUPPORT_CHECK(faults(pool) - before <= LOCAL_PAGES / 4 / 4);
	SUPPORT_OK(secpool_prefetch(
		region, 0, (size_t)PAGES * PAGE)); /* more than fits: not an error */
}

/* Whole pages that are out are read and written where they are. */
static void test_transfers(struct secpool *pool, struct secpool_region *region, uint8_t *memory)
{
	enum { COUNT = 300, FIRST = 1500 }; /* nothing of it was prefetched */
	uint8_t *buffer = malloc(COUNT * PAGE + 200);
	uint64_t faults_before, fills_before;

	SUPPORT_CHECK(buffer != NULL);
	for (int round = 0; round < 2; round++)
		for (size_t i = PAGES / 2; i < PAGES; i++)
			(void)*(volatile uint8_t *)(memory + i * PAGE);
	SUPPORT_CHECK(!resident(memory + FIRST * PAGE));
	faults_before = faults(pool);
	fills_before = fills(pool);
	SUPPORT_OK(secpool_read(region, FIRST * PAGE, buffer, COUNT * PAGE));
	for (size_t i = 0; i < COUNT; i++)
		SUPPORT_CHECK(support_matches(buffer + i * PAGE, PAGE, FIRST + i + 1));
	SUPPORT_CHECK(faults(pool) == faults_before && fills(pool) == fills_before + COUNT);
	SUPPORT_CHECK(!resident(memory + FIRST * PAGE));
	/* written, then seen by the mapping */
	for (size_t i = 0; i < COUNT; i++)
		support_fill(buffer + i * PAGE, PAGE, 9000 + i);
	SUPPORT_OK(secpool_write(region, FIRST * PAGE, buffer, COUNT * PAGE));
	SUPPORT_CHECK(!resident(memory + (FIRST + 1) * PAGE));
	for (size_t i = 0; i < COUNT; i++)
		SUPPORT_CHECK(support_matches(memory + (FIRST + i) * PAGE, PAGE, 9000 + i));
	/* a part of a page at both ends, some of it resident */
	SUPPORT_OK(secpool_read(region, FIRST * PAGE - 100, buffer, COUNT * PAGE + 200));
	SUPPORT_CHECK(memcmp(buffer, memory + FIRST * PAGE - 100, COUNT * PAGE + 200) == 0);
	for (size_t i = 0; i < COUNT; i++)
		support_fill(memory + (FIRST + i) * PAGE, PAGE, FIRST + i + 1);
	free(buffer);
}

static void test_transfers_of_fresh_pages(struct secpool *pool)
{
	struct secpool_region *region = support_region(pool, 64 * PAGE, 2);
	uint8_t *memory = secpool_region_address(region), buffer[4 * PAGE], zeros[PAGE] = {0};

	memset(buffer, 1, sizeof buffer);
	SUPPORT_OK(secpool_read(region, 0, buffer, sizeof buffer));
	SUPPORT_CHECK(
		memcmp(buffer, zeros, PAGE) == 0 && memcmp(buffer + 3 * PAGE, zeros, PAGE) == 0);
	SUPPORT_CHECK(!resident(memory)); /* nothing was taken for it */
	support_fill(buffer, PAGE, 5);
	SUPPORT_OK(secpool_write(region, 7 * PAGE, buffer, PAGE));
	SUPPORT_CHECK(support_matches(memory + 7 * PAGE, PAGE, 5));
	SUPPORT_CHECK(memcmp(memory + 6 * PAGE, zeros, PAGE) == 0);
	/* from one region to itself: the buffer is pool memory */
	SUPPORT_OK(secpool_write(region, 20 * PAGE, memory + 6 * PAGE, 2 * PAGE));
	SUPPORT_CHECK(support_matches(memory + 21 * PAGE, PAGE, 5));
	SUPPORT_CHECK(secpool_read(region, 0, NULL, 1) == SECPOOL_E_INVALID);
	SUPPORT_CHECK(secpool_read(region, 64 * PAGE, buffer, 1) == SECPOOL_E_INVALID);
	SUPPORT_CHECK(secpool_write(NULL, 0, buffer, 1) == SECPOOL_E_INVALID);
	SUPPORT_OK(secpool_region_release(region, NULL));
}

static void run(enum secpool_fault_mode mode)
{
	struct secpool_region *region;
	struct secpool *pool;
	uint8_t *memory;

	support_fault_mode = mode;
	pool = support_open("alpha", LOCAL);
	region = support_region(pool, (size_t)PAGES * PAGE, 1);
	memory = secpool_region_address(region);
	fill_all(memory);
	test_pins(pool, region, memory);
	test_pin_limits(region);
	test_direct_io(region, memory);
	test_prefetch(pool, region, memory);
	test_transfers(pool, region, memory);
	test_transfers_of_fresh_pages(pool);
	SUPPORT_OK(secpool_region_release(region, NULL));
	secpool_close(pool);
}

int main(void)
{
	support_up(3, "64M", NULL);
	run(SECPOOL_FAULT_THREAD);
	run(SECPOOL_FAULT_INLINE);
	support_down();
	return 0;
}
