/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a program does to pool memory by other ways than loads and stores, in both fault modes: handlers of its signals touch it, also when they interrupt the library; a handler on an alternate stack after a stack overflow;
 * munmap, mremap, madvise and mprotect, which are refused; and the raw system call that goes round: never zeros. timeout: 120
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "tests/support/support.h"

enum {
	PAGE = 4096,
	PAGES = 4096,
	LOCAL = 4 << 20,
	WAIT_MS = 60000,
	RUNS_LEAST = 100,
	OBJECTS = 64
};

/* Sanitizers take a stack overflow for their own, and TSan runs signal handlers when it likes: faults as signals don't work there. */
#if defined(__SANITIZE_THREAD__)
enum { OVERFLOWS_ARE_OURS = 0, MODES = 1 };
#elif defined(__SANITIZE_ADDRESS__)
enum { OVERFLOWS_ARE_OURS = 0, MODES = 2 };
#else
enum { OVERFLOWS_ARE_OURS = 1, MODES = 2 };
#endif

static uint8_t *memory; /* PAGES pages, four times the local memory, each filled from its number */

static struct secpool_region *fill_region(struct secpool *pool)
{
	struct secpool_region *region = support_region(pool, (size_t)PAGES * PAGE, 1);

	memory = secpool_region_address(region);
	for (size_t i = 0; i < PAGES; i++)
		support_fill(memory + i * PAGE, PAGE, i + 1);
	return region;
}

static bool page_is_right(size_t page)
{
	return support_matches(memory + page * PAGE, PAGE, page + 1);
}

/* ---- handlers of signals ---- */

static volatile sig_atomic_t runs, wrong;

static void on_alarm(int number)
{
	static size_t at;

	(void)number;
	at = (at + 1021) % PAGES;
	if (!page_is_right(at))
		wrong = 1;
	runs++;
}

static void set_timer(long us)
{
	struct itimerval timer = {.it_interval = {.tv_usec = us}, .it_value = {.tv_usec = us}};

	SUPPORT_CHECK(setitimer(ITIMER_REAL, &timer, NULL) == 0);
}

/* The library is interrupted in what moves pages, and in its heap, whose first object makes a region. */
static void test_handlers_touch_pool_memory(struct secpool *pool, struct secpool_region *region)
{
	struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART}, before;
	uint64_t end = clock_now_ns() + (uint64_t)WAIT_MS * CLOCK_NS_PER_MS;
	uint8_t *buffer = malloc(64 * PAGE), *objects[OBJECTS] = {NULL};

	SUPPORT_CHECK(buffer != NULL && sigaction(SIGALRM, &action, &before) == 0);
	runs = wrong = 0;
	set_timer(900);
	for (size_t i = 0; runs < RUNS_LEAST && clock_now_ns() < end; i++) {
		size_t first = i * 64 % PAGES, kept = i % OBJECTS;
		SUPPORT_OK(secpool_read(region, first * PAGE, buffer, 64 * PAGE));
		SUPPORT_OK(secpool_write(region, first * PAGE, buffer, 64 * PAGE));
		SUPPORT_CHECK(page_is_right((first + 17) % PAGES));
		if (objects[kept])
			SUPPORT_CHECK(support_matches(objects[kept], 1024, kept));
		secpool_free(pool, objects[kept]);
		objects[kept] = secpool_malloc(pool, 1024 + i % 8192);
		SUPPORT_CHECK(objects[kept] != NULL);
		support_fill(objects[kept], 1024, kept);
	}
	set_timer(0);
	SUPPORT_CHECK(sigaction(SIGALRM, &before, NULL) == 0);
	SUPPORT_CHECK(runs >= RUNS_LEAST && !wrong);
	for (size_t i = 0; i < OBJECTS; i++)
		secpool_free(pool, objects[i]);
	free(buffer);
}

/* ---- stack overflow ---- */

static sigjmp_buf back;
static volatile sig_atomic_t on_overflow_was_right;
static volatile int depth_most = 1 << 20;

static void on_overflow(int number)
{
	(void)number;
	on_overflow_was_right = page_is_right(0) && page_is_right(PAGES - 1);
	siglongjmp(back, 1);
}

static int descend(int depth)
{
	volatile char frame[2048];

	frame[0] = (char)depth;
	if (depth >= depth_most)
		return depth;
	return descend(depth + 1) + frame[0];
}

static void *overflow(void *arg)
{
	stack_t stack = {.ss_size = 64 << 10, .ss_sp = malloc(64 << 10)},
		none = {.ss_flags = SS_DISABLE};

	(void)arg;
	SUPPORT_CHECK(stack.ss_sp != NULL && sigaltstack(&stack, NULL) == 0);
	if (sigsetjmp(back, 1) == 0)
		descend(0);
	SUPPORT_CHECK(page_is_right(PAGES / 2)); /* the thread goes on */
	SUPPORT_CHECK(sigaltstack(&none, NULL) == 0);
	free(stack.ss_sp);
	return NULL;
}

/* Both times: the handler is the program's, and its accesses are served on its stack. */
static void test_stack_overflow(void)
{
	struct sigaction action = {.sa_handler = on_overflow, .sa_flags = SA_ONSTACK}, before;
	pthread_attr_t small;
	pthread_t thread;

	SUPPORT_CHECK(sigaction(SIGSEGV, &action, &before) == 0);
	SUPPORT_CHECK(pthread_attr_init(&small) == 0 &&
		      pthread_attr_setstacksize(&small, 256 << 10) == 0);
	for (int i = 0; i < 2; i++) {
		on_overflow_was_right = 0;
		SUPPORT_CHECK(pthread_create(&thread, &small, overflow, NULL) == 0);
		pthread_join(thread, NULL);
		SUPPORT_CHECK(on_overflow_was_right);
	}
	pthread_attr_destroy(&small);
	SUPPORT_CHECK(sigaction(SIGSEGV, &before, NULL) == 0);
}

/* ---- what changes mappings ---- */

static void check_refused(bool refused, const char *what)
{
	if (!refused || errno != EINVAL)
		support_fail("%s on pool memory: not EINVAL", what);
	errno = 0;
}

static void test_mappings_stay(struct secpool *pool)
{
	static const int advice[] = {MADV_NORMAL, MADV_RANDOM, MADV_SEQUENTIAL, MADV_WILLNEED,
		MADV_DONTNEED, MADV_FREE, MADV_REMOVE, MADV_DONTFORK, MADV_DOFORK, MADV_MERGEABLE,
		MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_DONTDUMP, MADV_DODUMP, MADV_WIPEONFORK,
		MADV_COLD, MADV_PAGEOUT};
	static const int protections[] = {PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE};
	uint8_t *object = secpool_malloc(pool, 3 * PAGE), *page;
	uint8_t *outside =
		mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	SUPPORT_CHECK(object != NULL && outside != MAP_FAILED);
	support_fill(object, 3 * PAGE, 99);
	page = object + PAGE - (uintptr_t)object % PAGE;
	for (size_t i = 0; i < sizeof advice / sizeof *advice; i++) {
		check_refused(madvise(memory, PAGE, advice[i]) == -1, "madvise");
		check_refused(madvise(page, PAGE, advice[i]) == -1, "madvise");
	}
	for (size_t i = 0; i < sizeof protections / sizeof *protections; i++) {
		check_refused(mprotect(memory, PAGE, protections[i]) == -1, "mprotect");
		check_refused(mprotect(memory - PAGE, 2 * PAGE, protections[i]) == -1, "mprotect");
		check_refused(mprotect(page, PAGE, protections[i]) == -1, "mprotect");
	}
	check_refused(munmap(memory, PAGE) == -1, "munmap");
	check_refused(munmap(page, PAGE) == -1, "munmap");
	check_refused(mremap(memory, PAGE, 2 * PAGE, MREMAP_MAYMOVE) == MAP_FAILED, "mremap");
	check_refused(
		mremap(outside, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, memory) == MAP_FAILED,
		"mremap onto it");
	/* and what is not the pool's is the program's */
	SUPPORT_CHECK(mprotect(outside, PAGE, PROT_READ) == 0 &&
		      madvise(outside + PAGE, PAGE, MADV_DONTNEED) == 0 &&
		      mremap(outside + 2 * PAGE, PAGE, PAGE, 0) == outside + 2 * PAGE);
	SUPPORT_CHECK(munmap(outside, 4 * PAGE) == 0);
	for (size_t i = 0; i < PAGES; i++)
		SUPPORT_CHECK(page_is_right(i));
	SUPPORT_CHECK(support_matches(object, 3 * PAGE, 99));
	secpool_free(pool, object);
}

/* ---- round the library ---- */

static volatile sig_atomic_t expect_bus;

static void on_bus(int number)
{
	(void)number;
	if (!expect_bus)
		_exit(3);
	siglongjmp(back, 1);
}

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif

/* The frames of pages go that nobody has written back: what was there is lost, and said so; what the pool has comes back. */
static void test_raw_drop_gives_no_zeros(struct secpool_region *region)
{
	struct sigaction action = {.sa_handler = on_bus, .sa_flags = SA_NODEFER}, before;
	volatile size_t right = 0, bus = 0;

	SUPPORT_CHECK(sigaction(SIGBUS, &action, &before) == 0);
	SUPPORT_OK(secpool_flush(region));
	for (size_t i = 0; i < 64; i++)
		support_fill(memory + i * PAGE, PAGE, i + 1); /* dirty, with the same bytes */
	SUPPORT_CHECK(syscall(SYS_madvise, memory, 128 * PAGE, MADV_DONTNEED_LOCKED) == 0);
	for (volatile size_t i = 0; i < 128; i++) {
		expect_bus = 1;
		if (sigsetjmp(back, 1) != 0) {
			bus++;
			continue;
		}
		if (!page_is_right(i))
			support_fail("page %zu has wrong bytes after a raw madvise", i);
		right++;
	}
	expect_bus = 0;
	SUPPORT_CHECK(sigaction(SIGBUS, &before, NULL) == 0);
	SUPPORT_CHECK(bus > 0 && right > 0 && bus + right == 128);
}

static int run_all(void *arg)
{
	struct secpool *pool;
	struct secpool_region *region;

	support_fault_mode = *(enum secpool_fault_mode *)arg;
	pool = support_open("alpha", LOCAL);
	region = fill_region(pool);
	test_handlers_touch_pool_memory(pool, region);
	if (OVERFLOWS_ARE_OURS)
		test_stack_overflow();
	test_mappings_stay(pool);
	test_raw_drop_gives_no_zeros(region);
	SUPPORT_OK(secpool_region_release(region, NULL));
	secpool_close(pool);
	return 0;
}

int main(void)
{
	enum secpool_fault_mode modes[] = {SECPOOL_FAULT_THREAD, SECPOOL_FAULT_INLINE};

	support_up(2, "64M", NULL);
	for (size_t i = 0; i < MODES; i++) {
		int status = support_join(support_fork(run_all, &modes[i]), 2 * WAIT_MS);
		if (status)
			support_fail("in fault mode %zu: status %d", i, status);
	}
	support_wait_regions(0, WAIT_MS);
	support_down();
	return 0;
}
