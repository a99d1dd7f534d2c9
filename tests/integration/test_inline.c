/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fault mode inline: faults of reads, writes and calls; system calls on pool memory (EFAULT unless pinned); signals in the middle; a program that closes the library's
 * descriptor; lost pages; more threads than there are guests' places. timeout: 180
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "tests/support/support.h"

enum { PAGE = 4096, PAGES = 4096, LOCAL = 4 << 20, WAIT_MS = 30000, THREADS = 24 };

static sigjmp_buf back;
static void *volatile bus_address;
static volatile sig_atomic_t expect_bus;

static void on_bus(int number, siginfo_t *info, void *context)
{
	(void)number;
	(void)context;
	if (!expect_bus)
		_exit(3);
	bus_address = info->si_addr;
	siglongjmp(back, 1);
}

static bool touch_raises(volatile uint8_t *at)
{
	bool raised = true;

	expect_bus = 1;
	if (sigsetjmp(back, 1) == 0) {
		(void)*at;
		raised = false;
	}
	expect_bus = 0;
	return raised;
}

static void fill_all(uint8_t *memory)
{
	for (size_t i = 0; i < PAGES; i++)
		support_fill(memory + i * PAGE, PAGE, i + 1);
}

static void check_all(const uint8_t *memory)
{
	for (size_t i = 0; i < PAGES; i++)
		SUPPORT_CHECK(support_matches(memory + i * PAGE, PAGE, i + 1));
}

static void test_reads_and_writes(void)
{
	struct secpool *pool = support_open("alpha", LOCAL);
	struct secpool_region *region = support_region(pool, (size_t)PAGES * PAGE, 1);
	uint8_t *memory = secpool_region_address(region);
	struct secpool_stats stats = {.size = sizeof stats};

	fill_all(memory);
	check_all(memory);
	/* backwards, and one byte in each page: read first, then written where it is write-protected */
	for (size_t i = PAGES; i-- > 0;) {
		uint8_t *at = memory + i * PAGE + 77;
		uint8_t was = *(volatile uint8_t *)at;
		*(volatile uint8_t *)at = (uint8_t)(was + 1);
		*(volatile uint8_t *)at = was;
	}
	check_all(memory);
	SUPPORT_OK(secpool_stats(pool, &stats));
	SUPPORT_CHECK(stats.evictions > 0 && stats.fills > 0 && stats.lost_pages == 0);
	SUPPORT_CHECK(stats.resident_bytes <= LOCAL);
	SUPPORT_OK(secpool_region_release(region, NULL));
	secpool_close(pool);
}

/* The kernel can't wait for the thread to serve itself. */
static void test_system_calls_need_pins(void)
{
	struct secpool *pool = support_open("alpha", LOCAL);
	struct secpool_region *region = support_region(pool, (size_t)PAGES * PAGE, 1);
	uint8_t *memory = secpool_region_address(region), buffer[PAGE];
	int fds[2];

	fill_all(memory); /* the first pages are out by now */
	SUPPORT_CHECK(pipe(fds) == 0);
	SUPPORT_CHECK(write(fds[1], memory, PAGE) == -1 && errno == EFAULT);
	SUPPORT_OK(secpool_pin(region, 0, 8 * PAGE));
	SUPPORT_CHECK(write(fds[1], memory, PAGE) == PAGE);
	SUPPORT_CHECK(read(fds[0], buffer, PAGE) == PAGE);
	SUPPORT_CHECK(support_matches(buffer, PAGE, 1));
	/* pinned pages stay where they are, and writable, whatever else is touched */
	check_all(memory);
	SUPPORT_CHECK(write(fds[1], buffer, PAGE) == PAGE);
	SUPPORT_CHECK(read(fds[0], memory + 7 * PAGE, PAGE) == PAGE);
	SUPPORT_CHECK(support_matches(memory + 7 * PAGE, PAGE, 1));
	support_fill(memory + 7 * PAGE, PAGE, 8);
	SUPPORT_OK(secpool_unpin(region, 0, 8 * PAGE));
	check_all(memory); /* they leave again, with what was written to them */
	check_all(memory);
	SUPPORT_CHECK(write(fds[1], memory, PAGE) == -1 && errno == EFAULT);
	close(fds[0]);
	close(fds[1]);
	SUPPORT_OK(secpool_region_release(region, NULL));
	secpool_close(pool);
}

static volatile uint8_t *handler_memory;
static volatile sig_atomic_t handler_runs, handler_wrong;

/* The program's own handler touches pool memory, also in the middle of a call of the library. */
static void on_alarm(int number)
{
	static size_t at;

	(void)number;
	at = (at + 1021) % PAGES;
	if (!support_matches((const void *)(uintptr_t)(handler_memory + at * PAGE), PAGE, at + 1))
		handler_wrong = 1;
	handler_runs++;
}

static void test_signals_in_the_middle(void)
{
	struct itimerval timer = {.it_interval = {.tv_usec = 700}, .it_value = {.tv_usec = 700}};
	struct sigaction action = {.sa_handler = on_alarm}, before;
	struct secpool *pool = support_open("alpha", LOCAL);
	struct secpool_region *region = support_region(pool, (size_t)PAGES * PAGE, 1);
	uint8_t *memory = secpool_region_address(region), *buffer = malloc(64 * PAGE);
	uint64_t start, now;

	fill_all(memory);
	handler_memory = memory;
	SUPPORT_CHECK(sigaction(SIGALRM, &action, &before) == 0);
	SUPPORT_CHECK(setitimer(ITIMER_REAL, &timer, NULL) == 0);
	/* two seconds; more on a machine that has little time for us */
	start = now = clock_now_ns();
	for (size_t i = 0; now - start < 2 * CLOCK_NS_PER_S ||
			   (handler_runs <= 100 && now - start < 60 * CLOCK_NS_PER_S);
		i = (i + 64) % PAGES, now = clock_now_ns()) {
		SUPPORT_OK(secpool_read(region, i * PAGE, buffer, 64 * PAGE));
		SUPPORT_OK(secpool_write(region, i * PAGE, buffer, 64 * PAGE));
		SUPPORT_CHECK(support_matches(memory + i * PAGE, PAGE, i + 1));
	}
	timer = (struct itimerval){.it_value = {0}};
	SUPPORT_CHECK(setitimer(ITIMER_REAL, &timer, NULL) == 0);
	SUPPORT_CHECK(sigaction(SIGALRM, &before, NULL) == 0);
	SUPPORT_CHECK(handler_runs > 100 && !handler_wrong);
	check_all(memory);
	free(buffer);
	SUPPORT_OK(secpool_region_release(region, NULL));
	secpool_close(pool);
}

/* A daemon closes what it does not know: faults go on, never zeros, by the library's own threads. */
static int closes_descriptors(void *arg)
{
	struct secpool *pool = support_open("alpha", LOCAL);
	struct secpool_region *region = support_region(pool, (size_t)PAGES * PAGE, 1);
	uint8_t *memory = secpool_region_address(region);

	(void)arg;
	fill_all(memory);
	SUPPORT_CHECK(close_range(3, ~0u, 0) == 0);
	/* other files take the numbers */
	for (int i = 0; i < 16; i++)
		SUPPORT_CHECK(open("/dev/zero", O_RDWR | O_CLOEXEC) >= 0);
	check_all(memory);
	fill_all(memory);
	check_all(memory);
	SUPPORT_CHECK(secpool_pin(region, 0, PAGE) == SECPOOL_E_CLOSED);
	SUPPORT_CHECK(*secpool_error_detail() != '\0');
	SUPPORT_OK(secpool_region_release(region, NULL));
	secpool_close(pool);
	/* nor does the library close what the program has opened since */
	for (int fd = 3; fd < 3 + 16; fd++)
		SUPPORT_CHECK(fcntl(fd, F_GETFD) >= 0);
	return 0;
}

static void test_closed_descriptors(void)
{
	pid_t child = support_fork(closes_descriptors, NULL);

	SUPPORT_CHECK(support_join(child, WAIT_MS * 2) == 0);
}

struct reader {
	pthread_t thread;
	const uint8_t *memory;
	unsigned seed;
};

static void *read_randomly(void *arg)
{
	struct reader *reader = arg;

	for (int i = 0; i < 1500; i++) {
		size_t page = (size_t)rand_r(&reader->seed) % PAGES;
		SUPPORT_CHECK(support_matches(reader->memory + page * PAGE, PAGE, page + 1));
	}
	return NULL;
}

static void test_many_threads(void)
{
	struct secpool *pool = support_open("alpha", LOCAL);
	struct secpool_region *region = support_region(pool, (size_t)PAGES * PAGE, 1);
	struct reader readers[THREADS];

	fill_all(secpool_region_address(region));
	for (unsigned i = 0; i < THREADS; i++) {
		readers[i] = (struct reader){.memory = secpool_region_address(region), .seed = i};
		SUPPORT_CHECK(
			pthread_create(&readers[i].thread, NULL, read_randomly, &readers[i]) == 0);
	}
	for (unsigned i = 0; i < THREADS; i++)
		SUPPORT_CHECK(pthread_join(readers[i].thread, NULL) == 0);
	SUPPORT_OK(secpool_region_release(region, NULL));
	secpool_close(pool);
}

/* What is lost is the program's to know: its handler is called with the address, and calls return an error. */
static void test_lost_pages(void)
{
	struct sigaction action = {.sa_sigaction = on_bus, .sa_flags = SA_SIGINFO}, before;
	struct secpool *pool = support_open("alpha", LOCAL);
	struct secpool_region *region = support_region(pool, (size_t)PAGES * PAGE, 1);
	uint8_t *memory = secpool_region_address(region), buffer[PAGE];
	struct secpool_event event = {.size = sizeof event};
	size_t raised = 0, lost = 0, ranges;

	SUPPORT_CHECK(sigaction(SIGBUS, &action, &before) == 0);
	fill_all(memory);
	SUPPORT_CHECK(support_cli(NULL, 0, "device", "pull", "dev0", NULL) == 0);
	SUPPORT_CHECK(support_cli(NULL, 0, "device", "pull", "dev1", NULL) == 0);
	SUPPORT_CHECK(support_event(pool, SECPOOL_EVENT_REGION_LOST, WAIT_MS, &event));
	for (size_t i = 0; i < PAGES; i++) {
		bool fails;
		if (touch_raises(memory + i * PAGE)) {
			SUPPORT_CHECK(bus_address == memory + i * PAGE);
			raised++;
		} else {
			SUPPORT_CHECK(support_matches(memory + i * PAGE, PAGE, i + 1));
		}
		fails = secpool_read(region, i * PAGE, buffer, PAGE) == SECPOOL_E_LOST;
		SUPPORT_CHECK(fails == touch_raises(memory + i * PAGE));
		lost += fails;
	}
	SUPPORT_CHECK(raised > 0 && lost >= raised);
	SUPPORT_OK(secpool_region_lost(region, NULL, 0, &ranges));
	SUPPORT_CHECK(ranges > 0);
	SUPPORT_CHECK(sigaction(SIGBUS, &before, NULL) == 0);
	SUPPORT_OK(secpool_region_release(region, NULL));
	secpool_close(pool);
	for (int i = 0; i < 2; i++) {
		char id[8] = "dev0";
		id[3] = (char)('0' + i);
		SUPPORT_CHECK(support_cli(NULL, 0, "device", "plug", id, NULL) == 0);
		support_wait_device(id, "online", true, WAIT_MS);
	}
}

int main(void)
{
	support_up(2, "64M", NULL);
	support_fault_mode = SECPOOL_FAULT_INLINE;
	test_closed_descriptors(); /* forks: no pool is open yet */
	test_reads_and_writes();
	test_system_calls_need_pins();
	test_signals_in_the_middle();
	test_many_threads();
	test_lost_pages();
	support_down();
	return 0;
}
