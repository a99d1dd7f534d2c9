/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For tests that make a device misbehave under a running program: threads that write and check every page of a region against a model, lost pages
 * that raise SIGBUS, and looks at a device from outside. Threads: as said.
 */
#ifndef SECPOOL_TESTS_FAULT_LOAD_H
#define SECPOOL_TESTS_FAULT_LOAD_H

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "keymgr/wraps.h"
#include "lib/base/clock.h"
#include "lib/base/emumedia.h"
#include "lib/wire/msg.h"
#include "lib/wire/sock.h"
#include "tests/support/support.h"

enum { LOAD_PAGE = 4096, LOAD_PAGES_MOST = 8192, LOAD_WRITERS = 4, LOAD_WAIT_MS = 30000 };

/* ---- SIGBUS ---- */
static sigjmp_buf load_back;
static volatile sig_atomic_t load_expects_bus;

static inline void load_on_bus(int number, siginfo_t *info, void *context)
{
	static const char text[] = "failed: SIGBUS where none was expected\n";

	(void)number;
	(void)info;
	(void)context;
	if (!load_expects_bus)
		_exit(write(2, text, sizeof text - 1) < 0 ? 3 : 1);
	siglongjmp(load_back, 1);
}

static inline void load_catch_bus(void)
{
	struct sigaction action = {.sa_sigaction = load_on_bus, .sa_flags = SA_SIGINFO};

	SUPPORT_CHECK(sigaction(SIGBUS, &action, NULL) == 0);
}

/* Touches one byte; true when that raised SIGBUS. One thread. */
static inline bool load_touch_raises(volatile uint8_t *at)
{
	bool raised = true;

	load_expects_bus = 1;
	if (sigsetjmp(load_back, 1) == 0) {
		(void)*at;
		raised = false;
	}
	load_expects_bus = 0;
	return raised;
}

/* ---- the device, from outside ---- */

struct load_sought {
	const char *name;
	char *device;
};

static inline bool load_take_region(const struct msg *row, void *arg)
{
	const struct load_sought *sought = arg;

	if (strcmp(row->u.region_row.name, sought->name) == 0)
		snprintf(sought->device, 8, "%.7s", row->u.region_row.devices);
	return true;
}

/* The device that holds all of the region of that name (one copy), as keymgrd lists it. */
static inline void load_find_device(const char *name, char device[8])
{
	struct load_sought sought = {name, device};

	*device = '\0';
	SUPPORT_OK(support_list("keymgr.sock", MSG_LIST_REGIONS, MSG_REGION_ROW, load_take_region, &sought));
	if (strncmp(device, "dev", 3) != 0 || strlen(device) != 4)
		support_fail("region %s should be on one device, is on '%s'", name, device);
}

struct load_wanted {
	const char *kind, *device, *words;
	unsigned least, count;
};

static inline bool load_take_event(const struct msg *row, void *arg)
{
	const struct msg_event_row *event = &row->u.event_row;
	struct load_wanted *wanted = arg;

	wanted->count += strcmp(event->kind, wanted->kind) == 0 && strstr(event->detail, wanted->words) &&
			 (!wanted->device || strcmp(event->device, wanted->device) == 0);
	return true;
}

/* keymgrd may be starting: then it is asked again. */
static inline bool load_has_events(void *arg)
{
	struct load_wanted *wanted = arg;

	wanted->count = 0;
	return support_list("keymgr.sock", MSG_LIST_EVENTS, MSG_EVENT_ROW, load_take_event, wanted) == SECPOOL_OK &&
	       wanted->count >= wanted->least;
}

/* Waits until keymgrd has so many events of the kind, about the device (NULL: any), with these words in their detail. */
static inline void load_await_events(const char *kind, const char *device, const char *words, unsigned least)
{
	struct load_wanted wanted = {kind, device, words, least, 0};

	if (!support_wait(load_has_events, &wanted, LOAD_WAIT_MS))
		support_fail("no %u events %s of %s say '%s'", least, kind, device ? device : "any device", words);
}

/* How the device behaves: its control page's word; ~0 when its media are gone. */
static inline uint64_t load_behaviour(const char *device)
{
	int fd = open(support_path("devices/%s/media", device), O_RDONLY | O_CLOEXEC);
	uint64_t word = ~0ull;
	struct stat status;

	if (fd < 0)
		return word;
	SUPPORT_CHECK(fstat(fd, &status) == 0);
	if (pread(fd, &word, sizeof word,
		    status.st_size - EMUMEDIA_CONTROL_BYTES + EMUMEDIA_WORD_AT) != sizeof word)
		word = ~0ull;
	close(fd);
	return word;
}

/* `secpool device pull DEVICE --silent MS` in a thread; returns when the silence has begun. */
static char load_pulled[8], load_silent_ms[8];

static inline void *load_run_pull(void *arg)
{
	(void)arg;
	SUPPORT_CHECK(support_cli(NULL, 0, "device", "pull", load_pulled, "--silent",
			      load_silent_ms, NULL) == 0);
	return NULL;
}

static inline pthread_t load_pull_silently(const char *device, unsigned ms)
{
	pthread_t thread;

	snprintf(load_pulled, sizeof load_pulled, "%.7s", device);
	snprintf(load_silent_ms, sizeof load_silent_ms, "%u", ms);
	SUPPORT_CHECK(pthread_create(&thread, NULL, load_run_pull, NULL) == 0);
	while (load_behaviour(device) != EMUMEDIA_SILENT)
		clock_sleep_ns(100000);
	return thread;
}

static inline void load_inject(const char *device, const char *kind)
{
	char text[512] = "";

	if (support_cli(text, sizeof text, "device", "inject", device, kind, NULL) != 0)
		support_fail("inject %s %s: %s", device, kind, text);
}

/* Plugs a device; waits until it is online and scrubbed. */
static inline void load_plug(const char *device)
{
	char text[512] = "";

	if (support_cli(text, sizeof text, "device", "plug", device, NULL) != 0)
		support_fail("plug %s: %s", device, text);
	support_wait_device(device, "online", true, LOAD_WAIT_MS);
}

/* ---- the key store, from outside ---- */

/* The first slots of wrapped keys. */
static inline void load_read_store(size_t count, uint8_t slots[][KEYFILE_SLOT_BYTES])
{
	int fd = open(support_path("state/wraps"), O_RDONLY | O_CLOEXEC);

	SUPPORT_CHECK(fd >= 0);
	SUPPORT_CHECK(read(fd, slots, count * KEYFILE_SLOT_BYTES) == (ssize_t)(count * KEYFILE_SLOT_BYTES));
	close(fd);
}

/* How often a part of an old slot is in the files of the state folder. */
static inline size_t load_count_in_state(const uint8_t *slot)
{
	enum { NEEDLE_BYTES = 64 };
	const uint8_t *needle = slot + KEYFILE_SLOT_HEAD_BYTES;
	DIR *folder = opendir(support_path("state"));
	struct dirent *entry;
	size_t found = 0;

	SUPPORT_CHECK(folder != NULL);
	while ((entry = readdir(folder)) != NULL) {
		uint8_t *bytes, *at;
		struct stat status;
		int fd = open(support_path("state/%s", entry->d_name), O_RDONLY | O_CLOEXEC);
		if (fd < 0 || fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
			close(fd);
			continue;
		}
		at = bytes = malloc((size_t)status.st_size + 1);
		SUPPORT_CHECK(bytes && read(fd, bytes, (size_t)status.st_size) == status.st_size);
		while ((at = memmem(at, (size_t)(bytes + status.st_size - at), needle, NEEDLE_BYTES)) != NULL) {
			at++;
			found++;
		}
		free(bytes);
		close(fd);
	}
	closedir(folder);
	return found;
}

/* ---- writers ---- */
static uint8_t *load_memory;
static size_t load_pages;
static uint64_t load_versions[LOAD_PAGES_MOST];
static atomic_bool load_is_over;
static atomic_ullong load_accesses, load_longest_ns;
static pthread_t load_threads[LOAD_WRITERS];

static inline uint64_t load_seed(size_t page)
{
	return load_versions[page] * LOAD_PAGES_MOST + page;
}

/* The page is what was written last; then it is written anew. */
static inline void load_step(size_t page)
{
	uint8_t *at = load_memory + page * LOAD_PAGE;

	if (!support_matches(at, LOAD_PAGE, load_seed(page)))
		support_fail("page %zu is not what was written", page);
	load_versions[page]++;
	support_fill(at, LOAD_PAGE, load_seed(page));
}

static inline void *load_write(void *arg)
{
	/* each writer has every LOAD_WRITERS-th page */
	for (size_t page = (size_t)(uintptr_t)arg; !atomic_load(&load_is_over);
		page = (page + 101 * LOAD_WRITERS) % load_pages) {
		uint64_t began = clock_now_ns(), took;
		load_step(page);
		took = clock_now_ns() - began;
		if (took > atomic_load(&load_longest_ns))
			atomic_store(&load_longest_ns, took);
		atomic_fetch_add(&load_accesses, 1);
	}
	return NULL;
}

/* pages: a power of 2, so that every writer comes to all of its own. */
static inline void load_begin(struct secpool_region *region, size_t pages)
{
	load_memory = secpool_region_address(region);
	load_pages = pages;
	for (size_t page = 0; page < pages; page++)
		support_fill(load_memory + page * LOAD_PAGE, LOAD_PAGE, load_seed(page));
	for (size_t i = 0; i < LOAD_WRITERS; i++)
		SUPPORT_CHECK(pthread_create(&load_threads[i], NULL, load_write, (void *)i) == 0);
}

static inline void load_await(unsigned long long more)
{
	unsigned long long before = atomic_load(&load_accesses);

	for (unsigned ms = 0; atomic_load(&load_accesses) < before + more; ms++) {
		if (ms >= LOAD_WAIT_MS)
			support_fail("%llu accesses in %u ms, not %llu",
				(unsigned long long)atomic_load(&load_accesses) - before, ms, more);
		clock_sleep_ns(CLOCK_NS_PER_MS);
	}
}

static inline void load_check_all(void)
{
	for (size_t page = 0; page < load_pages; page++)
		if (!support_matches(load_memory + page * LOAD_PAGE, LOAD_PAGE, load_seed(page)))
			support_fail("page %zu is not what was written", page);
}

/* Ends the writers and checks every page. */
static inline void load_end(void)
{
	atomic_store(&load_is_over, true);
	for (size_t i = 0; i < LOAD_WRITERS; i++)
		SUPPORT_CHECK(pthread_join(load_threads[i], NULL) == 0);
	load_check_all();
}

static inline struct secpool_stats load_stats(struct secpool *pool)
{
	struct secpool_stats stats = {.size = sizeof stats};

	SUPPORT_OK(secpool_stats(pool, &stats));
	return stats;
}

static inline size_t load_lost(struct secpool_region *region)
{
	size_t count;

	SUPPORT_OK(secpool_region_lost(region, NULL, 0, &count));
	return count;
}

/* A region with one copy, of that name. */
static inline struct secpool_region *load_single(struct secpool *pool, const char *name, size_t pages)
{
	struct secpool_region_options options = {.size = sizeof options,
		.bytes = pages * LOAD_PAGE,
		.name = name,
		.on_loss = SECPOOL_ON_LOSS_SIGBUS};
	struct secpool_region *region;

	SUPPORT_OK(secpool_region_create(pool, &options, &region));
	return region;
}

/* A region that survives the loss of one device; coded: two lanes of data and one of parity, else two copies. */
static inline struct secpool_region *load_redundant(struct secpool *pool, size_t pages, bool coded)
{
	return coded ? support_coded(pool, pages * LOAD_PAGE, 2, 1)
		     : support_region(pool, pages * LOAD_PAGE, 2);
}

#endif
