/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loss mode refill in both fault modes: lost pages are made again by the callback, once each, by touches, secpool_read and secpool_pin, from several threads; the callback may touch another region; one that fails or is late leaves
 * its page lost, and nobody waits longer than its deadline; what was written to a refilled page stays. timeout: 180
 */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "lib/base/clock.h"
#include "tests/support/support.h"

enum { PAGE = 4096, PAGES = 2048, LOCAL_BYTES = 4 << 20, WAIT_MS = 20000, REFILL_MS = 2000 };
enum { FAILS = PAGES - 1, LATE = PAGES - 2 };

static uint8_t *other; /* of another region, larger than the local memory */
static atomic_uint calls[PAGES];
static uint8_t *memory;
static _Thread_local sigjmp_buf out;
static _Thread_local bool expected;

static void on_bus(int number, siginfo_t *info, void *context)
{
	(void)number;
	(void)context;
	if (!expected)
		support_fail("SIGBUS at page %td, which was asked for %u times",
			((uint8_t *)info->si_addr - memory) / PAGE,
			calls[(size_t)((uint8_t *)info->si_addr - memory) / PAGE % PAGES]);
	siglongjmp(out, 1);
}

static bool touch_raises(const uint8_t *at)
{
	volatile bool raised = true;

	expected = true;
	if (sigsetjmp(out, 1) == 0) {
		(void)*(const volatile uint8_t *)at;
		raised = false;
	}
	expected = false;
	return raised;
}

static int refill(void *arg, size_t offset, void *buffer, size_t bytes)
{
	size_t pgno = offset / PAGE;

	SUPPORT_CHECK(arg == calls && bytes == PAGE && offset % PAGE == 0);
	calls[pgno]++;
	if (pgno == FAILS)
		return 1;
	SUPPORT_CHECK(support_matches(other + pgno * PAGE, PAGE, 5000 + pgno));
	if (pgno == LATE) /* it may return when the regions are gone */
		clock_sleep_ns(3ull * REFILL_MS * CLOCK_NS_PER_MS);
	support_fill(buffer, bytes, 100 + pgno);
	return 0;
}

static void *read_all(void *arg)
{
	(void)arg;
	for (size_t pgno = 0; pgno < LATE; pgno++)
		if (!support_matches(memory + pgno * PAGE, PAGE, 100 + pgno))
			support_fail("page %zu is wrong", pgno);
	return NULL;
}

static int program(void *arg)
{
	struct secpool_region_options wanted = {.size = sizeof wanted,
		.bytes = (size_t)PAGES * PAGE,
		.on_loss = SECPOOL_ON_LOSS_REFILL,
		.refill = refill,
		.refill_arg = calls,
		.refill_ms = REFILL_MS};
	struct secpool *pool = support_open("alpha", LOCAL_BYTES);
	struct secpool_region *safe, *region;
	struct sigaction action = {.sa_sigaction = on_bus, .sa_flags = SA_SIGINFO};
	uint8_t buffer[PAGE];
	pthread_t threads[3];
	unsigned made = 0;
	uint64_t start;

	(void)arg;
	sigaction(SIGBUS, &action, NULL);
	safe = support_region(pool, (size_t)PAGES * PAGE, 2);
	other = secpool_region_address(safe);
	for (size_t pgno = 0; pgno < PAGES; pgno++)
		support_fill(other + pgno * PAGE, PAGE, 5000 + pgno);
	SUPPORT_OK(secpool_region_create(pool, &wanted, &region));
	memory = secpool_region_address(region);
	for (size_t pgno = 0; pgno < PAGES; pgno++)
		support_fill(memory + pgno * PAGE, PAGE, 100 + pgno);
	/* out with all of it: it is not resident when its device goes */
	for (size_t pgno = 0; pgno < PAGES; pgno++)
		SUPPORT_CHECK(support_matches(other + pgno * PAGE, PAGE, 5000 + pgno));
	for (int i = 0; i < 3; i++) {
		char id[8];
		snprintf(id, sizeof id, "dev%d", i);
		SUPPORT_CHECK(support_cli(NULL, 0, "device", "pull", id, NULL) == 0);
		SUPPORT_CHECK(support_cli(NULL, 0, "device", "plug", id, NULL) == 0);
		support_wait_device(id, "online", true, WAIT_MS);
		clock_sleep_ns(CLOCK_NS_PER_S); /* the mirror is rebuilt before the next goes */
	}
	SUPPORT_OK(secpool_read(region, 3 * PAGE, buffer, PAGE));
	SUPPORT_CHECK(support_matches(buffer, PAGE, 103));
	SUPPORT_OK(secpool_pin(region, 4 * PAGE, PAGE));
	SUPPORT_CHECK(support_matches(memory + 4 * PAGE, PAGE, 104));
	SUPPORT_OK(secpool_unpin(region, 4 * PAGE, PAGE));
	for (int i = 0; i < 3; i++)
		SUPPORT_CHECK(pthread_create(&threads[i], NULL, read_all, NULL) == 0);
	for (int i = 0; i < 3; i++)
		SUPPORT_CHECK(pthread_join(threads[i], NULL) == 0);
	for (size_t pgno = 0; pgno < LATE; pgno++) {
		made += calls[pgno];
		SUPPORT_CHECK(calls[pgno] <= 3); /* once for each device that went */
	}
	SUPPORT_CHECK(made > PAGES / 2);
	start = clock_now_ns();
	SUPPORT_CHECK(touch_raises(memory + (size_t)FAILS * PAGE));
	SUPPORT_CHECK(touch_raises(memory + (size_t)LATE * PAGE));
	/* less than the late callback takes: nobody waited for it */
	SUPPORT_CHECK(clock_now_ns() - start < 2ull * REFILL_MS * CLOCK_NS_PER_MS);
	SUPPORT_CHECK(calls[FAILS] == 1 && calls[LATE] == 1);
	SUPPORT_CHECK(secpool_read(region, (size_t)FAILS * PAGE, buffer, PAGE) == SECPOOL_E_LOST);
	/* and is good again when it is written as a whole */
	support_fill(buffer, PAGE, 9);
	SUPPORT_OK(secpool_write(region, (size_t)FAILS * PAGE, buffer, PAGE));
	SUPPORT_CHECK(support_matches(memory + (size_t)FAILS * PAGE, PAGE, 9));
	for (size_t pgno = 0; pgno < LATE; pgno++)
		support_fill(memory + pgno * PAGE, PAGE, 777 + pgno);
	for (size_t pgno = 0; pgno < LATE; pgno++)
		SUPPORT_CHECK(support_matches(memory + pgno * PAGE, PAGE, 777 + pgno));
	SUPPORT_OK(secpool_region_release(region, NULL));
	SUPPORT_OK(secpool_region_release(safe, NULL));
	secpool_close(pool);
	return 0;
}

int main(void)
{
	int status;

	support_up(3, "64M", NULL);
	for (int mode = 0; mode < 2; mode++) {
		support_fault_mode = mode ? SECPOOL_FAULT_INLINE : SECPOOL_FAULT_THREAD;
		status = support_join(support_fork(program, NULL), 80000);
		if (status != 0)
			support_fail("fault mode %d: the program ended with %d", mode, status);
	}
	support_down();
	return 0;
}
