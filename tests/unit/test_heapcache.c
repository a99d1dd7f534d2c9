/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/heapcache.h"

enum { MOST = 8, CLASS = 3 };

/* A heap whose objects are numbers: it counts those that are out. */
struct numbers {
	struct heapcaches caches;
	_Atomic uintptr_t next;
	_Atomic unsigned made, given_back;
	unsigned limit; /* objects that can be made; 0: any number */
};

static void *make(void *arg, unsigned class)
{
	struct numbers *numbers = arg;

	if (numbers->limit > 0 && atomic_load(&numbers->made) >= numbers->limit)
		return NULL;
	atomic_fetch_add(&numbers->made, 1);
	return (void *)(atomic_fetch_add(&numbers->next, 1) * 100 + class);
}

static void give_back(void *arg, void *object)
{
	struct numbers *numbers = arg;

	assert_non_null(object);
	atomic_fetch_add(&numbers->given_back, 1);
}

static void init(struct numbers *numbers)
{
	memset(numbers, 0, sizeof *numbers);
	numbers->next = 1;
	numbers->caches = (struct heapcaches){.arg = numbers, .make = make, .give_back = give_back};
	for (unsigned i = 0; i < HEAPCACHE_CLASSES; i++)
		numbers->caches.most[i] = MOST;
}

static void test_last_freed_is_first_out(void **state)
{
	struct numbers numbers;
	uintptr_t before = 0, now;
	void *one, *two;

	(void)state;
	init(&numbers);
	for (int i = 0; i < MOST / 2; i++) { /* made together, in rising order */
		now = (uintptr_t)heapcache_take(&numbers.caches, CLASS);
		assert_true(now > before && now % 100 == CLASS);
		assert_int_equal(numbers.made, MOST / 2);
		before = now;
	}
	one = heapcache_take(&numbers.caches, CLASS);
	assert_int_equal(numbers.made, MOST);
	two = heapcache_take(&numbers.caches, CLASS + 1); /* of another class: not one of those */
	assert_int_equal((uintptr_t)two % 100, CLASS + 1);
	assert_true(heapcache_keep(&numbers.caches, CLASS, one));
	assert_ptr_equal(heapcache_take(&numbers.caches, CLASS), one);
	heapcaches_done(&numbers.caches);
}

static void test_older_half_goes_back(void **state)
{
	struct numbers numbers;
	void *objects[MOST + 1];

	(void)state;
	init(&numbers);
	for (int i = 0; i <= MOST; i++)
		objects[i] = heapcache_take(&numbers.caches, CLASS);
	for (unsigned i = 0; i < MOST / 2 - 1; i++) /* none is kept */
		assert_non_null(heapcache_take(&numbers.caches, CLASS));
	for (int i = 0; i < MOST; i++)
		assert_true(heapcache_keep(&numbers.caches, CLASS, objects[i]));
	assert_int_equal(numbers.given_back, 0);
	assert_true(heapcache_keep(&numbers.caches, CLASS, objects[MOST]));
	assert_int_equal(numbers.given_back, MOST / 2);
	for (int i = MOST; i >= MOST / 2; i--)
		assert_ptr_equal(heapcache_take(&numbers.caches, CLASS), objects[i]);
	heapcaches_done(&numbers.caches);
	assert_int_equal(numbers.given_back, MOST / 2); /* the others ended with the heap */
}

static void test_failure_to_make(void **state)
{
	struct numbers numbers;

	(void)state;
	init(&numbers);
	numbers.limit = 1;
	assert_non_null(heapcache_take(&numbers.caches, CLASS));
	assert_null(heapcache_take(&numbers.caches, CLASS));
	numbers.limit = 2;
	assert_non_null(heapcache_take(&numbers.caches, CLASS));
	heapcaches_done(&numbers.caches);
}

static void use(struct numbers *numbers)
{
	void *objects[3 * MOST];

	for (unsigned i = 0; i < 3 * MOST; i++)
		objects[i] = heapcache_take(&numbers->caches, i % HEAPCACHE_CLASSES);
	for (unsigned i = 0; i < 3 * MOST; i++)
		if (!heapcache_keep(&numbers->caches, i % HEAPCACHE_CLASSES, objects[i]))
			give_back(numbers, objects[i]);
}

static void *use_both(void *arg)
{
	struct numbers *both = arg;

	for (int i = 0; i < 4; i++)
		use(&both[i % 2]);
	return NULL;
}

static void test_thread_that_ends_gives_back(void **state)
{
	static struct numbers both[2];
	pthread_t threads[4];

	(void)state;
	for (int i = 0; i < 2; i++)
		init(&both[i]);
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, use_both, both), 0);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < 2; i++) {
		assert_true(both[i].made > 0);
		assert_int_equal(both[i].made, both[i].given_back);
		assert_null(both[i].caches.first);
	}
}

/* What was kept of a heap that is done is not given out by the next one, though it is at the same address. */
static void test_heap_at_the_same_address(void **state)
{
	struct numbers numbers;

	(void)state;
	for (unsigned round = 0; round < 50; round++) {
		void *object;
		init(&numbers);
		numbers.next = 1 + 1000 * round;
		object = heapcache_take(&numbers.caches, CLASS);
		assert_true((uintptr_t)object / 100 >= 1000 * round);
		assert_true(heapcache_keep(&numbers.caches, CLASS, object));
		heapcaches_done(&numbers.caches);
	}
}

static pthread_key_t late_key;
static struct numbers *late_numbers;
static _Atomic int refused;

/* Put off until the cache's own destructor has certainly run. */
static void use_late(void *round)
{
	if ((uintptr_t)round < 3) {
		pthread_setspecific(late_key, (uint8_t *)round + 1);
		return;
	}
	if (!heapcache_take(&late_numbers->caches, CLASS) &&
		!heapcache_keep(&late_numbers->caches, CLASS, &refused))
		atomic_fetch_add(&refused, 1);
}

static void *use_and_end(void *arg)
{
	struct numbers *numbers = arg;

	pthread_setspecific(late_key, (void *)1);
	use(numbers);
	return NULL;
}

static void test_thread_that_has_ended_keeps_nothing(void **state)
{
	struct numbers numbers;
	pthread_t thread;

	(void)state;
	init(&numbers);
	late_numbers = &numbers;
	assert_int_equal(pthread_key_create(&late_key, use_late), 0);
	assert_int_equal(pthread_create(&thread, NULL, use_and_end, &numbers), 0);
	pthread_join(thread, NULL);
	assert_int_equal(refused, 1);
	assert_int_equal(numbers.made, numbers.given_back);
	pthread_key_delete(late_key);
}

struct ending {
	struct numbers *numbers;
	sem_t used;
};

static void *use_one(void *arg)
{
	struct ending *ending = arg;

	use(ending->numbers);
	sem_post(&ending->used);
	return NULL;
}

/* A heap that is done beside threads that end: each gives back to a heap that is there, or to none. */
static void test_done_beside_ending_threads(void **state)
{
	struct ending ending;

	(void)state;
	assert_int_equal(sem_init(&ending.used, 0, 0), 0);
	for (int round = 0; round < 200; round++) {
		pthread_t threads[2];
		ending.numbers = malloc(sizeof *ending.numbers);
		assert_non_null(ending.numbers);
		init(ending.numbers);
		for (int i = 0; i < 2; i++)
			assert_int_equal(pthread_create(&threads[i], NULL, use_one, &ending), 0);
		for (int i = 0; i < 2; i++)
			while (sem_wait(&ending.used) != 0)
				;
		heapcaches_done(&ending.numbers->caches);
		assert_true(ending.numbers->given_back <= ending.numbers->made);
		free(ending.numbers);
		for (int i = 0; i < 2; i++)
			pthread_join(threads[i], NULL);
	}
	sem_destroy(&ending.used);
}

static void test_child_keeps_nothing(void **state)
{
	struct numbers numbers;
	int status;
	pid_t child;

	(void)state;
	init(&numbers);
	use(&numbers);
	child = fork();
	if (child == 0)
		_exit(heapcache_take(&numbers.caches, CLASS) != NULL);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	assert_non_null(heapcache_take(&numbers.caches, CLASS));
	heapcaches_done(&numbers.caches);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_last_freed_is_first_out),
		cmocka_unit_test(test_older_half_goes_back),
		cmocka_unit_test(test_failure_to_make),
		cmocka_unit_test(test_thread_that_ends_gives_back),
		cmocka_unit_test(test_heap_at_the_same_address),
		cmocka_unit_test(test_thread_that_has_ended_keeps_nothing),
		cmocka_unit_test(test_done_beside_ending_threads),
		cmocka_unit_test(test_child_keeps_nothing),
	};

	heapcaches_prepare();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
