/* SPDX-License-Identifier: Apache-2.0 */
/* The word of a stripe: what is decodable, over all words of a small code; taking, noting, giving up; two threads that take turns. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lib/stripe.h"

static uint64_t word(unsigned parity, unsigned included, unsigned valid)
{
	return (uint64_t)parity << STRIPE_PARITY_SHIFT |
	       (uint64_t)included << STRIPE_INCLUDED_SHIFT | (uint64_t)valid << STRIPE_DATA_SHIFT;
}

/* Three data lanes and two of parity: at least three of the five must be known; a lane that is not included is known. */
static void test_decodable(void **state)
{
	(void)state;
	for (unsigned parity = 0; parity < 4; parity++)
		for (unsigned included = 0; included < 8; included++)
			for (unsigned valid = 0; valid < 8; valid++) {
				int known = __builtin_popcount((valid | ~included) & 7) +
					    __builtin_popcount(parity);
				uint64_t it = word(parity, included, valid);

				assert_int_equal(stripe_decodable(it), known >= 3);
				assert_int_equal(stripe_parity(it), parity);
				assert_int_equal(stripe_included(it), included);
				assert_int_equal(stripe_data(it), valid);
				assert_int_equal(stripe_missing(it), included & ~valid);
			}
}

static void test_lane_bits(void **state)
{
	(void)state;
	for (unsigned lane = 0; lane < 12; lane++)
		assert_int_equal(stripe_lane_bit(12, lane), word(0, 0, 1u << lane));
	for (unsigned lane = 12; lane < 16; lane++)
		assert_int_equal(stripe_lane_bit(12, lane), word(1u << (lane - 12), 0, 0));
}

static void test_one_owner(void **state)
{
	struct stripe stripe = {0};

	(void)state;
	assert_true(stripe_try(&stripe));
	assert_false(stripe_try(&stripe));
	stripe_note(&stripe, word(3, 7, 7), 0);
	assert_true(stripe_release(&stripe));
	assert_int_equal(atomic_load(&stripe.word), word(3, 7, 7));
	stripe_take(&stripe);
	stripe_note(&stripe, word(0, 0, 2), word(1, 0, 3));
	assert_true(stripe_release(&stripe));
	assert_int_equal(atomic_load(&stripe.word), word(2, 7, 6));
}

/* An owner can't let go of what can't be decoded, whoever made it so meanwhile; what it gives up is not part of the stripe any more. */
static void test_give_up(void **state)
{
	struct stripe stripe = {0};

	(void)state;
	stripe_take(&stripe);
	stripe_note(&stripe, word(1, 7, 7), 0);
	atomic_fetch_and(&stripe.word, ~word(0, 0, 5)); /* a loss, by the service */
	assert_false(stripe_release(&stripe));
	assert_int_equal(stripe_give_up(&stripe), 5);
	assert_int_equal(atomic_load(&stripe.word) & ~STRIPE_BUSY, word(0, 2, 2));
	assert_true(stripe_release(&stripe));
	assert_int_equal(stripe_give_up(&stripe), 0);
}

enum { TURNS = 20000 };

struct shared {
	struct stripe stripe;
	unsigned count; /* without a lock of its own: the stripe's owner has it */
};

static void *take_turns(void *arg)
{
	struct shared *shared = arg;

	for (unsigned i = 0; i < TURNS; i++) {
		stripe_take(&shared->stripe);
		shared->count++;
		if (!stripe_release(&shared->stripe))
			return arg;
	}
	return NULL;
}

static void test_two_threads(void **state)
{
	static struct shared shared;
	pthread_t thread;
	void *failed;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, take_turns, &shared), 0);
	assert_null(take_turns(&shared));
	assert_int_equal(pthread_join(thread, &failed), 0);
	assert_null(failed);
	assert_int_equal(shared.count, 2 * TURNS);
	assert_int_equal(atomic_load(&shared.stripe.word), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_decodable),
		cmocka_unit_test(test_lane_bits),
		cmocka_unit_test(test_one_owner),
		cmocka_unit_test(test_give_up),
		cmocka_unit_test(test_two_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
