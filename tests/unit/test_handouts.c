/* SPDX-License-Identifier: Apache-2.0 */
/* The enclave's list of handed-out keys: compared with a plain list through random changes, and its ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "enclave/handouts.h"

static struct handouts handouts;

static int tear_down(void **state)
{
	(void)state;
	handouts_done(&handouts);
	assert_int_equal(handouts.count, 0);
	return 0;
}

static enum secpool_error add(uint64_t region, uint64_t epoch)
{
	enum secpool_error error = handouts_prepare(&handouts, region, epoch);

	if (!error)
		handouts_add(&handouts, region, epoch);
	return error;
}

static void epochs_of_a_region(void **state)
{
	(void)state;
	handouts_remove(&handouts, 5, 0); /* of an empty table */
	assert_int_equal(add(5, 3), SECPOOL_OK);
	assert_int_equal(add(5, 3), SECPOOL_E_EXISTS);
	assert_int_equal(add(5, 2), SECPOOL_E_EXISTS);
	assert_int_equal(add(5, 4), SECPOOL_OK);
	assert_int_equal(add(5, 5), SECPOOL_E_EXISTS);
	assert_int_equal(handouts.count, 2);
	assert_int_equal(handouts.regions, 1);
	handouts_remove(&handouts, 5, 9);
	assert_int_equal(handouts.count, 2);
	handouts_remove(&handouts, 5, 3);
	assert_int_equal(add(5, 4), SECPOOL_E_EXISTS);
	assert_int_equal(add(5, 5), SECPOOL_OK);
	handouts_remove(&handouts, 5, 5);
	assert_int_equal(add(5, 4), SECPOOL_E_EXISTS);
	assert_int_equal(add(5, 6), SECPOOL_OK);
	handouts_remove(&handouts, 5, 0);
	assert_int_equal(handouts.count + handouts.regions, 0);
	assert_int_equal(add(5, 1), SECPOOL_OK);
}

static void limit_is_exact(void **state)
{
	(void)state;
	for (uint64_t region = 1; region <= HANDOUTS_MOST; region++)
		assert_int_equal(add(region, 1), SECPOOL_OK);
	assert_int_equal(add(HANDOUTS_MOST + 1, 1), SECPOOL_E_LIMIT);
	assert_int_equal(add(1, 2), SECPOOL_E_LIMIT);
	assert_int_equal(handouts.places, 2 * HANDOUTS_MOST);
	handouts_remove(&handouts, 77, 1);
	assert_int_equal(add(HANDOUTS_MOST + 1, 1), SECPOOL_OK);
	assert_int_equal(add(77, 1), SECPOOL_E_LIMIT);
}

/* Rows that share a home are found again whatever was removed between them. */
static void as_a_plain_list(void **state)
{
	enum { REGIONS = 700, STEPS = 60000 };
	static uint64_t model[REGIONS + 1]; /* the epoch, 0: none */
	uint64_t random = 1;
	size_t count = 0;

	(void)state;
	memset(model, 0, sizeof model);
	for (unsigned step = 1; step <= STEPS; step++) {
		uint64_t region, key;

		random = random * 6364136223846793005u + 1442695040888963407u;
		region = (random >> 33) % REGIONS + 1;
		/* far numbers too: what they share is chosen by the table */
		key = region % 2 ? region : region << 40;
		if (model[region] == 0) {
			assert_int_equal(add(key, step), SECPOOL_OK);
			model[region] = step;
			count++;
		} else {
			assert_int_equal(add(key, model[region]), SECPOOL_E_EXISTS);
			handouts_remove(&handouts, key, model[region]);
			model[region] = 0;
			count--;
		}
		assert_int_equal(handouts.count, count);
	}
	for (uint64_t region = 1; region <= REGIONS; region++)
		assert_int_equal(handouts_prepare(&handouts, region % 2 ? region : region << 40, 1),
			model[region] ? SECPOOL_E_EXISTS : SECPOOL_OK);
	assert_int_equal(handouts.regions, count);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(epochs_of_a_region, tear_down),
		cmocka_unit_test_teardown(limit_is_exact, tear_down),
		cmocka_unit_test_teardown(as_a_plain_list, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
