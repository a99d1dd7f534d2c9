/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "lib/cache.h"

static void test_budget(void **state)
{
	struct cache cache;

	(void)state;
	assert_int_equal(cache_init(&cache, 3 * 4096), SECPOOL_OK);
	assert_true(cache_reserve(&cache, 2 * 4096));
	assert_false(cache_reserve(&cache, 2 * 4096));
	assert_int_equal(cache_used_bytes(&cache), 2 * 4096); /* nothing changed on refusal */
	assert_true(cache_reserve(&cache, 4096));
	cache_return(&cache, 3 * 4096);
	assert_int_equal(cache_used_bytes(&cache), 0);
	cache_done(&cache);
	cache_done(&cache);
}

static void test_first_in_first_out(void **state)
{
	struct cache_entry entry;
	struct cache cache;

	(void)state;
	assert_int_equal(cache_init(&cache, 64 * 4096), SECPOOL_OK);
	assert_false(cache_pop(&cache, &entry));
	for (int round = 0; round < 5; round++) { /* goes round the ring */
		for (uint64_t i = 0; i < 60; i++)
			cache_push(&cache, (uint32_t)(i % 3), i);
		for (uint64_t i = 0; i < 60; i++) {
			assert_true(cache_pop(&cache, &entry));
			assert_int_equal(entry.region, i % 3);
			assert_int_equal(entry.pgno, i);
		}
	}
	assert_int_equal(cache_count(&cache), 0);
	cache_done(&cache);
}

static void test_forget_takes_one_region_out(void **state)
{
	struct cache_entry entry;
	struct cache cache;

	(void)state;
	assert_int_equal(cache_init(&cache, 64 * 4096), SECPOOL_OK);
	for (uint64_t i = 0; i < 30; i++)
		cache_push(&cache, (uint32_t)(i % 3), i);
	cache_forget(&cache, 1);
	assert_int_equal(cache_count(&cache), 20);
	for (uint64_t i = 0; i < 30; i++) {
		if (i % 3 == 1)
			continue;
		assert_true(cache_pop(&cache, &entry));
		assert_int_equal(entry.pgno, i);
	}
	cache_done(&cache);
}

static void *wait_low(void *arg)
{
	return cache_wait_low(arg) ? arg : NULL;
}

static void test_cleaner_waits_between_marks(void **state)
{
	enum { LIMIT = 64 * 4096 };
	struct cache cache;
	pthread_t thread;
	void *result;

	(void)state;
	assert_int_equal(cache_init(&cache, LIMIT), SECPOOL_OK);
	assert_int_equal(pthread_create(&thread, NULL, wait_low, &cache), 0);
	/* the low mark is passed: it wakes, and goes on until the high one */
	assert_true(cache_reserve(&cache, LIMIT - cache.low_bytes + 4096));
	pthread_join(thread, &result);
	assert_ptr_equal(result, &cache);
	cache_return(&cache, 4096);
	assert_true(cache_wait_low(&cache));
	cache_return(&cache, cache.high_bytes);
	assert_int_equal(pthread_create(&thread, NULL, wait_low, &cache), 0);
	cache_stop(&cache);
	pthread_join(thread, &result);
	assert_null(result);
	cache_done(&cache);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_budget),
		cmocka_unit_test(test_first_in_first_out),
		cmocka_unit_test(test_forget_takes_one_region_out),
		cmocka_unit_test(test_cleaner_waits_between_marks),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
