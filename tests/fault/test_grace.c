/* SPDX-License-Identifier: Apache-2.0 */
/*
 * keymgrd is gone for longer than the policy's grace: until then the program goes on; from then on all of its region raises SIGBUS, resident and pinned pages too, calls return an
 * error, and nothing hangs or reads zeros. In both fault modes. timeout: 180
 */
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "lib/base/clock.h"
#include "tests/support/support.h"

enum { PAGE = 4096, PAGES = 4096, LOCAL_BYTES = 4 << 20, WAIT_MS = 20000, GRACE_MS = 2000 };

static sigjmp_buf out;

static void on_bus(int number)
{
	(void)number;
	siglongjmp(out, 1);
}

static bool touch_raises(const uint8_t *at)
{
	if (sigsetjmp(out, 1) != 0)
		return true;
	(void)*(const volatile uint8_t *)at;
	return false;
}

static void check(const uint8_t *memory, size_t pgno)
{
	if (!support_matches(memory + pgno * PAGE, PAGE, pgno + 1))
		support_fail("page %zu is wrong", pgno);
}

static int program(void *arg)
{
	struct secpool *pool = support_open("alpha", LOCAL_BYTES);
	struct secpool_region *region = support_region(pool, (size_t)PAGES * PAGE, 2);
	uint8_t *memory = secpool_region_address(region), buffer[PAGE];
	struct secpool_event event;
	uint64_t killed_ns;

	(void)arg;
	signal(SIGBUS, on_bus);
	for (size_t pgno = 0; pgno < PAGES; pgno++)
		support_fill(memory + pgno * PAGE, PAGE, pgno + 1);
	SUPPORT_OK(secpool_pin(region, 7 * PAGE, PAGE));
	/* before: the library may notice its end sooner than this thread is run again */
	killed_ns = clock_now_ns();
	support_kill_daemon("keymgrd");
	for (size_t pgno = 0; clock_now_ns() - killed_ns < GRACE_MS / 2 * CLOCK_NS_PER_MS; pgno++)
		check(memory, pgno % PAGES);
	if (!support_event(pool, SECPOOL_EVENT_REGION_ENDED, WAIT_MS, &event))
		support_fail("the region did not end");
	SUPPORT_CHECK(clock_now_ns() - killed_ns > GRACE_MS * CLOCK_NS_PER_MS);
	SUPPORT_CHECK(event.region == region);
	for (size_t pgno = 0; pgno < PAGES; pgno++)
		if (!touch_raises(memory + pgno * PAGE))
			support_fail("a load of page %zu returned", pgno);
	SUPPORT_CHECK(secpool_read(region, 0, buffer, PAGE) == SECPOOL_E_CLOSED);
	SUPPORT_CHECK(secpool_write(region, 0, buffer, PAGE) == SECPOOL_E_CLOSED);
	SUPPORT_CHECK(secpool_pin(region, 0, PAGE) == SECPOOL_E_CLOSED);
	SUPPORT_CHECK(secpool_flush(region) == SECPOOL_E_CLOSED);
	/* when it is back it is too late for this region, not for another */
	support_up(2, "64M", NULL);
	if (!support_event(pool, SECPOOL_EVENT_DAEMON_BACK, WAIT_MS, &event))
		support_fail("keymgrd is not back");
	SUPPORT_CHECK(touch_raises(memory));
	SUPPORT_OK(secpool_unpin(region, 7 * PAGE, PAGE) == SECPOOL_E_CLOSED ? SECPOOL_OK
									     : SECPOOL_E_INTERNAL);
	SUPPORT_OK(secpool_region_release(region, NULL));
	support_wait_device("dev0", "online", true, WAIT_MS);
	support_wait_device("dev1", "online", true, WAIT_MS);
	region = support_region(pool, (size_t)PAGES * PAGE, 2);
	memory = secpool_region_address(region);
	for (size_t pgno = 0; pgno < PAGES; pgno++)
		support_fill(memory + pgno * PAGE, PAGE, pgno + 1);
	for (size_t pgno = 0; pgno < PAGES; pgno++)
		check(memory, pgno);
	SUPPORT_OK(secpool_region_release(region, NULL));
	secpool_close(pool);
	return 0;
}

int main(void)
{
	support_policy_lines = "grace_seconds: 2\n";
	support_up(2, "64M", NULL);
	SUPPORT_CHECK(support_join(support_fork(program, NULL), 80000) == 0);
	support_fault_mode = SECPOOL_FAULT_INLINE;
	SUPPORT_CHECK(support_join(support_fork(program, NULL), 80000) == 0);
	support_down();
	return 0;
}
