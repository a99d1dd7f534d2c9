/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of attestation through a real enclave share: a rig with one device, and looks at verdicts. Threads: one. */
#ifndef SECPOOL_TESTS_SECURITY_ATTEST_FIXTURE_H
#define SECPOOL_TESTS_SECURITY_ATTEST_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/security/enclave_rig.h"
#include "tests/unit/ekcert_fixture.h"

static struct rig rig;
static struct rig_device device;

static inline int start(void **state)
{
	(void)state;
	rig_init(&rig);
	rig_ok(rig_start(&rig), "start");
	rig_device_init(&device, "d0", RIG_FIRMWARE, RIG_FIRMWARE);
	return 0;
}

static inline int end(void **state)
{
	(void)state;
	rig_device_done(&device);
	rig_done(&rig);
	return 0;
}

static inline void expect_refused(enum secpool_error got, const char *word)
{
	assert_int_equal(got, SECPOOL_E_ATTESTATION);
	if (!strstr(err_detail(), word))
		fail_msg("'%s' does not say '%s'", err_detail(), word);
}

/* Whether the enclave would let data onto the device. */
static inline enum secpool_error check(const char *id, struct msg *ret_verdict)
{
	struct msg msg = {.type = MSG_ENC_DEVICE_CHECK};

	MSG_SET(msg.u.enc_device_check.id, id);
	rig_ok(rig_ask(&rig, &msg, MSG_ATTEST_VERDICT, &msg), "check");
	if (ret_verdict)
		*ret_verdict = msg;
	return err_from_number(msg.u.attest_verdict.error);
}

static inline void say(uint32_t type, const char *id)
{
	struct msg msg = {.type = type};

	MSG_SET(msg.u.enc_device_void.id, id);
	rig_ok(rig_ask(&rig, &msg, MSG_REPLY, NULL), "say");
}

/* Gives the device a certificate for the EK that it claims; days from now on, from and to. */
static inline void certify(
	struct rig_device *which, const struct authority *by, int from_days, int to_days)
{
	int64_t now_s = (int64_t)(clock_calendar_ns() / CLOCK_NS_PER_S) - EKCERT_NOW;
	const struct flaws times = {.from = now_s + from_days * (int64_t)EKCERT_DAY,
		.to = now_s + to_days * (int64_t)EKCERT_DAY};
	const uint8_t *area = which->claim.ek;
	size_t end_of_key = which->claim.ek_bytes;
	uint8_t point[65] = {4};
	EVP_PKEY *key = EVP_EC_gen("P-256"); /* for its curve */
	const uint8_t *at = point;

	/* TPM2B_PUBLIC ends with the point: two coordinates, each with its length */
	memcpy(point + 1, area + end_of_key - 66, 32);
	memcpy(point + 33, area + end_of_key - 32, 32);
	assert_non_null(d2i_PublicKey(EVP_PKEY_EC, &key, &at, sizeof point));
	which->claim.certificate_bytes =
		(uint32_t)authority_issue(by, key, &times, which->claim.certificate);
	EVP_PKEY_free(key);
}

#endif
