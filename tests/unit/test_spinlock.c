/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include "lib/spinlock.h"

enum { THREADS = 4, ROUNDS = 100000 };

static struct spinlock lock;
static unsigned long counter; /* by the lock */

static void *count(void *arg)
{
	(void)arg;
	for (int i = 0; i < ROUNDS; i++) {
		spinlock_take(&lock);
		counter++;
		if (i % 1000 == 0)
			sched_yield(); /* others meet it held, and sleep */
		spinlock_give(&lock);
	}
	return NULL;
}

static void test_one_at_a_time(void **state)
{
	pthread_t threads[THREADS];

	(void)state;
	counter = 0;
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, count, NULL), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(counter, (unsigned long)THREADS * ROUNDS);
	assert_int_equal(lock.state, SPINLOCK_FREE);
}

static void *take(void *arg)
{
	spinlock_take(arg);
	spinlock_give(arg);
	return NULL;
}

/* A waiter that sleeps is woken when the lock is given. */
static void test_sleepers_wake(void **state)
{
	static struct spinlock held;
	pthread_t thread;

	(void)state;
	spinlock_take(&held);
	assert_int_equal(pthread_create(&thread, NULL, take, &held), 0);
	while (atomic_load(&held.state) != SPINLOCK_WAITED_FOR)
		usleep(1000);
	spinlock_give(&held);
	pthread_join(thread, NULL);
	assert_int_equal(held.state, SPINLOCK_FREE);
}

static void test_futex_returns_when_the_word_differs(void **state)
{
	_Atomic uint32_t word = 3;

	(void)state;
	spinlock_futex_wait(&word, 2); /* it would sleep for ever if it looked at something else */
	spinlock_futex_wake(&word, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_at_a_time),
		cmocka_unit_test(test_sleepers_wake),
		cmocka_unit_test(test_futex_returns_when_the_word_differs),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
