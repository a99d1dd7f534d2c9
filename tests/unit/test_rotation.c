/* SPDX-License-Identifier: Apache-2.0 */
/* The table of a rotation, and when one begins by itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/rotate.h"
#include "tests/unit/page_fixture.h"

/* Written down a second time: every pair not named here must be refused. */
static const struct {
	enum rotation_state from;
	enum rotation_event event;
	enum rotation_state to;
} allowed[] = {
	{ROTATION_NONE, ROTATION_WANT, ROTATION_WANTED},
	{ROTATION_WANTED, ROTATION_WANT, ROTATION_WANTED},
	{ROTATION_MOVING, ROTATION_WANT, ROTATION_MOVING},
	{ROTATION_TELLING, ROTATION_WANT, ROTATION_TELLING},
	{ROTATION_WANTED, ROTATION_TURNED, ROTATION_MOVING},
	{ROTATION_MOVING, ROTATION_MOVED, ROTATION_TELLING},
	{ROTATION_TELLING, ROTATION_TOLD, ROTATION_NONE},
	{ROTATION_NONE, ROTATION_ENDED, ROTATION_NONE},
	{ROTATION_WANTED, ROTATION_ENDED, ROTATION_NONE},
	{ROTATION_MOVING, ROTATION_ENDED, ROTATION_NONE},
	{ROTATION_TELLING, ROTATION_ENDED, ROTATION_NONE},
};

static void test_every_pair(void **state)
{
	(void)state;
	for (unsigned from = 0; from < ROTATION_STATES; from++)
		for (unsigned event = 0; event < ROTATION_EVENTS; event++) {
			unsigned want = ROTATION_STATES;
			for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++)
				if (allowed[i].from == from && allowed[i].event == event)
					want = allowed[i].to;
			if (rotation_next(from, event) != want)
				fail_msg("%s on %s", rotation_event_name(event),
					rotation_state_name(from));
		}
	assert_int_equal(rotation_next(ROTATION_STATES, 0), ROTATION_STATES);
	assert_int_equal(rotation_next(0, ROTATION_EVENTS), ROTATION_STATES);
	assert_string_equal(rotation_state_name(ROTATION_STATES), "?");
	assert_string_equal(rotation_event_name(ROTATION_EVENTS), "?");
}

/* Each row of the table is in the page, and the page has no more of them. */
static void test_the_page_has_the_table(void **state)
{
	size_t bytes;
	char *page = page_read("docs/keys.md", &bytes), row[128];
	char *at = strstr(page, "| state | event | next |\n");
	unsigned rows = 0, lines = 0;

	(void)state;
	assert_non_null(at);
	for (unsigned from = 0; from < ROTATION_STATES; from++)
		for (unsigned event = 0; event < ROTATION_EVENTS; event++) {
			unsigned next = rotation_next(from, event);
			if (next == ROTATION_STATES)
				continue;
			snprintf(row, sizeof row, "\n| %s | %s | %s |\n", rotation_state_name(from),
				rotation_event_name(event), rotation_state_name(next));
			if (!strstr(at, row))
				fail_msg("docs/keys.md has not: %s", row);
			rows++;
		}
	for (at = strchr(at, '\n'); at && at[1] == '|'; at = strchr(at + 1, '\n'))
		lines++;
	assert_int_equal(lines, rows + 1);
	free(page);
}

static void test_soft_limit(void **state)
{
	const uint64_t most = PAGECIPHER_BLOCKS_SOFT * 16, share = PAGECIPHER_SHARE_BLOCKS * 16;
	const uint64_t mib = 1ull << 20;

	(void)state;
	assert_true(rotation_soft_bytes(most, mib, 8) == most);
	assert_true(rotation_soft_bytes(1ull << 40, mib, 8) == 1ull << 40);
	/* it can only be made less */
	assert_true(rotation_soft_bytes(0, mib, 8) == most);
	assert_true(rotation_soft_bytes(2 * most, mib, 8) == most);
	/* what a rotation writes by itself does not bring about the next one */
	assert_true(rotation_soft_bytes(64 * mib, 512 * mib, 8) == 2 * (512 * mib + 8 * share));
	assert_true(rotation_soft_bytes(64 * mib, most, 8) == most);
	assert_true(rotation_soft_bytes(64 * mib, UINT64_MAX, 64) == most);
	/* and the hard limit is far behind it */
	assert_true(most < PAGECIPHER_BLOCKS_HARD * 16);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_pair),
		cmocka_unit_test(test_the_page_has_the_table),
		cmocka_unit_test(test_soft_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
