/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Devices that go, or come to have other contents, while hotplugd, or both daemons, are dead: found at the start, told in events, what was there is lost or served from elsewhere, its stored keys are
 * destroyed, and it is never taken for what it was. timeout: 120
 */
#include <stdlib.h>

#include "keymgr/wraps.h"
#include "lib/base/os.h"
#include "tests/fault/load.h"

enum { PAGES = 256, LOCAL_BYTES = 4 << 20, DEVICES = 3 };

static void check_matches(struct secpool_region *region)
{
	for (size_t page = 0; page < PAGES; page++)
		SUPPORT_CHECK(support_matches(
			(uint8_t *)secpool_region_address(region) + page * LOAD_PAGE, LOAD_PAGE,
			page));
}

static void write_all(struct secpool_region *region)
{
	for (size_t page = 0; page < PAGES; page++)
		support_fill((uint8_t *)secpool_region_address(region) + page * LOAD_PAGE,
			LOAD_PAGE, page);
	SUPPORT_OK(secpool_flush(region));
}

/* As a thief, or a hand, would. */
static void put_other_media(const char *device)
{
	char media[256], other[256];
	struct stat status;
	int fd;

	snprintf(media, sizeof media, "%s", support_path("devices/%s/media", device));
	snprintf(other, sizeof other, "%s", support_path("devices/%s/other", device));
	SUPPORT_CHECK(stat(media, &status) == 0);
	fd = open(other, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	SUPPORT_CHECK(fd >= 0 && ftruncate(fd, status.st_size) == 0);
	close(fd);
	SUPPORT_CHECK(rename(other, media) == 0);
}

static void kill_both(void)
{
	support_kill_daemon("hotplugd");
	support_kill_daemon("keymgrd");
}

static bool has_session(void *arg)
{
	struct secpool_region_options options = {.size = sizeof options, .bytes = LOAD_PAGE};
	struct secpool_region *region;

	return secpool_region_create(arg, &options, &region) == SECPOOL_OK &&
	       secpool_region_release(region, NULL) == SECPOOL_OK;
}

/* After a restart of keymgrd the program connects again in its own time; until then nothing is made or released. */
static void await_session(struct secpool *pool)
{
	if (!support_wait(has_session, pool, LOAD_WAIT_MS))
		support_fail("the program does not get its session back");
}

/* One region alone on a device and a copied one over the others: what becomes of them when that device is changed by `change` while the daemons in question are dead. */
static void play_through(const char *title, void (*kill_some)(void), void (*change)(const char *),
	const char *kind, const char *words)
{
	struct secpool *pool;
	struct secpool_region *one, *two;
	struct secpool_event event;
	char device[8];

	support_up(DEVICES, "64M", NULL);
	pool = support_open("alpha", LOCAL_BYTES);
	one = load_single(pool, "one", PAGES);
	two = support_region(pool, PAGES * LOAD_PAGE, 2);
	write_all(one);
	write_all(two);
	load_find_device("one", device);
	kill_some();
	change(device);
	support_up(DEVICES, "64M", NULL);
	load_await_events(kind, device, words, 1);
	load_await_events("key-destroyed", device, "", 1);
	if (!support_event(pool, SECPOOL_EVENT_DEVICE_LOST, LOAD_WAIT_MS, &event))
		support_fail("%s: the program was not told", title);
	check_matches(two);
	await_session(pool);
	SUPPORT_OK(secpool_region_release(one, NULL));
	SUPPORT_OK(secpool_region_release(two, NULL));
	secpool_close(pool);
	support_down();
	printf("%s: told\n", title);
}

static void kill_hotplugd(void)
{
	support_kill_daemon("hotplugd");
}

static void cut(const char *device)
{
	SUPPORT_CHECK(truncate(support_path("devices/%s/media", device), 0) == 0);
}

/* The whole folder is gone: no hotplugd speaks of that device any more. */
static void folder_goes(void)
{
	struct secpool *pool;
	struct secpool_region *first, *one;
	struct secpool_event event;
	char device[8];

	support_up(2, "64M", NULL);
	pool = support_open("alpha", LOCAL_BYTES);
	first = load_single(pool, "first", PAGES);
	one = load_single(pool, "one", PAGES);
	write_all(first);
	write_all(one);
	load_find_device("one", device);
	SUPPORT_CHECK(strcmp(device, "dev1") == 0); /* where there is more room */
	support_kill_daemon("hotplugd");
	SUPPORT_OK(os_remove_tree(support_path("devices/dev1")));
	support_up(1, "64M", NULL);
	load_await_events("device-lost", device, "hotplugd does not find it", 1);
	load_await_events("key-destroyed", device, "", 1);
	if (!support_event(pool, SECPOOL_EVENT_DEVICE_LOST, LOAD_WAIT_MS, &event))
		support_fail("folder gone: the program was not told");
	check_matches(first);
	SUPPORT_OK(secpool_region_release(one, NULL));
	SUPPORT_OK(secpool_region_release(first, NULL));
	secpool_close(pool);
	support_down();
	printf("folder gone, hotplugd dead: told\n");
}

int main(void)
{
	load_catch_bus();
	play_through("cut, both dead", kill_both, cut, "device-lost", "");
	play_through("other media, both dead", kill_both, put_other_media, "device-changed",
		"its media are others");
	play_through("other media, hotplugd dead", kill_hotplugd, put_other_media, "device-changed",
		"its media are others");
	folder_goes();
	return 0;
}
