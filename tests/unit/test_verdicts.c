/* SPDX-License-Identifier: Apache-2.0 */
/* The rules of verdicts, at chosen times. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "enclave/verdicts.h"

static struct verdicts verdicts, before;
static const uint8_t EK_A[QUOTE_NAME_BYTES] = {1}, EK_B[QUOTE_NAME_BYTES] = {2};

static int set_up(void **state)
{
	(void)state;
	memset(&verdicts, 0, sizeof verdicts);
	return 0;
}

/* The call must give this error and change nothing. */
#define EXPECT_UNCHANGED(call, want)                                                               \
	do {                                                                                       \
		before = verdicts;                                                                 \
		assert_int_equal((call), (want));                                                  \
		assert_memory_equal(&before, &verdicts, sizeof before);                            \
	} while (0)

static enum secpool_error fresh_at(const char *id, uint64_t now_ns)
{
	struct verdicts_device device;

	return verdicts_fresh(&verdicts, id, now_ns, &device);
}

static void verdict_ends(void **state)
{
	(void)state;
	EXPECT_UNCHANGED(fresh_at("a", 5), SECPOOL_E_NOT_ATTESTED);
	assert_int_equal(verdicts_accept(&verdicts, "a", EK_A, false, 3, 100), SECPOOL_OK);
	EXPECT_UNCHANGED(fresh_at("a", 99), SECPOOL_OK);
	EXPECT_UNCHANGED(fresh_at("a", 100), SECPOOL_E_NOT_ATTESTED);
	assert_non_null(strstr(err_detail(), "too old"));
	verdicts_void(&verdicts, "a", "it smoked");
	EXPECT_UNCHANGED(fresh_at("a", 5), SECPOOL_E_NOT_ATTESTED);
	assert_non_null(strstr(err_detail(), "it smoked"));
	before = verdicts;
	verdicts_void(&verdicts, "never seen", "x");
	verdicts_void(&verdicts, "", "x");
	assert_memory_equal(&before, &verdicts, sizeof before);
	EXPECT_UNCHANGED(fresh_at("", 5), SECPOOL_E_NOT_ATTESTED);
}

static void counters_never_go_back(void **state)
{
	(void)state;
	assert_int_equal(verdicts_accept(&verdicts, "a", EK_A, false, 7, 100), SECPOOL_OK);
	assert_int_equal(verdicts_accept(&verdicts, "a", EK_A, false, 7, 100), SECPOOL_OK);
	EXPECT_UNCHANGED(
		verdicts_accept(&verdicts, "a", EK_A, false, 6, 200), SECPOOL_E_ATTESTATION);
	assert_non_null(strstr(err_detail(), "from 0.7 to 0.6"));
	/* it belongs to the EK, not to the label */
	verdicts_void(&verdicts, "a", "gone");
	EXPECT_UNCHANGED(
		verdicts_accept(&verdicts, "b", EK_A, false, 6, 200), SECPOOL_E_ATTESTATION);
	assert_int_equal(verdicts_accept(&verdicts, "b", EK_A, false, 8, 200), SECPOOL_OK);
	assert_int_equal(verdicts_accept(&verdicts, "c", EK_B, false, 1, 200), SECPOOL_OK);
}

static void one_ek_one_live_id(void **state)
{
	(void)state;
	assert_int_equal(verdicts_accept(&verdicts, "a", EK_A, false, 1, 100), SECPOOL_OK);
	EXPECT_UNCHANGED(
		verdicts_accept(&verdicts, "a", EK_B, false, 1, 100), SECPOOL_E_ATTESTATION);
	/* the name of another's EK proves nothing, and hurts nobody */
	EXPECT_UNCHANGED(verdicts_may_claim(&verdicts, "b", EK_A, false), SECPOOL_OK);
	assert_int_equal(fresh_at("a", 50), SECPOOL_OK);
	/* a second that proves it: one of the two is a copy, and both are refused */
	assert_int_equal(
		verdicts_accept(&verdicts, "b", EK_A, false, 1, 100), SECPOOL_E_ATTESTATION);
	assert_non_null(strstr(err_detail(), "device a"));
	assert_int_equal(fresh_at("a", 50), SECPOOL_E_NOT_ATTESTED);
	assert_non_null(strstr(err_detail(), "device b proved the same TPM"));
	assert_int_equal(fresh_at("b", 50), SECPOOL_E_NOT_ATTESTED);
	/* also when the first one's evidence is old: it may still hold data; and when the policy lists it */
	assert_int_equal(verdicts_accept(&verdicts, "a", EK_A, false, 1, 100), SECPOOL_OK);
	assert_int_equal(fresh_at("a", 500), SECPOOL_E_NOT_ATTESTED);
	assert_int_equal(
		verdicts_accept(&verdicts, "b", EK_A, true, 1, 600), SECPOOL_E_ATTESTATION);
	assert_int_equal(fresh_at("a", 50), SECPOOL_E_NOT_ATTESTED);
	/* the policy names another EK for the id: an operator replaced the TPM */
	assert_int_equal(verdicts_accept(&verdicts, "a", EK_B, true, 1, 100), SECPOOL_OK);
	assert_int_equal(verdicts_may_claim(&verdicts, "a", EK_A, false), SECPOOL_E_ATTESTATION);
	assert_int_equal(verdicts_may_claim(&verdicts, "a", EK_B, false), SECPOOL_OK);
}

static void known_from_before(void **state)
{
	(void)state;
	EXPECT_UNCHANGED(verdicts_know(&verdicts, "", EK_A, 0), SECPOOL_E_INVALID);
	assert_int_equal(verdicts_know(&verdicts, "a", EK_A, verdicts_resets(7, 2)), SECPOOL_OK);
	EXPECT_UNCHANGED(verdicts_know(&verdicts, "a", EK_A, verdicts_resets(7, 1)), SECPOOL_OK);
	EXPECT_UNCHANGED(verdicts_know(&verdicts, "a", EK_B, 0), SECPOOL_E_EXISTS);
	EXPECT_UNCHANGED(fresh_at("a", 0), SECPOOL_E_NOT_ATTESTED);
	EXPECT_UNCHANGED(
		verdicts_accept(&verdicts, "a", EK_B, false, 1, 100), SECPOOL_E_ATTESTATION);
	/* the counters of the earlier run: what is older is an old state of the TPM */
	EXPECT_UNCHANGED(verdicts_accept(&verdicts, "a", EK_A, false, verdicts_resets(6, 9), 100),
		SECPOOL_E_ATTESTATION);
	EXPECT_UNCHANGED(verdicts_accept(&verdicts, "a", EK_A, false, verdicts_resets(7, 1), 100),
		SECPOOL_E_ATTESTATION);
	assert_int_equal(verdicts_accept(&verdicts, "a", EK_A, false, verdicts_resets(7, 2), 100),
		SECPOOL_OK);
	assert_int_equal(verdicts_accept(&verdicts, "a", EK_A, false, verdicts_resets(8, 0), 100),
		SECPOOL_OK);
}

static void table_is_bounded(void **state)
{
	uint8_t ek_name[QUOTE_NAME_BYTES] = {0};
	char id[32];

	(void)state;
	for (unsigned i = 0; i < VERDICTS_DEVICES_MOST; i++) {
		snprintf(id, sizeof id, "d%u", i);
		ek_name[0] = (uint8_t)i;
		ek_name[1] = (uint8_t)(1 + i / 256);
		assert_int_equal(
			verdicts_accept(&verdicts, id, ek_name, false, 1, 100), SECPOOL_OK);
	}
	ek_name[2] = 9;
	EXPECT_UNCHANGED(
		verdicts_accept(&verdicts, "more", ek_name, false, 1, 100), SECPOOL_E_LIMIT);
	EXPECT_UNCHANGED(verdicts_know(&verdicts, "more", ek_name, 0), SECPOOL_E_LIMIT);
}

static void put(const char *id, uint64_t made_ns)
{
	struct verdicts_challenge challenge = {.made_ns = made_ns};

	MSG_SET(challenge.claim.id, id);
	challenge.nonce[0] = (uint8_t)made_ns;
	verdicts_put_challenge(&verdicts, &challenge);
}

static void challenges_are_taken_once(void **state)
{
	struct verdicts_challenge got = {.made_ns = 4711};

	(void)state;
	EXPECT_UNCHANGED(verdicts_take_challenge(&verdicts, "a", 10, &got), SECPOOL_E_ATTESTATION);
	EXPECT_UNCHANGED(verdicts_take_challenge(&verdicts, "", 10, &got), SECPOOL_E_ATTESTATION);
	put("a", 1);
	put("a", 2); /* a newer one takes the place of the older */
	assert_int_equal(verdicts_take_challenge(&verdicts, "a", 10, &got), SECPOOL_OK);
	assert_int_equal(got.nonce[0], 2);
	assert_int_equal(verdicts_take_challenge(&verdicts, "a", 10, &got), SECPOOL_E_ATTESTATION);
	put("a", 1);
	got.made_ns = 4711;
	assert_int_equal(verdicts_take_challenge(&verdicts, "a", 2 + VERDICTS_CHALLENGE_NS, &got),
		SECPOOL_E_ATTESTATION);
	assert_non_null(strstr(err_detail(), "too late"));
	assert_int_equal(got.made_ns, 4711);
	/* late once is gone for good */
	assert_int_equal(verdicts_take_challenge(&verdicts, "a", 2, &got), SECPOOL_E_ATTESTATION);
}

static void oldest_challenge_is_dropped(void **state)
{
	struct verdicts_challenge got;
	char id[32];

	(void)state;
	for (unsigned i = 0; i <= VERDICTS_CHALLENGES_MOST; i++) {
		snprintf(id, sizeof id, "d%u", i);
		put(id, 10 + i);
	}
	assert_int_equal(verdicts_take_challenge(&verdicts, "d0", 99, &got), SECPOOL_E_ATTESTATION);
	for (unsigned i = 1; i <= VERDICTS_CHALLENGES_MOST; i++) {
		snprintf(id, sizeof id, "d%u", i);
		assert_int_equal(verdicts_take_challenge(&verdicts, id, 99, &got), SECPOOL_OK);
		assert_int_equal(got.nonce[0], 10 + i);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(verdict_ends, set_up),
		cmocka_unit_test_setup(counters_never_go_back, set_up),
		cmocka_unit_test_setup(one_ek_one_live_id, set_up),
		cmocka_unit_test_setup(known_from_before, set_up),
		cmocka_unit_test_setup(table_is_bounded, set_up),
		cmocka_unit_test_setup(challenges_are_taken_once, set_up),
		cmocka_unit_test_setup(oldest_challenge_is_dropped, set_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
