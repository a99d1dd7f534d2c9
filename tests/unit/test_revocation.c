/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What becomes of data on a device that may not be used any more: every pair of cause and situation against a second writing of the table, with each of the policy's levels; rules that hold for all of it; and
 * docs/revocation.md, which this program prints with the argument --print.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "keymgr/revocation.h"
#include "tests/unit/page_fixture.h"

/* For each situation in enum order three letters of what is done now, with drains none, redundant and readable, and one of what is done at the end: h hold, m move, d destroy. */
static const char letters[] = "hmd";
static const char *const expected[REVOCATION_CAUSES] = {
	[REVOCATION_NONE] = "hhhh hhhh hhhh hhhh",
	[REVOCATION_REFUSED] = "hhhh hmmd hhmd dddd",
	[REVOCATION_LISTED] = "hhhh hmmd hhmd dddd",
	[REVOCATION_EXPIRED] = "hhhh hmmh hhmh hhhh",
	[REVOCATION_UNREACHABLE] = "hhhh hhhh hhhh hhhh",
	[REVOCATION_ERRORS] = "hhhh hhhh hhhh hhhh",
};

static void every_pair(void **state)
{
	(void)state;
	for (unsigned c = 0; c < REVOCATION_CAUSES; c++)
		for (unsigned s = 0; s < REVOCATION_SITUATIONS; s++) {
			enum revocation_cause cause = (enum revocation_cause)c;
			enum revocation_situation situation = (enum revocation_situation)s;

			for (unsigned d = 0; d <= POLICY_DRAINS_READABLE; d++)
				assert_int_equal(letters[revocation_now(
							 cause, situation, (enum policy_drains)d)],
					expected[c][5 * s + d]);
			assert_int_equal(letters[revocation_at_end(cause, situation)],
				expected[c][5 * s + 3]);
		}
}

static void out_of_range(void **state)
{
	(void)state;
	assert_int_equal(
		revocation_now(REVOCATION_CAUSES, REVOCATION_SINGLE, POLICY_DRAINS_READABLE),
		REVOCATION_HOLD);
	assert_int_equal(
		revocation_at_end(REVOCATION_REFUSED, REVOCATION_SITUATIONS), REVOCATION_HOLD);
}

/* What is not there is left alone; nothing that can be read is destroyed at once; a device that was refused has nothing left at the end; more allowed is never less done. */
static void rules(void **state)
{
	(void)state;
	for (unsigned c = 0; c < REVOCATION_CAUSES; c++)
		for (unsigned s = 0; s < REVOCATION_SITUATIONS; s++) {
			enum revocation_cause cause = (enum revocation_cause)c;
			enum revocation_situation situation = (enum revocation_situation)s;
			bool is_out = cause == REVOCATION_REFUSED || cause == REVOCATION_LISTED;

			for (unsigned d = 0; d <= POLICY_DRAINS_READABLE; d++) {
				enum revocation_action now =
					revocation_now(cause, situation, (enum policy_drains)d);

				assert_true(now != REVOCATION_DESTROY ||
					    situation == REVOCATION_FOREIGN);
				assert_true(
					now == REVOCATION_HOLD || situation != REVOCATION_NOTHING);
				assert_true(
					d == 0 || now != REVOCATION_HOLD ||
					revocation_now(cause, situation,
						(enum policy_drains)(d - 1)) == REVOCATION_HOLD);
			}
			if (is_out && situation != REVOCATION_NOTHING)
				assert_int_equal(
					revocation_at_end(cause, situation), REVOCATION_DESTROY);
			if (!is_out)
				assert_int_not_equal(
					revocation_at_end(cause, situation), REVOCATION_DESTROY);
		}
}

static void causes(void **state)
{
	(void)state;
	for (uint32_t s = 0; s <= MSG_DEVICE_STATES; s++)
		for (uint32_t why = 0; why < 7; why++)
			for (int listed = 0; listed < 2; listed++) {
				static const enum revocation_cause by_why[7] = {
					[MSG_WHY_REFUSED] = REVOCATION_REFUSED,
					[MSG_WHY_UNREACHABLE] = REVOCATION_UNREACHABLE,
					[MSG_WHY_EXPIRED] = REVOCATION_EXPIRED,
					[MSG_WHY_ERRORS] = REVOCATION_ERRORS,
				};
				bool out = s == MSG_DEVICE_QUARANTINED || s == MSG_DEVICE_SUSPECT;

				assert_int_equal(revocation_cause_of(s, why, listed),
					!out	 ? REVOCATION_NONE
					: listed ? REVOCATION_LISTED
						 : by_why[why]);
			}
}

static void names(void **state)
{
	(void)state;
	for (unsigned c = 0; c < REVOCATION_CAUSES; c++)
		assert_string_not_equal(revocation_cause_name((enum revocation_cause)c), "?");
	for (unsigned s = 0; s < REVOCATION_SITUATIONS; s++)
		assert_string_not_equal(
			revocation_situation_name((enum revocation_situation)s), "?");
	for (unsigned a = 0; a < REVOCATION_ACTIONS; a++)
		assert_string_not_equal(revocation_action_name((enum revocation_action)a), "?");
	assert_string_equal(revocation_cause_name(REVOCATION_CAUSES), "?");
	assert_string_equal(revocation_situation_name(REVOCATION_SITUATIONS), "?");
	assert_string_equal(revocation_action_name(REVOCATION_ACTIONS), "?");
}

static const char *const cause_words[REVOCATION_CAUSES] = {
	[REVOCATION_REFUSED] = "its evidence was refused: at an attestation by the clock, by "
			       "command, or after a new policy",
	[REVOCATION_LISTED] = "the policy's `devices.revoked` has its id or its endorsement key",
	[REVOCATION_EXPIRED] = "its evidence is too old, and could not be renewed",
	[REVOCATION_UNREACHABLE] = "evidence could not be had at a start: it is asked for again",
	[REVOCATION_ERRORS] = "it does not keep what is written: an operator drains it",
};

static void print_row(FILE *to, enum revocation_cause cause, enum revocation_situation situation)
{
	fprintf(to, "| %s | %s |", revocation_cause_name(cause),
		revocation_situation_name(situation));
	for (unsigned d = 0; d <= POLICY_DRAINS_READABLE; d++)
		fprintf(to, " %s |",
			revocation_action_name(
				revocation_now(cause, situation, (enum policy_drains)d)));
	fprintf(to, " %s |\n", revocation_action_name(revocation_at_end(cause, situation)));
}

static void print_document(FILE *to)
{
	fputs("# Revocation\n\n"
	      "What becomes of data on a device that may not be used any more. Made from the table "
	      "in "
	      "`keymgr/revocationtable.c` by `test_revocation --print`; the unit test "
	      "`test_revocation` fails when this page and the table differ.\n\n"
	      "At once, whatever the cause: no new key and no new place is given, the stored keys "
	      "of "
	      "what is there are overwritten, the tenants are told (events `device-...`, "
	      "`region-revoked`), and a rotation is wanted for each region that has something "
	      "there; "
	      "it begins when the region has nothing there any more. Then the table, for each "
	      "region: "
	      "*move* is a drain, as soon as another device is online, and the device is *offline* "
	      "when it has nothing left; *hold* lets programs read what is there; *destroy* gives "
	      "it "
	      "up as if the device were gone (`device-lost`): what has "
	      "other copies is made again from them under a new key, what has none is lost to its "
	      "program, and what is on the device is under a key that ends.\n\n"
	      "The end is `devices.revoke_seconds` after it began (600), over all restarts; "
	      "`devices.revoke_drains` says what may be moved (secpool-policy(5)). A new "
	      "attestation "
	      "that is accepted ends it, and so does the removal of the device.\n\n"
	      "| cause | means |\n| --- | --- |\n",
		to);
	for (unsigned c = 1; c < REVOCATION_CAUSES; c++)
		fprintf(to, "| %s | %s |\n", revocation_cause_name((enum revocation_cause)c),
			cause_words[c]);
	fputs("\n| situation | means |\n| --- | --- |\n"
	      "| nothing there | the region has nothing on the device |\n"
	      "| redundant | lanes that lie wholly on other devices are enough to make it again |\n"
	      "| single | it is only there, and can be read: under its tags, it is what was "
	      "written "
	      "|\n"
	      "| other media | the media there are not those that it was written to |\n\n"
	      "| cause | situation | now: drains none | redundant | readable | at the end |\n"
	      "| --- | --- | --- | --- | --- | --- |\n",
		to);
	for (unsigned c = 1; c < REVOCATION_CAUSES; c++)
		for (unsigned s = 0; s < REVOCATION_SITUATIONS; s++)
			print_row(to, (enum revocation_cause)c, (enum revocation_situation)s);
}

static void page_is_current(void **state)
{
	(void)state;
	page_check("docs/revocation.md", print_document);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_pair),
		cmocka_unit_test(out_of_range),
		cmocka_unit_test(rules),
		cmocka_unit_test(causes),
		cmocka_unit_test(names),
		cmocka_unit_test(page_is_current),
	};

	if (argc == 2 && strcmp(argv[1], "--print") == 0) {
		print_document(stdout);
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
