/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client killed with -9 in the middle: its regions are released, its key's space is overwritten, and the space can be used again; also when
 * keymgrd was dead at that moment, or dies while it scrubs. timeout: 120
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/base/os.h"
#include "lib/base/emumedia.h"
#include "lib/base/media.h"
#include "tests/support/support.h"

enum { PAGE = 4096, PAGES = 4096, LOCAL_BYTES = 4 << 20, DEVICES = 2, WAIT_MS = 30000 };
enum { DEVICE_BYTES = 64 << 20 };

static _Atomic int *is_ready; /* shared with the client */

static int be_client(void *arg)
{
	struct secpool *pool = support_open("alpha", LOCAL_BYTES);
	struct secpool_region *region = support_region(pool, (size_t)PAGES * PAGE, 2);
	uint8_t *memory = secpool_region_address(region);

	(void)arg;
	for (uint64_t round = 0;; round++) {
		for (size_t page = 0; page < PAGES; page++)
			support_fill(memory + page * PAGE, PAGE, round * PAGES + page);
		*is_ready = 1;
	}
	return 0;
}

static bool client_is_ready(void *arg)
{
	(void)arg;
	return *is_ready;
}

static uint8_t *read_media(int device)
{
	char *bytes;
	size_t count;

	SUPPORT_OK(os_read_file(
		support_path("devices/dev%d/media", device), 1ul << 30, &bytes, &count));
	SUPPORT_CHECK(count == media_bytes(true, DEVICE_BYTES));
	return (uint8_t *)bytes;
}

/* Starts a client, lets it write everything once, and kills it in the middle of more; returns what the media then hold. */
static void write_and_kill(
	uint8_t *before[DEVICES], uint8_t *at_death[DEVICES], bool without_keymgrd)
{
	pid_t client;

	for (int i = 0; i < DEVICES; i++)
		before[i] = read_media(i);
	*is_ready = 0;
	client = support_fork(be_client, NULL);
	if (!support_wait(client_is_ready, NULL, WAIT_MS))
		support_fail("the client did not get ready");
	if (without_keymgrd)
		support_kill_daemon("keymgrd");
	SUPPORT_CHECK(kill(client, SIGSTOP) == 0);
	for (int i = 0; i < DEVICES; i++)
		at_death[i] = read_media(i);
	SUPPORT_CHECK(kill(client, SIGKILL) == 0);
	SUPPORT_CHECK(support_join(client, WAIT_MS) == 128 + SIGKILL);
}

/* Every page that the client had written is overwritten now. */
static void check_scrubbed(uint8_t *before[DEVICES], uint8_t *at_death[DEVICES])
{
	size_t written = 0, left = 0;

	for (int i = 0; i < DEVICES; i++) {
		uint8_t *now = read_media(i);
		for (size_t at = 0; at < DEVICE_BYTES; at += PAGE) {
			if (memcmp(before[i] + at, at_death[i] + at, PAGE) == 0)
				continue;
			written++;
			left += memcmp(now + at, at_death[i] + at, PAGE) == 0;
		}
		free(now);
		free(before[i]);
		free(at_death[i]);
	}
	printf("%zu pages had been written, %zu are left\n", written, left);
	SUPPORT_CHECK(written > PAGES && left == 0);
}

static void wait_scrubbed(void)
{
	support_wait_regions(0, WAIT_MS);
	for (int i = 0; i < DEVICES; i++) {
		char id[8];
		snprintf(id, sizeof id, "dev%d", i);
		support_wait_device(id, "online", true, WAIT_MS);
	}
}

/* All of the space is there again, and is zeros to the next one. */
static int use_all_space(void *arg)
{
	struct secpool *pool = support_open("alpha", LOCAL_BYTES);
	struct secpool_region *region = support_region(pool, DEVICE_BYTES, 2);
	const uint8_t *memory = secpool_region_address(region);
	static const uint8_t zeros[PAGE];

	(void)arg;
	for (size_t at = 0; at < DEVICE_BYTES; at += PAGE)
		SUPPORT_CHECK(memcmp(memory + at, zeros, PAGE) == 0);
	SUPPORT_OK(secpool_region_release(region, NULL));
	secpool_close(pool);
	return 0;
}

int main(void)
{
	uint8_t *before[DEVICES], *at_death[DEVICES];

	is_ready = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	SUPPORT_CHECK(is_ready != MAP_FAILED);
	support_up(DEVICES, "64M", NULL);

	write_and_kill(before, at_death, false);
	wait_scrubbed();
	check_scrubbed(before, at_death);

	/* keymgrd dies first, and again on the way to the end of the scrub */
	write_and_kill(before, at_death, true);
	support_up(DEVICES, "64M", NULL);
	support_kill_daemon("keymgrd");
	support_up(DEVICES, "64M", NULL);
	wait_scrubbed();
	check_scrubbed(before, at_death);

	SUPPORT_CHECK(support_join(support_fork(use_all_space, NULL), 60000) == 0);
	support_down();
	return 0;
}
