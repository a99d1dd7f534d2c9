/* SPDX-License-Identifier: Apache-2.0 */
/* lib/base/clock.c: the two clocks, and that a signal does not shorten a sleep. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/time.h>
#include <time.h>

#include <cmocka.h>

#include "lib/base/clock.h"

static void test_clocks(void **state)
{
	uint64_t before = clock_now_ns(), after;
	struct timespec now;

	(void)state;
	clock_gettime(CLOCK_MONOTONIC, &now);
	after = (uint64_t)now.tv_sec * CLOCK_NS_PER_S + (uint64_t)now.tv_nsec;
	assert_in_range(after - before, 0, CLOCK_NS_PER_S);
	assert_in_range(clock_calendar_ns() / CLOCK_NS_PER_S, (uint64_t)time(NULL) - 1,
		(uint64_t)time(NULL) + 1);
}

static volatile sig_atomic_t alarms;

static void on_alarm(int number)
{
	(void)number;
	alarms++;
}

static void test_sleep(void **state)
{
	struct itimerval every = {.it_interval.tv_usec = 5000, .it_value.tv_usec = 5000}, off = {0};
	struct sigaction action = {.sa_handler = on_alarm};
	uint64_t start = clock_now_ns();

	(void)state;
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &every, NULL);
	clock_sleep_ns(60 * (uint64_t)CLOCK_NS_PER_MS);
	setitimer(ITIMER_REAL, &off, NULL);
	assert_true(clock_now_ns() - start >= 60 * (uint64_t)CLOCK_NS_PER_MS);
	assert_true(alarms > 0);
	clock_sleep_ns(0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_clocks),
		cmocka_unit_test(test_sleep),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
