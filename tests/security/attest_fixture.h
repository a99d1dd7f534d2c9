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

#endif
