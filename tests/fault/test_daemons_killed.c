/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Both daemons killed with -9 while a program writes, then started again: the program goes on meanwhile, loses nothing, takes its region
 * over again, and every later step (failover, release, receipt) works as before. timeout: 180
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "tests/support/support.h"

enum { PAGE = 4096, PAGES = 4096, LOCAL_BYTES = 4 << 20, WAIT_MS = 30000 };

static struct secpool *pool;
static struct secpool_region *region;
static uint8_t *memory;
static uint64_t version[PAGES]; /* what each page should hold; the writer's until it is joined */
static atomic_bool is_over;
static atomic_ullong writes;

static uint64_t seed_of(size_t page)
{
	return version[page] * PAGES + page;
}

static void check_page(size_t page)
{
	if (!support_matches(memory + page * PAGE, PAGE, seed_of(page)))
		support_fail("page %zu is not what was written (version %llu)", page,
			(unsigned long long)version[page]);
}

static void *write_on(void *arg)
{
	(void)arg;
	for (size_t page = 0; !atomic_load_explicit(&is_over, memory_order_relaxed);
		page = (page + 611) % PAGES) {
		check_page(page);
		version[page]++;
		support_fill(memory + page * PAGE, PAGE, seed_of(page));
		atomic_fetch_add_explicit(&writes, 1, memory_order_relaxed);
	}
	return NULL;
}

/* The writer is not held up: it does at least this much more. */
static void check_goes_on(const char *when)
{
	unsigned long long before = atomic_load(&writes);

	for (unsigned ms = 0; atomic_load(&writes) < before + 1000; ms++) {
		if (ms == WAIT_MS)
			support_fail("%s: no access ended for %d ms", when, WAIT_MS);
		clock_sleep_ns(CLOCK_NS_PER_MS);
	}
	printf("%s: goes on\n", when);
}

static void bring_back(void)
{
	support_up(3, "64M", NULL);
}

static void expect_event(enum secpool_event_type type, const char *what)
{
	struct secpool_event event;

	if (!support_event(pool, type, WAIT_MS, &event))
		support_fail("no event: %s", what);
}

static void kill_keymgrd(void)
{
	support_kill_daemon("keymgrd");
	expect_event(SECPOOL_EVENT_DAEMON_GONE, "keymgrd is gone");
	check_goes_on("keymgrd killed");
	bring_back();
	expect_event(SECPOOL_EVENT_DAEMON_BACK, "keymgrd is back");
	support_wait_regions(1, WAIT_MS);
	for (int i = 0; i < 3; i++) {
		char id[8];
		snprintf(id, sizeof id, "dev%d", i);
		support_wait_device(id, "online", true, WAIT_MS);
	}
	check_goes_on("keymgrd back");
}

static void kill_hotplugd(void)
{
	support_kill_daemon("hotplugd");
	check_goes_on("hotplugd killed");
	bring_back();
	for (int i = 0; i < 3; i++) {
		char id[8];
		snprintf(id, sizeof id, "dev%d", i);
		support_wait_device(id, "online", true, WAIT_MS);
	}
	support_wait_regions(1, WAIT_MS);
	check_goes_on("hotplugd back");
}

/* With both gone, a device's media vanish (its file is cut by hand): the copies serve, nobody needs to be asked. */
static void kill_both_and_lose_a_device(void)
{
	struct secpool_stats stats = {.size = sizeof stats};

	support_kill_daemon("hotplugd");
	support_kill_daemon("keymgrd");
	check_goes_on("both killed");
	SUPPORT_CHECK(truncate(support_path("devices/dev0/media"), 0) == 0);
	SUPPORT_CHECK(unlink(support_path("devices/dev0/media")) == 0);
	check_goes_on("both killed and a device lost");
	SUPPORT_OK(secpool_stats(pool, &stats));
	SUPPORT_CHECK(stats.lost_pages == 0);
}

static void end_and_verify(void)
{
	struct secpool_receipt receipt = {.size = sizeof receipt};
	const char *path = support_path("../receipt-%d.json", getpid());
	FILE *file = fopen(path, "w");
	char text[4096];

	for (size_t page = 0; page < PAGES; page++)
		check_page(page);
	SUPPORT_OK(secpool_region_release(region, &receipt));
	SUPPORT_CHECK(file && fputs(receipt.text, file) >= 0 && fclose(file) == 0);
	if (support_cli(text, sizeof text, "receipt", "verify", path, "--anchor",
		    support_path("state/anchor.pem"), NULL) != 0)
		support_fail("receipt verify: %s", text);
	unlink(path);
	secpool_close(pool);
	support_wait_regions(0, WAIT_MS);
}

static bool is_unmapped(void *arg)
{
	unsigned char there;

	return mincore(arg, PAGE, &there) == -1 && errno == ENOMEM;
}

static void *release_it(void *arg)
{
	static enum secpool_error error;

	error = secpool_region_release(arg, NULL);
	return &error;
}

/* A keymgrd that does not answer a release, and then ends: an error, and the handle is gone with all that was behind it. */
static int release_in_vain(void *arg)
{
	struct secpool *own = support_open("alpha", LOCAL_BYTES);
	struct secpool_region *doomed = support_region(own, 1 << 20, 1);
	void *at = secpool_region_address(doomed), *error;
	pthread_t thread;
	char byte;

	(void)arg;
	SUPPORT_CHECK(kill(support_daemon("keymgrd"), SIGSTOP) == 0);
	SUPPORT_CHECK(pthread_create(&thread, NULL, release_it, doomed) == 0);
	SUPPORT_CHECK(support_wait(is_unmapped, at, WAIT_MS));
	support_kill_daemon("keymgrd");
	SUPPORT_CHECK(pthread_join(thread, &error) == 0);
	SUPPORT_CHECK(*(enum secpool_error *)error == SECPOOL_E_DAEMON_GONE);
	SUPPORT_CHECK(secpool_read(doomed, 0, &byte, 1) == SECPOOL_E_CLOSED);
	SUPPORT_CHECK(secpool_region_release(doomed, NULL) == SECPOOL_E_CLOSED);
	secpool_close(own);
	return 0;
}

int main(void)
{
	pthread_t writer;

	support_up(3, "64M", NULL);
	SUPPORT_CHECK(support_join(support_fork(release_in_vain, NULL), WAIT_MS) == 0);
	bring_back();
	support_wait_regions(0, WAIT_MS);
	pool = support_open("alpha", LOCAL_BYTES);
	region = support_region(pool, (size_t)PAGES * PAGE, 2);
	memory = secpool_region_address(region);
	for (size_t page = 0; page < PAGES; page++)
		support_fill(memory + page * PAGE, PAGE, seed_of(page));
	SUPPORT_CHECK(pthread_create(&writer, NULL, write_on, NULL) == 0);
	kill_keymgrd();
	kill_hotplugd();
	kill_keymgrd();
	kill_both_and_lose_a_device();
	/* what died is started again; the device that vanished meanwhile is not online, the others are */
	char text[4096];
	support_cli(text, sizeof text, "up", "--devices", "3", "--device-bytes", "64M", "--policy",
		support_policy(0), NULL);
	SUPPORT_CHECK(support_daemon("keymgrd") && support_daemon("hotplugd"));
	expect_event(SECPOOL_EVENT_DAEMON_BACK, "keymgrd is back");
	support_wait_device("dev1", "online", true, WAIT_MS);
	support_wait_device("dev2", "online", true, WAIT_MS);
	check_goes_on("both back");
	atomic_store(&is_over, true);
	SUPPORT_CHECK(pthread_join(writer, NULL) == 0);
	end_and_verify();
	support_down();
	return 0;
}
