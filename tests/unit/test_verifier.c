/* SPDX-License-Identifier: Apache-2.0 */
/* The verifier process: what it refuses is a verdict, what kills it ends attestation. Real devices are in tests/security/test_enclave_attest.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "enclave/verifier.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/wire/sock.h"

static struct verifier verifier;

static int set_up(void **state)
{
	(void)state;
	return verifier_start(NULL, &verifier) ? -1 : 0;
}

static int tear_down(void **state)
{
	(void)state;
	verifier_stop(&verifier);
	assert_int_equal(verifier.socket, -1);
	verifier_stop(&verifier); /* allowed again */
	return 0;
}

static void garbage_is_refused(void **state)
{
	struct msg_verify_credential credential, credential_before;
	struct msg_verify_facts facts, facts_before;
	struct msg_verify_begin begin;
	struct msg_verify_evidence evidence;

	(void)state;
	memset(&credential, 0x5a, sizeof credential);
	memset(&facts, 0x5a, sizeof facts);
	credential_before = credential;
	facts_before = facts;
	for (unsigned fill = 0; fill < 256; fill += 51) {
		memset(&begin, (int)fill, sizeof begin);
		memset(&evidence, (int)fill, sizeof evidence);
		for (uint32_t bytes = 0; bytes < 1025; bytes += 171) {
			begin.ek_bytes = begin.ak_bytes = bytes;
			evidence.ek_bytes = evidence.ak_bytes = bytes;
			evidence.attest_bytes = evidence.signature_bytes = bytes;
			evidence.pcr_count = bytes / 64;
			err_clear();
			assert_int_equal(verifier_make_credential(&verifier, &begin, &credential),
				SECPOOL_E_ATTESTATION);
			assert_string_not_equal(err_detail(), "");
			assert_int_equal(verifier_check_quote(&verifier, &evidence, &facts),
				SECPOOL_E_ATTESTATION);
			assert_string_not_equal(err_detail(), "");
		}
	}
	assert_memory_equal(&credential, &credential_before, sizeof credential);
	assert_memory_equal(&facts, &facts_before, sizeof facts);
	assert_true(verifier.socket >= 0); /* it is still there */
}

static void dead_or_hung_is_never_asked_again(void **state)
{
	struct msg_verify_evidence evidence = {0};
	struct msg_verify_facts facts;
	uint64_t start_ns = clock_now_ns();

	assert_int_equal(kill(verifier.pid, *state ? SIGSTOP : SIGKILL), 0);
	assert_int_equal(verifier_check_quote(&verifier, &evidence, &facts), SECPOOL_E_ATTESTATION);
	assert_non_null(strstr(err_detail(), "failed on this evidence"));
	assert_int_equal(verifier.socket, -1);
	assert_true(clock_now_ns() - start_ns < 2 * VERIFIER_DEADLINE_NS);
	assert_int_equal(verifier_check_quote(&verifier, &evidence, &facts), SECPOOL_E_ATTESTATION);
	assert_non_null(strstr(err_detail(), "has failed"));
}

/* A message that is no request ends it: it has one peer, which sends none. */
static void stranger_ends_it(void **state)
{
	struct msg msg = {.type = MSG_ENC_STATUS};

	(void)state;
	assert_int_equal(sock_call(verifier.socket, &msg, NULL, 0, MSG_REPLY, NULL, NULL,
				 clock_now_ns() + CLOCK_NS_PER_S),
		SECPOOL_E_DAEMON_GONE);
}

int main(void)
{
	static int stop = SIGSTOP;
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(garbage_is_refused, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			dead_or_hung_is_never_asked_again, set_up, tear_down),
		cmocka_unit_test_prestate_setup_teardown(
			dead_or_hung_is_never_asked_again, set_up, tear_down, &stop),
		cmocka_unit_test_setup_teardown(stranger_ends_it, set_up, tear_down),
	};

	log_init("test_verifier", (enum log_level)0); /* its failures are wanted here */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
