/* SPDX-License-Identifier: Apache-2.0 */
/* What makes a device suspect: reports of others, and what it says of itself, each against the policy's threshold. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "hotplug/health.h"
#include "hotplug/poison.h"

static void reports(void **state)
{
	struct health_limits limits = HEALTH_LIMITS_DEFAULT;
	struct health health = {.bad = false};

	(void)state;
	for (unsigned i = 0; i < 100; i++) {
		assert_false(health_report(&health, MSG_CAUSE_TAG, 1, &limits));
		assert_false(health_report(&health, MSG_CAUSE_FAULT, 4, &limits));
		assert_false(health_report(&health, 77, 4, &limits));
	}
	assert_int_equal(health.tags, 100);
	assert_int_equal(health.faults, 100);
	assert_int_equal(health.looks, 300);
	assert_true(health_report(&health, MSG_CAUSE_TAG, 2, &limits));
	assert_false(health_report(&health, MSG_CAUSE_TAG, 2, &limits)); /* once */
	health_reset(&health);
	assert_true(health_report(&health, MSG_CAUSE_TAG, 0, &limits)); /* keymgrd's own */
	health_reset(&health);
	limits.tenants = 4;
	assert_false(health_report(&health, MSG_CAUSE_TAG, 3, &limits));
	assert_true(health_report(&health, MSG_CAUSE_TAG, 4, &limits));
	health_reset(&health);
	limits.faults = 2;
	assert_false(health_report(&health, MSG_CAUSE_FAULT, 1, &limits));
	assert_true(health_report(&health, MSG_CAUSE_FAULT, 1, &limits));
}

/* Whether it is suspect, and for that reason. */
static bool is_judged(
	uint32_t flags, uint32_t poisoned, const struct health_limits *limits, const char *words)
{
	char why[128] = "untouched";
	bool bad = health_judge(flags, poisoned, limits, why, sizeof why);

	assert_non_null(strstr(why, bad ? words : "untouched"));
	return bad;
}

static void poison_list(void **state)
{
	struct health_limits limits = HEALTH_LIMITS_DEFAULT;

	(void)state;
	assert_false(is_judged(UINT32_MAX, POISON_UNKNOWN, &limits, ""));
	assert_false(is_judged(UINT32_MAX, 0, &limits, ""));
	assert_true(is_judged(UINT32_MAX, 1, &limits,
		"its poison list names 1 places, and devices.suspect_poison is 1"));
	limits.poison = 5;
	assert_false(is_judged(0, 4, &limits, ""));
	assert_true(is_judged(0, 5, &limits, "names 5 places"));
	assert_true(is_judged(0, 1000, &limits, "names 1000 places"));
	limits.poison = 0;
	assert_false(is_judged(0, 1000, &limits, ""));
	assert_false(is_judged(0, POISON_UNKNOWN, &limits, ""));
}

static void flags(void **state)
{
	static const struct {
		uint32_t flag;
		const char *words;
	} all[] = {{MSG_HEALTH_REPLACE, "must be replaced"}, {MSG_HEALTH_MEDIA, "not in order"},
		{MSG_HEALTH_MAINTENANCE, "needs maintenance"},
		{MSG_HEALTH_DEGRADED, "slower than it was"}};
	struct health_limits limits = {.tenants = 2};

	(void)state;
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		for (uint32_t allowed = 0; allowed < 16; allowed++) {
			limits.flags = allowed;
			assert_int_equal(is_judged(all[i].flag, 0, &limits, all[i].words),
				(allowed & all[i].flag) != 0);
		}
	limits.flags = 15;
	assert_false(is_judged(UINT32_MAX, 0, &limits, "")); /* a device that has no such command */
	assert_true(is_judged(15, 0, &limits, "must be replaced"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reports),
		cmocka_unit_test(poison_list),
		cmocka_unit_test(flags),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
