/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Promise 2 of DESIGN.md section 2: a page on the media that was flipped, swapped, replayed or taken from elsewhere is never returned. A
 * mirror's other copy is used and the bad one is repaired; without one the access ends in an error or SIGBUS. The test writes into
 * the media files; it finds a page's place there by writing the page and looking for what changed. timeout: 180
 */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "tests/support/support.h"

enum { PAGE = 4096, PAGES = 2048, LOCAL_BYTES = 4 << 20, DEVICES = 2, WAIT_MS = 20000 };

static struct {
	uint8_t *bytes; /* the file, mapped */
	size_t count;
	uint8_t *before;
} media[DEVICES];

static struct secpool *pool;
static struct secpool_region *region, *other;
static uint8_t *memory, *other_memory;
static uint64_t version[PAGES];
static bool is_spoilt[PAGES]; /* lost on purpose */

static void map_media(void)
{
	for (int i = 0; i < DEVICES; i++) {
		struct stat st;
		int fd = open(support_path("devices/dev%d/media", i), O_RDWR | O_CLOEXEC);
		SUPPORT_CHECK(fd >= 0 && fstat(fd, &st) == 0 && st.st_size > 0);
		media[i].count = (size_t)st.st_size;
		media[i].bytes =
			mmap(NULL, media[i].count, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		media[i].before = malloc(media[i].count);
		SUPPORT_CHECK(media[i].bytes != MAP_FAILED && media[i].before != NULL);
		close(fd);
	}
}

static void unmap_media(void)
{
	for (int i = 0; i < DEVICES; i++) {
		munmap(media[i].bytes, media[i].count);
		free(media[i].before);
	}
}

static uint64_t seed_of(size_t page)
{
	return version[page] * PAGES + page;
}

/* Brings in so much of the other region that none of the first is resident: by prefetching, which pushes hot pages out too (docs/eviction.md), then reading. */
static void push_out(void)
{
	for (size_t at = 0; at + LOCAL_BYTES / 2 <= PAGES * (size_t)PAGE; at += LOCAL_BYTES / 2)
		SUPPORT_OK(secpool_prefetch(other, at, LOCAL_BYTES / 2));
	for (size_t page = 0; page < PAGES; page++)
		SUPPORT_CHECK(support_matches(other_memory + page * PAGE, PAGE, 7000000 + page));
}

static void write_page(size_t page)
{
	version[page]++;
	support_fill(memory + page * PAGE, PAGE, seed_of(page));
}

/* Where the page lies on each device: what a write and a flush change. -1 where it is not. Afterwards it is not resident. */
static void find_places(size_t page, ssize_t place[DEVICES])
{
	uint8_t first;

	/* resident and clean, so that the write changes this page alone and nothing else is written meanwhile */
	SUPPORT_OK(secpool_read(region, page * PAGE, &first, 1));
	SUPPORT_OK(secpool_flush(region));
	SUPPORT_OK(secpool_flush(other));
	for (int i = 0; i < DEVICES; i++)
		memcpy(media[i].before, media[i].bytes, media[i].count);
	write_page(page);
	SUPPORT_OK(secpool_flush(region));
	for (int i = 0; i < DEVICES; i++) {
		place[i] = -1;
		for (size_t at = 0; at < media[i].count; at += PAGE) {
			if (memcmp(media[i].before + at, media[i].bytes + at, PAGE) == 0)
				continue;
			SUPPORT_CHECK(place[i] < 0);
			place[i] = (ssize_t)at;
		}
	}
	push_out();
}

static uint64_t integrity_failures(void)
{
	struct secpool_stats stats = {.size = sizeof stats};

	SUPPORT_OK(secpool_stats(pool, &stats));
	return stats.integrity_failures;
}

static uint64_t repairs(void)
{
	struct secpool_stats stats = {.size = sizeof stats};

	SUPPORT_OK(secpool_stats(pool, &stats));
	return stats.repairs;
}

enum harm { FLIP, SWAP, REPLAY, FOREIGN, ONES, ZEROS, HARMS };
static const char *const harm_names[HARMS] = {
	"flipped bit", "swapped pages", "replayed page", "foreign page", "all ones", "all zeros"};

/* Does the harm to `page` on one device; `second` is another page of the region whose place is known. */
static void do_harm(
	enum harm harm, uint8_t *at, uint8_t *second, const uint8_t *old, const uint8_t *foreign)
{
	uint8_t kept[PAGE];

	switch (harm) {
	case FLIP:
		at[1234] ^= 0x10;
		break;
	case SWAP:
		memcpy(kept, at, PAGE);
		memcpy(at, second, PAGE);
		memcpy(second, kept, PAGE);
		break;
	case REPLAY:
		memcpy(at, old, PAGE);
		break;
	case FOREIGN:
		memcpy(at, foreign, PAGE);
		break;
	case ONES:
		memset(at, 0xff, PAGE);
		break;
	case ZEROS:
	case HARMS:
		memset(at, 0, PAGE);
		break;
	}
}

/* Harm on one device's copy: the right data come back, and the copy is made good again. */
static void harm_one_copy(enum harm harm, int device)
{
	size_t page = (size_t)(100 + 2 * (int)harm), second = page + 1;
	ssize_t place[DEVICES], old_place[DEVICES], second_place[DEVICES], foreign_place[DEVICES];
	uint8_t old[PAGE], foreign[PAGE], good[PAGE];
	uint64_t failures, repaired;

	find_places(second, second_place);
	find_places(page, old_place);
	SUPPORT_CHECK(old_place[device] >= 0 && second_place[device] >= 0);
	memcpy(old, media[device].bytes + old_place[device], PAGE);
	/* a page of the other region, from its own place on this device */
	for (int i = 0; i < DEVICES; i++)
		memcpy(media[i].before, media[i].bytes, media[i].count);
	support_fill(other_memory, PAGE, 7000000);
	SUPPORT_OK(secpool_flush(other));
	foreign_place[device] = -1;
	for (size_t at = 0; at < media[device].count; at += PAGE)
		if (memcmp(media[device].before + at, media[device].bytes + at, PAGE) != 0)
			foreign_place[device] = (ssize_t)at;
	SUPPORT_CHECK(foreign_place[device] >= 0);
	memcpy(foreign, media[device].bytes + foreign_place[device], PAGE);
	find_places(page, place);
	SUPPORT_CHECK(place[device] >= 0);
	memcpy(good, media[device].bytes + place[device], PAGE);
	SUPPORT_CHECK(memcmp(good, old, PAGE) != 0);

	failures = integrity_failures();
	repaired = repairs();
	do_harm(harm, media[device].bytes + place[device],
		media[device].bytes + second_place[device], old, foreign);
	SUPPORT_CHECK(support_matches(memory + page * PAGE, PAGE, seed_of(page)));
	SUPPORT_CHECK(support_matches(memory + second * PAGE, PAGE, seed_of(second)));
	if (integrity_failures() == failures) {
		/* the other copy was read: this one's turn comes when it is read, so leave it as it was */
		memcpy(media[device].bytes + place[device], good, PAGE);
		if (harm == SWAP)
			write_page(second);
		return;
	}
	for (unsigned ms = 0; memcmp(media[device].bytes + place[device], good, PAGE) != 0; ms++) {
		if (ms == WAIT_MS)
			support_fail("%s: the bad copy was not repaired", harm_names[harm]);
		clock_sleep_ns(CLOCK_NS_PER_MS);
	}
	SUPPORT_CHECK(repairs() > repaired);
}

/* ---- no copy left ---- */
static sigjmp_buf back;
static volatile sig_atomic_t bus_count;

static void on_bus(int number, siginfo_t *info, void *context)
{
	(void)number;
	(void)info;
	(void)context;
	bus_count++;
	siglongjmp(back, 1);
}

static bool touch_raises(const volatile uint8_t *at)
{
	if (sigsetjmp(back, 1) == 0) {
		(void)*at;
		return false;
	}
	return true;
}

static void harm_all_copies(enum harm harm)
{
	size_t page = (size_t)(500 + 2 * (int)harm);
	ssize_t place[DEVICES], old_place[DEVICES], second_place[DEVICES];
	uint8_t old[DEVICES][PAGE], buffer[PAGE], untouched[PAGE];
	struct secpool_event event;

	find_places(page + 1, second_place);
	find_places(page, old_place);
	for (int i = 0; i < DEVICES; i++)
		memcpy(old[i], media[i].bytes + old_place[i], PAGE);
	find_places(page, place);
	for (int i = 0; i < DEVICES; i++)
		do_harm(harm, media[i].bytes + place[i], media[i].bytes + second_place[i], old[i],
			media[i].bytes + second_place[i]);
	is_spoilt[page] = true;
	is_spoilt[page + 1] = harm == SWAP;
	memset(buffer, 0x77, sizeof buffer);
	memset(untouched, 0x77, sizeof untouched);
	enum secpool_error error = secpool_read(region, page * PAGE, buffer, PAGE);
	if (error != SECPOOL_E_LOST && error != SECPOOL_E_INTEGRITY)
		support_fail("%s on all copies: secpool_read gave %d", harm_names[harm], error);
	if (memcmp(buffer, untouched, PAGE) != 0)
		support_fail("%s on all copies: bytes came out", harm_names[harm]);
	if (!touch_raises(memory + page * PAGE))
		support_fail("%s on all copies: a load returned", harm_names[harm]);
	/* the whole region is checked once something bad was met: others of the spoilt pages may be told of first */
	do {
		SUPPORT_CHECK(support_event(pool, SECPOOL_EVENT_REGION_LOST, WAIT_MS, &event));
		SUPPORT_CHECK(event.region == region && event.cause == SECPOOL_CAUSE_INTEGRITY);
		SUPPORT_CHECK(event.range.bytes == PAGE && is_spoilt[event.range.offset / PAGE]);
	} while (event.range.offset != page * PAGE);
}

static void open_regions(unsigned copies)
{
	pool = support_open("alpha", LOCAL_BYTES);
	region = support_region(pool, (size_t)PAGES * PAGE, copies);
	other = support_region(pool, (size_t)PAGES * PAGE, 2);
	memory = secpool_region_address(region);
	other_memory = secpool_region_address(other);
	for (size_t page = 0; page < PAGES; page++) {
		support_fill(memory + page * PAGE, PAGE, seed_of(page));
		support_fill(other_memory + page * PAGE, PAGE, 7000000 + page);
	}
	SUPPORT_OK(secpool_flush(region));
	SUPPORT_OK(secpool_flush(other));
	map_media();
}

static void close_regions(void)
{
	/* nothing else was harmed */
	for (size_t page = 0; page < PAGES; page++)
		SUPPORT_CHECK(is_spoilt[page] ||
			      support_matches(memory + page * PAGE, PAGE, seed_of(page)));
	SUPPORT_OK(secpool_region_release(region, NULL));
	SUPPORT_OK(secpool_region_release(other, NULL));
	secpool_close(pool);
	unmap_media();
}

static int tamper_mirror(void *arg)
{
	struct sigaction action = {.sa_sigaction = on_bus, .sa_flags = SA_SIGINFO};
	struct secpool_event event;
	uint64_t failures;

	(void)arg;
	open_regions(2);
	for (int device = 0; device < DEVICES; device++) {
		for (enum harm harm = FLIP; harm < HARMS; harm++)
			harm_one_copy(harm, device);
	}
	failures = integrity_failures();
	printf("one copy harmed: %llu times a bad page was met, %llu repaired\n",
		(unsigned long long)failures, (unsigned long long)repairs());
	/* whichever copy is read first, it was harmed in half of the cases */
	SUPPORT_CHECK(failures >= HARMS && repairs() >= HARMS);
	SUPPORT_CHECK(support_event(pool, SECPOOL_EVENT_BAD_COPY, WAIT_MS, &event));
	SUPPORT_CHECK(sigaction(SIGBUS, &action, NULL) == 0);
	for (enum harm harm = FLIP; harm < HARMS; harm++)
		harm_all_copies(harm);
	SUPPORT_CHECK(bus_count == HARMS);
	close_regions();
	return 0;
}

/* Without redundancy one copy is all there is. */
static int tamper_single(void *arg)
{
	struct sigaction action = {.sa_sigaction = on_bus, .sa_flags = SA_SIGINFO};
	uint8_t buffer[PAGE];

	(void)arg;
	open_regions(1);
	SUPPORT_CHECK(sigaction(SIGBUS, &action, NULL) == 0);
	for (size_t page = 10; page < 13; page++) {
		ssize_t place[DEVICES];
		find_places(page, place);
		SUPPORT_CHECK((place[0] >= 0) != (place[1] >= 0));
		int device = place[0] >= 0 ? 0 : 1;
		media[device].bytes[place[device] + (ssize_t)page] ^= 1;
		is_spoilt[page] = true;
		if (page % 2)
			SUPPORT_CHECK(touch_raises(memory + page * PAGE));
		enum secpool_error error = secpool_read(region, page * PAGE, buffer, PAGE);
		SUPPORT_CHECK(error == SECPOOL_E_LOST || error == SECPOOL_E_INTEGRITY);
	}
	close_regions();
	return 0;
}

int main(void)
{
	support_up(DEVICES, "32M", NULL);
	SUPPORT_CHECK(support_join(support_fork(tamper_mirror, NULL), 90000) == 0);
	SUPPORT_CHECK(support_join(support_fork(tamper_single, NULL), 60000) == 0);
	support_down();
	return 0;
}
