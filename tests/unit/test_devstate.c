/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The device state table: every pair of state and event against a second writing of it, rules that
 * hold for all of it, and docs/states.md, which this program prints with the argument --print.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "hotplug/devstate.h"
#include "tests/unit/page_fixture.h"

/*
 * One row for each state, one letter for each event in enum order (found attest accepted refused
 * unreachable expired errors connected disconnected drain drained cut-off
 * removed): the next state's
 * letter, '-' for an entry that must be missing. a absent, d discovered, t attesting, o online, g
 * draining, f offline, q quarantined, s suspect, l lost
 */
static const char letters[] = "adtogfqsl";
static const char *const expected[MSG_DEVICE_STATES] = {
	[MSG_DEVICE_ABSENT] = "d------aa---l",
	[MSG_DEVICE_DISCOVERED] = "-t-----td---l",
	[MSG_DEVICE_ATTESTING] = "--oqq--td---l",
	[MSG_DEVICE_ONLINE] = "-oososstdg--l",
	[MSG_DEVICE_DRAINING] = "-t----ggg-fql",
	[MSG_DEVICE_OFFLINE] = "-t-----ff---a",
	[MSG_DEVICE_QUARANTINED] = "-t-----tqg-qa",
	[MSG_DEVICE_SUSPECT] = "-t----sssg-ql",
	[MSG_DEVICE_LOST] = "d------ll----",
};

static void every_pair(void **state)
{
	(void)state;
	for (unsigned s = 0; s < MSG_DEVICE_STATES; s++) {
		assert_int_equal(strlen(expected[s]), DEVSTATE_EVENTS);
		for (unsigned e = 0; e < DEVSTATE_EVENTS; e++) {
			enum msg_state next = MSG_DEVICE_STATES;
			enum devstate_action action = DEVSTATE_ACTIONS;
			enum secpool_error error = devstate_next(
				(enum msg_state)s, (enum devstate_event)e, &next, &action);

			if (expected[s][e] == '-') {
				assert_int_equal(error, SECPOOL_E_BUSY);
				assert_non_null(strstr(err_detail(), msg_device_state_name(s)));
				assert_int_equal(next, MSG_DEVICE_STATES);
				assert_int_equal(action, DEVSTATE_ACTIONS);
			} else {
				assert_int_equal(error, SECPOOL_OK);
				assert_int_equal(letters[next], expected[s][e]);
				assert_in_range(action, 0, DEVSTATE_ACTIONS - 1);
			}
		}
	}
}

static void out_of_range(void **state)
{
	enum msg_state next = MSG_DEVICE_LOST;
	enum devstate_action action = DEVSTATE_DO_TELL;

	(void)state;
	assert_int_equal(
		devstate_next(MSG_DEVICE_STATES, DEVSTATE_FOUND, &next, &action), SECPOOL_E_BUSY);
	assert_int_equal(
		devstate_next(MSG_DEVICE_ABSENT, DEVSTATE_EVENTS, &next, &action), SECPOOL_E_BUSY);
	assert_int_equal(next, MSG_DEVICE_LOST);
	assert_int_equal(action, DEVSTATE_DO_TELL);
}

/* Online is entered through a good verdict alone; whatever takes media away stops the TPM; who
 * leaves online does not renew. */
static void security_rules(void **state)
{
	(void)state;
	for (unsigned s = 0; s < MSG_DEVICE_STATES; s++) {
		for (unsigned e = 0; e < DEVSTATE_EVENTS; e++) {
			enum devstate_action action;
			enum msg_state next;

			if (devstate_next(
				    (enum msg_state)s, (enum devstate_event)e, &next, &action))
				continue;
			if (next == MSG_DEVICE_ONLINE && s != MSG_DEVICE_ONLINE) {
				assert_int_equal(e, DEVSTATE_ACCEPTED);
				assert_int_equal(s, MSG_DEVICE_ATTESTING);
			}
			if (e == DEVSTATE_REMOVED) {
				assert_true(next == MSG_DEVICE_LOST || next == MSG_DEVICE_ABSENT);
				assert_true(action == DEVSTATE_DO_STOP || s == MSG_DEVICE_ABSENT);
			}
			if (e == DEVSTATE_REFUSED || e == DEVSTATE_EXPIRED)
				assert_true(next == MSG_DEVICE_QUARANTINED ||
					    next == MSG_DEVICE_SUSPECT);
			if (next == MSG_DEVICE_ATTESTING)
				assert_int_equal(action, DEVSTATE_DO_ATTEST);
			if (e == DEVSTATE_DISCONNECTED)
				assert_true(next == s || next == MSG_DEVICE_DISCOVERED);
		}
	}
}

static void names(void **state)
{
	(void)state;
	for (unsigned e = 0; e < DEVSTATE_EVENTS; e++)
		assert_string_not_equal(devstate_event_name((enum devstate_event)e), "?");
	for (unsigned a = 0; a < DEVSTATE_ACTIONS; a++)
		assert_string_not_equal(devstate_action_name((enum devstate_action)a), "?");
	assert_string_equal(devstate_event_name(DEVSTATE_EVENTS), "?");
	assert_string_equal(devstate_action_name(DEVSTATE_ACTIONS), "?");
}

static const char *const event_words[DEVSTATE_EVENTS] = {
	[DEVSTATE_FOUND] = "its media are there",
	[DEVSTATE_ATTEST] =
		"evidence is wanted: its TPM runs, an operator asks, the evidence grows old",
	[DEVSTATE_ACCEPTED] = "keymgrd's verdict is good",
	[DEVSTATE_REFUSED] = "keymgrd's verdict is bad",
	[DEVSTATE_UNREACHABLE] = "no verdict: the TPM or keymgrd did not do its part",
	[DEVSTATE_EXPIRED] = "the evidence is too old and could not be renewed",
	[DEVSTATE_ERRORS] =
		"it does not keep what is written (two tenants met bad bytes, or keymgrd did), or "
		"does not answer as it should when looked at",
	[DEVSTATE_CONNECTED] = "a new connection to keymgrd",
	[DEVSTATE_DISCONNECTED] = "the connection to keymgrd ended",
	[DEVSTATE_DRAIN] = "what it holds is to be moved elsewhere",
	[DEVSTATE_DRAINED] = "it holds nothing any more, and what it held is overwritten",
	[DEVSTATE_CUT_OFF] = "keymgrd gave up what was left on it, as it may not be used any more "
			     "(docs/revocation.md)",
	[DEVSTATE_REMOVED] = "its media are gone",
};

static const char *const action_words[DEVSTATE_ACTIONS] = {
	[DEVSTATE_DO_NOTHING] = "nothing",
	[DEVSTATE_DO_START] =
		"power its TPM; when that runs and keymgrd is connected, `attest` follows",
	[DEVSTATE_DO_ATTEST] = "start the exchange of evidence, in place of one that runs",
	[DEVSTATE_DO_ADMIT] = "arrange for renewal at three quarters of the evidence's life",
	[DEVSTATE_DO_CONFINE] =
		"drop exchange and renewal: only an operator or a return brings it back",
	[DEVSTATE_DO_RETRY] = "ask for evidence again after a while",
	[DEVSTATE_DO_ABANDON] =
		"drop the exchange that runs, and the verdict: who gave it may be gone",
	[DEVSTATE_DO_STOP] = "drop everything, close the media, stop its TPM",
	[DEVSTATE_DO_TELL] = "tell keymgrd the state, though it is the same",
};

static void print_table(FILE *to)
{
	fputs("| state | event | next | action |\n| --- | --- | --- | --- |\n", to);
	for (unsigned s = 0; s < MSG_DEVICE_STATES; s++) {
		for (unsigned e = 0; e < DEVSTATE_EVENTS; e++) {
			enum devstate_action action;
			enum msg_state next;

			if (devstate_next(
				    (enum msg_state)s, (enum devstate_event)e, &next, &action))
				continue;
			fprintf(to, "| %s | %s | %s | %s |\n", msg_device_state_name(s),
				devstate_event_name((enum devstate_event)e),
				next == s ? "(same)" : msg_device_state_name(next),
				devstate_action_name(action));
		}
	}
}

static void print_drawing(FILE *to)
{
	fputs("```mermaid\nstateDiagram-v2\n    [*] --> absent\n", to);
	for (unsigned s = 0; s < MSG_DEVICE_STATES; s++) {
		for (unsigned e = 0; e < DEVSTATE_EVENTS; e++) {
			enum devstate_action action;
			enum msg_state next;

			if (devstate_next(
				    (enum msg_state)s, (enum devstate_event)e, &next, &action) ||
				next == s)
				continue;
			fprintf(to, "    %s --> %s: %s\n", msg_device_state_name(s),
				msg_device_state_name(next),
				devstate_event_name((enum devstate_event)e));
		}
	}
	fputs("```\n", to);
}

static void print_document(FILE *to)
{
	fputs("# Device states\n\n"
	      "Made from the table in `hotplug/devstate.c` by `test_devstate --print`; the unit "
	      "test `test_devstate`\n"
	      "fails when this page and the table differ. An event that a state does not list is "
	      "refused and logged.\n"
	      "keymgrd is told of each new state (docs/wire.md).\n\n",
		to);
	print_drawing(to);
	fputs("\n| event | means |\n| --- | --- |\n", to);
	for (unsigned e = 0; e < DEVSTATE_EVENTS; e++)
		fprintf(to, "| %s | %s |\n", devstate_event_name((enum devstate_event)e),
			event_words[e]);
	fputs("\n| action | means |\n| --- | --- |\n", to);
	for (unsigned a = 0; a < DEVSTATE_ACTIONS; a++)
		fprintf(to, "| %s | %s |\n", devstate_action_name((enum devstate_action)a),
			action_words[a]);
	fputs("\n", to);
	print_table(to);
}

static void page_is_current(void **state)
{
	(void)state;
	page_check("docs/states.md", print_document);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_pair),
		cmocka_unit_test(out_of_range),
		cmocka_unit_test(security_rules),
		cmocka_unit_test(names),
		cmocka_unit_test(page_is_current),
	};

	if (argc == 2 && strcmp(argv[1], "--print") == 0) {
		print_document(stdout);
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
