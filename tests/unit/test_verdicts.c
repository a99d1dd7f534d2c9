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
static uint8_t ek_c[QUOTE_NAME_BYTES];

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

static enum secpool_error accept_serial(const char *id, const uint8_t *ek_name, const char *serial,
	bool listed, uint64_t resets, uint64_t expires_ns)
{
	const struct verdicts_proof proof = {
		.id = id, .ek_name = ek_name, .serial = serial, .resets = resets, .listed = listed};

	return verdicts_accept(&verdicts, &proof, expires_ns);
}

static enum secpool_error accept(
	const char *id, const uint8_t *ek_name, bool listed, uint64_t resets, uint64_t expires_ns)
{
	return accept_serial(id, ek_name, "", listed, resets, expires_ns);
}

static enum secpool_error may_claim(const char *id, const uint8_t *ek_name, bool listed)
{
	const struct verdicts_proof proof = {
		.id = id, .ek_name = ek_name, .serial = "", .listed = listed};

	return verdicts_may_claim(&verdicts, &proof);
}

static enum secpool_error fresh_at(const char *id, uint64_t now_ns)
{
	struct verdicts_device device;

	return verdicts_fresh(&verdicts, id, now_ns, &device);
}

static void verdict_ends(void **state)
{
	(void)state;
	EXPECT_UNCHANGED(fresh_at("a", 5), SECPOOL_E_NOT_ATTESTED);
	assert_int_equal(accept("a", EK_A, false, 3, 100), SECPOOL_OK);
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
	assert_int_equal(accept("a", EK_A, false, 7, 100), SECPOOL_OK);
	assert_int_equal(accept("a", EK_A, false, 7, 100), SECPOOL_OK);
	EXPECT_UNCHANGED(accept("a", EK_A, false, 6, 200), SECPOOL_E_ATTESTATION);
	assert_non_null(strstr(err_detail(), "from 0.7 to 0.6"));
	/* it belongs to the EK, not to the label */
	verdicts_void(&verdicts, "a", "gone");
	EXPECT_UNCHANGED(accept("b", EK_A, false, 6, 200), SECPOOL_E_ATTESTATION);
	assert_int_equal(accept("b", EK_A, false, 8, 200), SECPOOL_OK);
	assert_int_equal(accept("c", EK_B, false, 1, 200), SECPOOL_OK);
}

static void one_ek_one_live_id(void **state)
{
	(void)state;
	assert_int_equal(accept("a", EK_A, false, 1, 100), SECPOOL_OK);
	EXPECT_UNCHANGED(accept("a", EK_B, false, 1, 100), SECPOOL_E_ATTESTATION);
	/* the name of another's EK proves nothing, and hurts nobody */
	EXPECT_UNCHANGED(may_claim("b", EK_A, false), SECPOOL_OK);
	assert_int_equal(fresh_at("a", 50), SECPOOL_OK);
	/* a second that proves it: one of the two is a copy, and both are refused */
	assert_int_equal(accept("b", EK_A, false, 1, 100), SECPOOL_E_ATTESTATION);
	assert_non_null(strstr(err_detail(), "device a"));
	assert_int_equal(fresh_at("a", 50), SECPOOL_E_NOT_ATTESTED);
	assert_non_null(strstr(err_detail(), "device b proved the same TPM"));
	assert_int_equal(fresh_at("b", 50), SECPOOL_E_NOT_ATTESTED);
	/* also when the first one's evidence is old: it may still hold data; and when the policy lists it */
	assert_int_equal(accept("a", EK_A, false, 1, 100), SECPOOL_OK);
	assert_int_equal(fresh_at("a", 500), SECPOOL_E_NOT_ATTESTED);
	assert_int_equal(accept("b", EK_A, true, 1, 600), SECPOOL_E_ATTESTATION);
	assert_int_equal(fresh_at("a", 50), SECPOOL_E_NOT_ATTESTED);
	/* the policy names another EK for the id: an operator replaced the TPM */
	assert_int_equal(accept("a", EK_B, true, 1, 100), SECPOOL_OK);
	assert_int_equal(may_claim("a", EK_A, false), SECPOOL_E_ATTESTATION);
	assert_int_equal(may_claim("a", EK_B, false), SECPOOL_OK);
}

static void known_from_before(void **state)
{
	(void)state;
	EXPECT_UNCHANGED(verdicts_know(&verdicts, "", EK_A, "", 0), SECPOOL_E_INVALID);
	assert_int_equal(
		verdicts_know(&verdicts, "a", EK_A, "", verdicts_resets(7, 2)), SECPOOL_OK);
	EXPECT_UNCHANGED(
		verdicts_know(&verdicts, "a", EK_A, "", verdicts_resets(7, 1)), SECPOOL_OK);
	EXPECT_UNCHANGED(verdicts_know(&verdicts, "a", EK_B, "", 0), SECPOOL_E_EXISTS);
	EXPECT_UNCHANGED(fresh_at("a", 0), SECPOOL_E_NOT_ATTESTED);
	EXPECT_UNCHANGED(accept("a", EK_B, false, 1, 100), SECPOOL_E_ATTESTATION);
	/* the counters of the earlier run: what is older is an old state of the TPM */
	EXPECT_UNCHANGED(
		accept("a", EK_A, false, verdicts_resets(6, 9), 100), SECPOOL_E_ATTESTATION);
	EXPECT_UNCHANGED(
		accept("a", EK_A, false, verdicts_resets(7, 1), 100), SECPOOL_E_ATTESTATION);
	assert_int_equal(accept("a", EK_A, false, verdicts_resets(7, 2), 100), SECPOOL_OK);
	assert_int_equal(accept("a", EK_A, false, verdicts_resets(8, 0), 100), SECPOOL_OK);
}

static void one_serial_one_device(void **state)
{
	(void)state;
	assert_int_equal(accept_serial("a", EK_A, "S", false, 1, 100), SECPOOL_OK);
	EXPECT_UNCHANGED(accept_serial("b", EK_B, "S", false, 1, 100), SECPOOL_E_ATTESTATION);
	assert_non_null(strstr(err_detail(), "its serial 'S' is that of device a"));
	EXPECT_UNCHANGED(accept_serial("b", EK_B, "S", true, 1, 100), SECPOOL_E_ATTESTATION);
	assert_int_equal(fresh_at("a", 50), SECPOOL_OK);
	/* who has it need not be there; the same TPM under another id is the same device */
	verdicts_void(&verdicts, "a", "gone");
	EXPECT_UNCHANGED(accept_serial("b", EK_B, "S", false, 1, 100), SECPOOL_E_ATTESTATION);
	assert_int_equal(accept_serial("c", EK_A, "S", false, 1, 100), SECPOOL_OK);
	/* from an earlier run */
	assert_int_equal(verdicts_know(&verdicts, "d", EK_B, "T", 0), SECPOOL_OK);
	ek_c[0] = 3;
	EXPECT_UNCHANGED(accept_serial("e", ek_c, "T", false, 1, 100), SECPOOL_E_ATTESTATION);
	assert_int_equal(accept_serial("d", EK_B, "T", false, 1, 100), SECPOOL_OK);
}

static void operator_takes_in(void **state)
{
	const struct verdicts_proof proof = {.id = "a", .ek_name = EK_B, .serial = "S"};
	struct verdicts_device got = {.known = false};

	(void)state;
	EXPECT_UNCHANGED(verdicts_enrol(&verdicts, "a", &got), SECPOOL_E_NOT_FOUND);
	assert_false(verdicts_is_known(&verdicts, "a", EK_B));
	verdicts_offer(&verdicts, &proof);
	assert_false(verdicts_is_known(&verdicts, "a", EK_B));
	EXPECT_UNCHANGED(fresh_at("a", 5), SECPOOL_E_NOT_ATTESTED);
	assert_int_equal(verdicts_enrol(&verdicts, "a", &got), SECPOOL_OK);
	assert_memory_equal(got.ek_name, EK_B, sizeof EK_B);
	assert_string_equal(got.serial, "S");
	assert_true(verdicts_is_known(&verdicts, "a", EK_B));
	EXPECT_UNCHANGED(verdicts_enrol(&verdicts, "a", &got), SECPOOL_E_NOT_FOUND);
	/* it is not attested by that */
	assert_int_equal(fresh_at("a", 5), SECPOOL_E_NOT_ATTESTED);
	assert_int_equal(accept_serial("a", EK_B, "S", false, 1, 100), SECPOOL_OK);
	/* another TPM under the id: only after it was taken in, and then the old one is out */
	assert_int_equal(accept_serial("a", EK_A, "S2", false, 1, 100), SECPOOL_E_ATTESTATION);
	verdicts_offer(
		&verdicts, &(struct verdicts_proof){.id = "a", .ek_name = EK_A, .serial = "S2"});
	assert_int_equal(verdicts_enrol(&verdicts, "a", &got), SECPOOL_OK);
	assert_int_equal(fresh_at("a", 5), SECPOOL_E_NOT_ATTESTED);
	assert_non_null(strstr(err_detail(), "enrolled, attest it"));
	assert_int_equal(accept_serial("a", EK_B, "S", false, 1, 100), SECPOOL_E_ATTESTATION);
	assert_int_equal(accept_serial("a", EK_A, "S2", false, 1, 100), SECPOOL_OK);
}

/* A serial goes to who is enrolled with it, unless it is in use. */
static void serial_follows_the_operator(void **state)
{
	const struct verdicts_proof proof = {.id = "b", .ek_name = EK_B, .serial = "S"};
	struct verdicts_device got;

	(void)state;
	assert_int_equal(accept_serial("a", EK_A, "S", false, 1, 100), SECPOOL_OK);
	verdicts_offer(&verdicts, &proof);
	EXPECT_UNCHANGED(verdicts_enrol(&verdicts, "b", &got), SECPOOL_E_EXISTS);
	assert_non_null(strstr(err_detail(), "device a is in use with"));
	verdicts_void(&verdicts, "a", "gone");
	assert_int_equal(verdicts_enrol(&verdicts, "b", &got), SECPOOL_OK);
	assert_int_equal(accept_serial("b", EK_B, "S", false, 1, 100), SECPOOL_OK);
	assert_int_equal(accept_serial("a", EK_A, "S", false, 1, 100), SECPOOL_E_ATTESTATION);
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
		assert_int_equal(accept(id, ek_name, false, 1, 100), SECPOOL_OK);
	}
	ek_name[2] = 9;
	EXPECT_UNCHANGED(accept("more", ek_name, false, 1, 100), SECPOOL_E_LIMIT);
	EXPECT_UNCHANGED(verdicts_know(&verdicts, "more", ek_name, "", 0), SECPOOL_E_LIMIT);
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
		cmocka_unit_test_setup(one_serial_one_device, set_up),
		cmocka_unit_test_setup(operator_takes_in, set_up),
		cmocka_unit_test_setup(serial_follows_the_operator, set_up),
		cmocka_unit_test_setup(table_is_bounded, set_up),
		cmocka_unit_test_setup(challenges_are_taken_once, set_up),
		cmocka_unit_test_setup(oldest_challenge_is_dropped, set_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
