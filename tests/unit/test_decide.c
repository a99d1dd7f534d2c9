/* SPDX-License-Identifier: Apache-2.0 */
/* policy/decide.c: each decision, allowed and refused; what is not said is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "lib/wire/msg.h"
#include "policy/policy.h"

#define EK_A "000b000102030405060708090a0b0c0d0e0f000102030405060708090a0b0c0d0e0f"

static const char text[] = "version: 1\n"
			   "tenants:\n"
			   "  - name: full\n"
			   "    users: [\"1000\"]\n"
			   "    groups: [\"50\"]\n"
			   "    quota: {bytes: 4G, regions: 2, sessions: 3, local_bytes: 64M}\n"
			   "    redundancy: [none, \"mirror:2\", \"mirror:4\"]\n"
			   "    on_loss: [sigbus, failover]\n"
			   "  - name: least\n"
			   "    users: [\"1001\"]\n"
			   "    quota: {bytes: 1M, regions: 1, sessions: 1, local_bytes: 0}\n"
			   "  - name: mirrors\n"
			   "    users: [\"1001\"]\n"
			   "    quota: {bytes: 1G, regions: 1, sessions: 1, local_bytes: 0}\n"
			   "    redundancy: [\"mirror:2\"]\n"
			   "    on_loss: [failover]\n"
			   "devices:\n"
			   "  enrol: first-use\n"
			   "  firmware: [good-1]\n"
			   "  known: [{id: a, ek: " EK_A "}]\n";

static struct policy *policy_of(const char *from)
{
	struct policy *policy = NULL;

	if (policy_load_text(from, strlen(from), "p", &policy) != SECPOOL_OK)
		fail_msg("%s", err_detail());
	return policy;
}

static void test_tenant(void **state)
{
	struct policy *policy = policy_of(text);
	struct policy_quota quota = {.bytes = 7}, before = quota;

	(void)state;
	assert_int_equal(policy_may_be_tenant(policy, "full", 1000, 9, &quota), SECPOOL_OK);
	assert_true(quota.bytes == 4ull << 30 && quota.regions == 2 && quota.sessions == 3 &&
		    quota.local_bytes == 64 << 20);
	assert_int_equal(policy_may_be_tenant(policy, "full", 9, 50, &quota), SECPOOL_OK);
	quota = before;
	assert_int_equal(policy_may_be_tenant(policy, "full", 1001, 9, &quota), SECPOOL_E_DENIED);
	assert_non_null(strstr(err_detail(), "user 1001"));
	assert_non_null(strstr(err_detail(), "'full'"));
	/* not even root, unless it is named; ids of one kind are not the other's */
	assert_int_equal(policy_may_be_tenant(policy, "full", 0, 0, &quota), SECPOOL_E_DENIED);
	assert_int_equal(policy_may_be_tenant(policy, "full", 50, 1000, &quota), SECPOOL_E_DENIED);
	assert_int_equal(
		policy_may_be_tenant(policy, "nobody", 1000, 50, &quota), SECPOOL_E_UNKNOWN_TENANT);
	assert_non_null(strstr(err_detail(), "'nobody'"));
	assert_int_equal(
		policy_may_be_tenant(policy, "", 1000, 50, &quota), SECPOOL_E_UNKNOWN_TENANT);
	assert_memory_equal(&quota, &before, sizeof quota);
	policy_free(policy);
}

static void test_create(void **state)
{
	const uint32_t sigbus = MSG_ON_LOSS_SIGBUS, failover = MSG_ON_LOSS_FAILOVER;
	struct policy *p = policy_of(text);

	(void)state;
	assert_int_equal(policy_may_create(p, "full", 4ull << 30, 1, 1, sigbus), SECPOOL_OK);
	assert_int_equal(policy_may_create(p, "full", 4096, 1, 2, failover), SECPOOL_OK);
	assert_int_equal(policy_may_create(p, "full", 4096, 1, 2, sigbus), SECPOOL_OK);
	assert_int_equal(policy_may_create(p, "full", 4096, 1, 4, failover), SECPOOL_OK);
	assert_int_equal(policy_may_create(p, "full", 4096, 1, 3, failover), SECPOOL_E_DENIED);
	assert_int_equal(
		policy_may_create(p, "full", (4ull << 30) + 1, 1, 1, sigbus), SECPOOL_E_QUOTA);
	assert_int_equal(policy_may_create(p, "full", 4096, 1, 1, failover), SECPOOL_E_UNSUPPORTED);
	assert_int_equal(policy_may_create(p, "full", 4096, 1, 0, sigbus), SECPOOL_E_UNSUPPORTED);
	assert_int_equal(policy_may_create(p, "full", 4096, 1, 5, sigbus), SECPOOL_E_UNSUPPORTED);
	assert_int_equal(policy_may_create(p, "full", 4096, 1, 33, sigbus), SECPOOL_E_UNSUPPORTED);
	assert_int_equal(policy_may_create(p, "full", 4096, 1, 1, 0), SECPOOL_E_UNSUPPORTED);
	assert_int_equal(policy_may_create(p, "full", 4096, 1, 1, 6), SECPOOL_E_UNSUPPORTED);
	assert_int_equal(policy_may_create(p, "x", 4096, 1, 1, sigbus), SECPOOL_E_UNKNOWN_TENANT);
	/* what is left out allows the least */
	assert_int_equal(policy_may_create(p, "least", 1 << 20, 1, 1, sigbus), SECPOOL_OK);
	assert_int_equal(policy_may_create(p, "least", 4096, 1, 2, sigbus), SECPOOL_E_DENIED);
	assert_int_equal(policy_may_create(p, "least", 4096, 1, 2, failover), SECPOOL_E_DENIED);
	/* and a list allows only what it has */
	assert_int_equal(policy_may_create(p, "mirrors", 4096, 1, 2, failover), SECPOOL_OK);
	assert_int_equal(policy_may_create(p, "mirrors", 4096, 1, 2, sigbus), SECPOOL_E_DENIED);
	assert_int_equal(policy_may_create(p, "mirrors", 4096, 1, 1, sigbus), SECPOOL_E_DENIED);
	policy_free(p);
}

static void test_device(void **state)
{
	struct policy *policy = policy_of(text);
	uint8_t ek[34] = {0x00, 0x0b}, other[34] = {0x00, 0x0b, 9};
	bool first_use = true;

	(void)state;
	for (unsigned i = 0; i < 32; i++)
		ek[2 + i] = (uint8_t)(i % 16);
	assert_int_equal(policy_may_use_device(policy, "a", ek, "good-1", &first_use), SECPOOL_OK);
	assert_false(first_use);
	assert_int_equal(
		policy_may_use_device(policy, "b", other, "good-1", &first_use), SECPOOL_OK);
	assert_true(first_use);
	first_use = false;
	assert_int_equal(policy_may_use_device(policy, "a", other, "good-1", &first_use),
		SECPOOL_E_ATTESTATION);
	assert_non_null(strstr(err_detail(), "another EK"));
	assert_int_equal(policy_may_use_device(policy, "b", ek, "good-1", &first_use),
		SECPOOL_E_ATTESTATION);
	assert_non_null(strstr(err_detail(), "has the EK of 'a'"));
	assert_int_equal(policy_may_use_device(policy, "a", ek, "good-2", &first_use),
		SECPOOL_E_ATTESTATION);
	assert_non_null(strstr(err_detail(), "good-2"));
	assert_int_equal(
		policy_may_use_device(policy, "a", ek, "", &first_use), SECPOOL_E_ATTESTATION);
	assert_false(first_use);
	policy_free(policy);
}

static void test_device_default(void **state)
{
	const uint8_t ek[34] = {0x00, 0x0b};
	struct policy *policy;
	bool first_use = false;

	(void)state;
	policy = policy_of("version: 1\ntenants: []\n"); /* no section: no device */
	assert_int_equal(
		policy_may_use_device(policy, "a", ek, "x", &first_use), SECPOOL_E_ATTESTATION);
	policy_free(policy);
	policy = policy_of("version: 1\ntenants: []\ndevices: {firmware: [x]}\n"); /* listed */
	assert_int_equal(
		policy_may_use_device(policy, "a", ek, "x", &first_use), SECPOOL_E_ATTESTATION);
	assert_non_null(strstr(err_detail(), "not listed"));
	assert_false(first_use);
	policy_free(policy);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tenant),
		cmocka_unit_test(test_create),
		cmocka_unit_test(test_device),
		cmocka_unit_test(test_device_default),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
