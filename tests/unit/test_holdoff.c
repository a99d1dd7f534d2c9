/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "hotplug/health.h"
#include "hotplug/holdoff.h"
#include "lib/wire/msg.h"

static void waits_grow_and_end(void **state)
{
	struct holdoff holdoff = {.returns = 0};
	uint64_t now = 7 * CLOCK_NS_PER_S, before = 0;

	(void)state;
	for (int i = 0; i < HOLDOFF_FREE; i++) {
		assert_int_equal(holdoff_returned(&holdoff, now), 0);
		assert_int_equal(holdoff_left(&holdoff, now), 0);
		now += CLOCK_NS_PER_S;
	}
	for (int i = 0; i < 40; i++) {
		uint64_t wait = holdoff_returned(&holdoff, now);

		if (i == 0)
			assert_int_equal(wait, HOLDOFF_LEAST_NS);
		else
			assert_int_equal(
				wait, before * 2 < HOLDOFF_MOST_NS ? before * 2 : HOLDOFF_MOST_NS);
		assert_int_equal(holdoff_left(&holdoff, now), wait);
		assert_int_equal(holdoff_left(&holdoff, now + wait - 1), 1);
		assert_int_equal(holdoff_left(&holdoff, now + wait), 0);
		before = wait;
		now += wait;
	}
	assert_int_equal(before, HOLDOFF_MOST_NS);
	assert_int_equal(holdoff.returns, HOLDOFF_FREE + 40);
}

static void calm_or_an_operator_ends_it(void **state)
{
	struct holdoff holdoff = {.returns = 0};
	uint64_t now = 1;

	(void)state;
	for (int i = 0; i <= HOLDOFF_FREE; i++)
		holdoff_returned(&holdoff, now);
	assert_int_not_equal(holdoff_left(&holdoff, now), 0);
	/* exactly so long is not calm enough */
	assert_int_not_equal(holdoff_returned(&holdoff, now + HOLDOFF_CALM_NS), 0);
	now += HOLDOFF_CALM_NS;
	assert_int_equal(holdoff_returned(&holdoff, now + HOLDOFF_CALM_NS + 1), 0);
	assert_int_equal(holdoff.returns, 1);
	for (int i = 0; i <= HOLDOFF_FREE; i++)
		holdoff_returned(&holdoff, now);
	holdoff_forget(&holdoff);
	assert_int_equal(holdoff_left(&holdoff, now), 0);
	assert_int_equal(holdoff_returned(&holdoff, now), 0);
}

static void tenants_and_faults_make_suspect(void **state)
{
	const struct health_limits two = {.tenants = 2, .faults = 0},
				   three = {.tenants = 3, .faults = 3};
	struct health health = {.bad = false};

	(void)state;
	assert_false(health_report(&health, MSG_CAUSE_TAG, 1, &two));
	assert_false(health_report(&health, MSG_CAUSE_TAG, 2, &three));
	assert_true(health_report(&health, MSG_CAUSE_TAG, 2, &two));
	assert_false(health_report(&health, MSG_CAUSE_TAG, 2, &two)); /* once */
	assert_int_equal(health.tags, 4);
	health_reset(&health);
	assert_int_equal(health.tags, 0);
	assert_true(health_report(&health, MSG_CAUSE_TAG, 0, &three)); /* keymgrd itself */

	health_reset(&health);
	for (int i = 0; i < 1000; i++) /* not counted by policy */
		assert_false(health_report(&health, MSG_CAUSE_FAULT, 1, &two));
	assert_int_equal(health.faults, 1000);
	health_reset(&health);
	assert_false(health_report(&health, MSG_CAUSE_FAULT, 1, &three));
	assert_false(health_report(&health, MSG_CAUSE_FAULT, 1, &three));
	assert_true(health_report(&health, MSG_CAUSE_FAULT, 1, &three));
	assert_false(health_report(&health, MSG_CAUSE_FAULT, 1, &three));

	health_reset(&health);
	assert_false(health_report(&health, MSG_CAUSE_STUCK, 9, &three));
	assert_false(health_report(&health, MSG_CAUSE_SILENT, 9, &three));
	assert_false(health_report(&health, 12345, 9, &three));
	assert_int_equal(health.looks, 3);
	assert_int_equal(health.tags + health.faults, 0);
	/* limits that were not sent: as the shipped policy */
	health_reset(&health);
	assert_false(
		health_report(&health, MSG_CAUSE_TAG, 1, &(struct health_limits){.tenants = 0}));
	assert_true(
		health_report(&health, MSG_CAUSE_TAG, 2, &(struct health_limits){.tenants = 0}));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(waits_grow_and_end),
		cmocka_unit_test(calm_or_an_operator_ends_it),
		cmocka_unit_test(tenants_and_faults_make_suspect),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
