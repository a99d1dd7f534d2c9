/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device is pulled under a running program. Without redundancy: SIGBUS at exactly the lost pages, events with the exact ranges, pages
 * that were resident saved to another device, secpool_read and secpool_write with an error, and the program's own SIGBUS
 * handler still gets what is its own. With mirror:2: the program notices nothing. timeout: 180
 */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/wire/msg.h"
#include "lib/wire/sock.h"
#include "tests/support/support.h"

enum { PAGE = 4096, PAGES = 4096, LOCAL_BYTES = 4 << 20, WAIT_MS = 30000, WRITERS = 4 };
enum { RANGES_MOST = PAGES };

static sigjmp_buf back;
static void *volatile bus_address;
static volatile sig_atomic_t bus_count, expect_bus;

static void on_bus(int number, siginfo_t *info, void *context)
{
	(void)number;
	(void)context;
	if (!expect_bus) {
		static const char text[] = "failed: SIGBUS where none was expected\n";
		if (write(2, text, sizeof text - 1) < 0)
			_exit(3);
		_exit(1);
	}
	bus_address = info->si_addr;
	bus_count++;
	siglongjmp(back, 1);
}

static void catch_bus(void)
{
	struct sigaction action = {.sa_sigaction = on_bus, .sa_flags = SA_SIGINFO};

	SUPPORT_CHECK(sigaction(SIGBUS, &action, NULL) == 0);
}

/* Touches one byte; true when that raised SIGBUS, whose address must be in the touched page. */
static bool touch_raises(volatile uint8_t *at)
{
	expect_bus = 1;
	if (sigsetjmp(back, 1) == 0) {
		(void)*at;
		expect_bus = 0;
		return false;
	}
	expect_bus = 0;
	SUPPORT_CHECK((uintptr_t)bus_address / PAGE == (uintptr_t)at / PAGE);
	return true;
}

/* A SIGBUS that is the program's own business: a mapped file that was cut. */
static void check_own_bus(void)
{
	int fd = memfd_create("cut", MFD_CLOEXEC), before = bus_count;
	uint8_t *map;

	SUPPORT_CHECK(fd >= 0 && ftruncate(fd, PAGE) == 0);
	map = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
	SUPPORT_CHECK(map != MAP_FAILED && ftruncate(fd, 0) == 0);
	SUPPORT_CHECK(touch_raises(map + 100) && bus_count == before + 1);
	SUPPORT_CHECK(bus_address == map + 100);
	munmap(map, PAGE);
	close(fd);
}

/* The device that holds the region's one copy, from the listing. */
static void find_device(const char *name, char *device, size_t bytes)
{
	struct msg request = {.type = MSG_LIST, .number = 1}, row;
	uint64_t end = clock_now_ns() + 10 * CLOCK_NS_PER_S;
	int fd;

	*device = '\0';
	request.u.list.what = MSG_LIST_REGIONS;
	SUPPORT_OK(sock_connect_as(support_path("keymgr.sock"), MSG_ROLE_ADMIN, &fd));
	SUPPORT_OK(sock_send(fd, &request, NULL, 0, end));
	for (;;) {
		SUPPORT_OK(sock_receive(fd, &row, NULL, end));
		if (row.type != MSG_REGION_ROW)
			break;
		if (strcmp(row.u.region_row.name, name) == 0)
			snprintf(device, bytes, "%.31s", row.u.region_row.devices);
	}
	close(fd);
	if (strncmp(device, "dev", 3) != 0 || strlen(device) != 4)
		support_fail("region %s should be on one device, is on '%s'", name, device);
}

static struct secpool_region *make_region(struct secpool *pool, const char *name)
{
	struct secpool_region_options options = {
		.size = sizeof options, .bytes = (size_t)PAGES * PAGE, .name = name};
	struct secpool_region *region;

	options.on_loss = SECPOOL_ON_LOSS_SIGBUS;
	SUPPORT_OK(secpool_region_create(pool, &options, &region));
	return region;
}

/* The ranges of the events are those that the region reports; marks the lost pages. */
static size_t collect_lost(struct secpool *pool, struct secpool_region *region, bool *is_lost)
{
	static struct secpool_range ranges[RANGES_MOST];
	static bool told[PAGES];
	size_t count = 0, lost = 0;
	struct secpool_event event;

	memset(told, 0, sizeof told);
	memset(is_lost, 0, PAGES * sizeof *is_lost);
	while (support_event(pool, SECPOOL_EVENT_REGION_LOST, 1000, &event)) {
		SUPPORT_CHECK(event.region == region && event.cause == SECPOOL_CAUSE_REMOVED);
		SUPPORT_CHECK(event.range.bytes > 0 && event.range.bytes % PAGE == 0);
		for (size_t at = 0; at < event.range.bytes; at += PAGE) {
			size_t page = (event.range.offset + at) / PAGE;
			SUPPORT_CHECK(page < PAGES && !told[page]);
			told[page] = true;
		}
	}
	SUPPORT_OK(secpool_region_lost(region, ranges, RANGES_MOST, &count));
	SUPPORT_CHECK(count > 0 && count <= RANGES_MOST);
	for (size_t i = 0; i < count; i++) {
		/* in order and merged */
		SUPPORT_CHECK(
			i == 0 || ranges[i].offset > ranges[i - 1].offset + ranges[i - 1].bytes);
		for (size_t at = 0; at < ranges[i].bytes; at += PAGE) {
			is_lost[(ranges[i].offset + at) / PAGE] = true;
			lost++;
		}
	}
	SUPPORT_CHECK(memcmp(told, is_lost, sizeof told) == 0);
	return lost;
}

/* Each page is either right or lost, in every way of access. */
static void check_pages(struct secpool_region *region, const bool *is_lost, uint64_t seed)
{
	uint8_t *memory = secpool_region_address(region), buffer[PAGE];

	for (size_t page = 0; page < PAGES; page++) {
		size_t offset = page * PAGE;
		if (!is_lost[page]) {
			SUPPORT_CHECK(!touch_raises(memory + offset + 17));
			SUPPORT_CHECK(support_matches(memory + offset, PAGE, seed + page));
			continue;
		}
		SUPPORT_CHECK(touch_raises(memory + offset + page % PAGE));
		SUPPORT_CHECK(secpool_read(region, offset, buffer, PAGE) == SECPOOL_E_LOST);
		SUPPORT_CHECK(secpool_write(region, offset, buffer, 8) == SECPOOL_E_LOST);
	}
}

static int lose_without_redundancy(void *arg)
{
	struct secpool *pool = support_open("alpha", LOCAL_BYTES);
	struct secpool_region *stays = make_region(pool, "stays"),
			      *goes = make_region(pool, "goes");
	uint8_t *memory = secpool_region_address(goes), *other = secpool_region_address(stays);
	char device[32], other_device[32];
	static bool is_lost[PAGES];
	size_t lost;

	(void)arg;
	catch_bus();
	find_device("goes", device, sizeof device);
	find_device("stays", other_device, sizeof other_device);
	SUPPORT_CHECK(strcmp(device, other_device) != 0);
	for (size_t page = 0; page < PAGES; page++)
		support_fill(other + page * PAGE, PAGE, 1000000 + page);
	for (size_t page = 0; page < PAGES; page++)
		support_fill(memory + page * PAGE, PAGE, page);
	SUPPORT_CHECK(support_cli(NULL, 0, "device", "pull", device, NULL) == 0);
	lost = collect_lost(pool, goes, is_lost);
	printf("%zu of %d pages were lost\n", lost, PAGES);
	/* what can have been resident is not more than the limit; some of it was, and is saved */
	SUPPORT_CHECK(lost < PAGES && lost >= PAGES - LOCAL_BYTES / PAGE);
	check_pages(goes, is_lost, 0);
	check_own_bus();
	/* push the saved pages out to their new place and read them from there */
	for (size_t page = 0; page < PAGES; page++)
		SUPPORT_CHECK(support_matches(other + page * PAGE, PAGE, 1000000 + page));
	check_pages(goes, is_lost, 0);
	struct secpool_stats stats = {.size = sizeof stats};
	SUPPORT_OK(secpool_stats(pool, &stats));
	SUPPORT_CHECK(stats.lost_pages == lost);
	struct secpool_receipt receipt = {.size = sizeof receipt};
	SUPPORT_OK(secpool_region_release(goes, &receipt));
	SUPPORT_CHECK(strlen(receipt.text) > 0);
	SUPPORT_OK(secpool_region_release(stays, NULL));
	secpool_close(pool);
	/* afterwards too */
	check_own_bus();
	/* the device's return brings nothing back, and it is scrubbed */
	SUPPORT_CHECK(support_cli(NULL, 0, "device", "plug", device, NULL) == 0);
	support_wait_device(device, "online", true, WAIT_MS);
	return 0;
}

/* ---- mirror:2 ---- */
static uint8_t *mirrored;
static uint64_t versions[PAGES];
static atomic_bool is_over;
static atomic_ullong accesses, longest_ns;

static void *write_mirrored(void *arg)
{
	size_t first = (size_t)(uintptr_t)arg;

	for (size_t page = first; !atomic_load_explicit(&is_over, memory_order_relaxed);
		page = (page + 101 * WRITERS) % PAGES) {
		uint64_t began = clock_now_ns(), took;
		uint8_t *at = mirrored + page * PAGE;
		if (!support_matches(at, PAGE, versions[page] * PAGES + page))
			support_fail("page %zu is not what was written", page);
		versions[page]++;
		support_fill(at, PAGE, versions[page] * PAGES + page);
		took = clock_now_ns() - began;
		if (took > atomic_load_explicit(&longest_ns, memory_order_relaxed))
			atomic_store_explicit(&longest_ns, took, memory_order_relaxed);
		atomic_fetch_add_explicit(&accesses, 1, memory_order_relaxed);
	}
	return NULL;
}

static void wait_accesses(unsigned long long more)
{
	unsigned long long before = atomic_load(&accesses);

	for (unsigned ms = 0; atomic_load(&accesses) < before + more; ms++) {
		SUPPORT_CHECK(ms < WAIT_MS);
		clock_sleep_ns(CLOCK_NS_PER_MS);
	}
}

static int fail_over(void *arg)
{
	struct secpool *pool = support_open("alpha", LOCAL_BYTES);
	struct secpool_region *region = support_region(pool, (size_t)PAGES * PAGE, 2);
	struct secpool_event event;
	pthread_t threads[WRITERS];
	size_t count;

	(void)arg;
	catch_bus();
	mirrored = secpool_region_address(region);
	for (size_t page = 0; page < PAGES; page++)
		support_fill(mirrored + page * PAGE, PAGE, page);
	for (size_t i = 0; i < WRITERS; i++)
		SUPPORT_CHECK(pthread_create(&threads[i], NULL, write_mirrored, (void *)i) == 0);
	/* each device in turn goes and comes back: what was written while one was gone is safe on the others */
	for (int i = 0; i < 3; i++) {
		char id[8];
		snprintf(id, sizeof id, "dev%d", i);
		wait_accesses(2000);
		SUPPORT_CHECK(support_cli(NULL, 0, "device", "pull", id, NULL) == 0);
		if (!support_event(pool, SECPOOL_EVENT_DEVICE_LOST, WAIT_MS, &event))
			support_fail("no event for the loss of %s", id);
		SUPPORT_CHECK(strcmp(event.device, id) == 0);
		wait_accesses(5000);
		SUPPORT_CHECK(support_cli(NULL, 0, "device", "plug", id, NULL) == 0);
		support_wait_device(id, "online", true, WAIT_MS);
		/* this test takes the next one only when the copies are complete again */
		clock_sleep_ns(CLOCK_NS_PER_S);
		SUPPORT_OK(secpool_flush(region));
	}
	atomic_store(&is_over, true);
	for (size_t i = 0; i < WRITERS; i++)
		SUPPORT_CHECK(pthread_join(threads[i], NULL) == 0);
	for (size_t page = 0; page < PAGES; page++)
		SUPPORT_CHECK(support_matches(
			mirrored + page * PAGE, PAGE, versions[page] * PAGES + page));
	SUPPORT_OK(secpool_region_lost(region, NULL, 0, &count));
	SUPPORT_CHECK(count == 0);
	printf("%llu accesses, the longest %.1f ms\n", (unsigned long long)accesses,
		(double)longest_ns / CLOCK_NS_PER_MS);
	SUPPORT_OK(secpool_region_release(region, NULL));
	secpool_close(pool);
	return 0;
}

int main(void)
{
	support_up(2, "64M", NULL);
	SUPPORT_CHECK(support_join(support_fork(lose_without_redundancy, NULL), 90000) == 0);
	support_down();
	support_up(3, "64M", NULL);
	SUPPORT_CHECK(support_join(support_fork(fail_over, NULL), 120000) == 0);
	support_down();
	return 0;
}
