/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "lib/victimqueue.h"

enum { PAGES = VICTIMQUEUE_PAGES_LEAST, QUEUES = 2 };

static struct victimqueue_entry entry(uint64_t pgno)
{
	return (struct victimqueue_entry){.region = (uint32_t)(pgno * 7) & 0xffff, .pgno = pgno};
}

static void test_order_and_batches(void **state)
{
	struct victimqueue_store store;
	struct victimqueue queue = {0};
	struct victimqueue_entry got[64];
	uint64_t pushed = 0, popped = 0;

	(void)state;
	assert_int_equal(victimqueue_store_init(&store, PAGES, QUEUES), SECPOOL_OK);
	assert_int_equal(victimqueue_pop(&store, &queue, got, 64), 0);
	for (unsigned round = 0; round < 200; round++) {
		for (unsigned i = 0; i < 23; i++, pushed++)
			assert_true(
				victimqueue_push(&store, &queue, entry(pushed), (uint16_t)round));
		for (unsigned want = round % 2 ? 31 : 15, count; want > 0; want -= count) {
			count = victimqueue_pop(&store, &queue, got, want);
			assert_in_range(count, 1, VICTIMQUEUE_CHUNK_ENTRIES);
			for (unsigned i = 0; i < count; i++, popped++) {
				assert_true(got[i].pgno == popped);
				assert_int_equal(got[i].region, entry(popped).region);
			}
		}
		assert_int_equal(queue.count, pushed - popped);
	}
	victimqueue_store_done(&store);
}

/* The largest numbers that there are. */
static void test_bounds_of_an_entry(void **state)
{
	struct victimqueue_store store;
	struct victimqueue queue = {0};
	struct victimqueue_entry most = {.region = (1u << VICTIMQUEUE_REGION_BITS) - 1,
		.pgno = (1ull << VICTIMQUEUE_PGNO_BITS) - 1};
	struct victimqueue_entry got;

	(void)state;
	assert_int_equal(victimqueue_store_init(&store, PAGES, QUEUES), SECPOOL_OK);
	assert_true(victimqueue_push(&store, &queue, most, UINT16_MAX));
	assert_int_equal(victimqueue_since(&store, &queue), UINT16_MAX);
	assert_int_equal(victimqueue_pop(&store, &queue, &got, 1), 1);
	assert_true(got.region == most.region && got.pgno == most.pgno);
	victimqueue_store_done(&store);
}

/* Every page fits, however they spread over the queues; one more than the memory has room for is refused, and changes nothing. */
static void test_room(void **state)
{
	struct victimqueue_store store;
	struct victimqueue queues[QUEUES] = {{0}};
	struct victimqueue_entry got;
	size_t extra = 0;

	(void)state;
	assert_int_equal(victimqueue_store_init(&store, PAGES, QUEUES), SECPOOL_OK);
	for (uint64_t i = 0; i < PAGES; i++)
		assert_true(victimqueue_push(&store, &queues[i % QUEUES], entry(i), 0));
	while (victimqueue_push(&store, &queues[0], entry(1), 0))
		extra++;
	assert_true(extra <= (2 * QUEUES + 1) * VICTIMQUEUE_CHUNK_ENTRIES);
	assert_int_equal(queues[0].count, PAGES / QUEUES + extra);
	assert_int_equal(victimqueue_pop(&store, &queues[1], &got, 1), 1);
	assert_true(got.pgno == 1);
	victimqueue_store_done(&store);
	victimqueue_store_done(&store);
}

static void test_forget_keeps_the_order(void **state)
{
	struct victimqueue_store store;
	struct victimqueue queue = {0};
	struct victimqueue_entry got;

	(void)state;
	assert_int_equal(victimqueue_store_init(&store, PAGES, QUEUES), SECPOOL_OK);
	for (uint64_t i = 0; i < 300; i++)
		assert_true(victimqueue_push(&store, &queue,
			(struct victimqueue_entry){.region = (uint32_t)i % 3, .pgno = i}, 5));
	assert_int_equal(victimqueue_forget(&store, &queue, 1), 100);
	assert_int_equal(victimqueue_forget(&store, &queue, 7), 0);
	for (uint64_t i = 0; i < 300; i++) {
		if (i % 3 == 1)
			continue;
		assert_int_equal(victimqueue_since(&store, &queue), 5);
		assert_int_equal(victimqueue_pop(&store, &queue, &got, 1), 1);
		assert_true(got.pgno == i);
	}
	assert_int_equal(queue.count, 0);
	victimqueue_store_done(&store);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order_and_batches),
		cmocka_unit_test(test_bounds_of_an_entry),
		cmocka_unit_test(test_room),
		cmocka_unit_test(test_forget_keeps_the_order),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
