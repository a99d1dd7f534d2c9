/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A mirrored region has all of its copies from its first page on, also when it is made in the very moment in which the pool was opened: what
 * keymgrd says about devices may still be on its way then. (Found by test_main_job: one copy was silently missing, and the pull
 * of the other's device lost half of the region.) timeout: 120
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/support.h"

enum { PAGE = 4096, PAGES = 16, DEVICES = 3, ROUNDS = 100, MIB = 1 << 20 };

static uint8_t *media[DEVICES], *before[DEVICES];
static size_t media_bytes;

static void map_media(void)
{
	for (int i = 0; i < DEVICES; i++) {
		struct stat st;
		int fd = open(support_path("devices/dev%d/media", i), O_RDONLY | O_CLOEXEC);
		SUPPORT_CHECK(fd >= 0 && fstat(fd, &st) == 0 && st.st_size > 0);
		media_bytes = (size_t)st.st_size;
		media[i] = mmap(NULL, media_bytes, PROT_READ, MAP_SHARED, fd, 0);
		before[i] = malloc(media_bytes);
		SUPPORT_CHECK(media[i] != MAP_FAILED && before[i] != NULL);
		close(fd);
	}
}

static size_t count_changed(void)
{
	size_t changed = 0;

	for (int i = 0; i < DEVICES; i++)
		for (size_t at = 0; at < media_bytes; at += PAGE)
			changed += memcmp(media[i] + at, before[i] + at, PAGE) != 0;
	return changed;
}

/* Without a pause between open and create. */
static void one_round(int round)
{
	struct secpool *pool = support_open("alpha", 4 * MIB);
	struct secpool_region *region = support_region(pool, 2 * MIB, 2);
	uint8_t *memory = secpool_region_address(region);
	size_t changed;

	for (int i = 0; i < DEVICES; i++)
		memcpy(before[i], media[i], media_bytes);
	for (size_t page = 0; page < PAGES; page++)
		support_fill(memory + page * PAGE, PAGE, page);
	SUPPORT_OK(secpool_flush(region));
	changed = count_changed();
	if (changed != 2 * PAGES)
		support_fail("round %d: %d pages were written to %zu places, not to two each",
			round, (int)PAGES, changed);
	SUPPORT_OK(secpool_region_release(region, NULL));
	secpool_close(pool);
}

int main(void)
{
	support_up(DEVICES, "8M", NULL);
	map_media();
	for (int round = 0; round < ROUNDS; round++)
		one_round(round);
	for (int i = 0; i < DEVICES; i++) {
		munmap(media[i], media_bytes);
		free(before[i]);
	}
	support_down();
	return 0;
}
