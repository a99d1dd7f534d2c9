/* SPDX-License-Identifier: Apache-2.0 */
/* policy/policy.c, schema.c, lines.c, build.c, users.c: files that load, and for each kind of mistake the line and the words. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/base/os.h"
#include "lib/wire/msg.h"
#include "policy/policy.h"

#define TENANT                                                                                     \
	"tenants:\n"                                                                               \
	"  - name: a\n"                                                                            \
	"    users: [root]\n"                                                                      \
	"    quota: {bytes: 4G, regions: 2, sessions: 3, local_bytes: 64M}\n"

static enum secpool_error load(const char *text, struct policy **ret_policy)
{
	return policy_load_text(text, strlen(text), "p.yaml", ret_policy);
}

/* The text is refused, the message starts with p.yaml:LINE: and has the words, and nothing is returned. */
static void expect_refused_(const char *text, unsigned line, const char *words, int at)
{
	struct policy *policy = (struct policy *)-1;
	char start[32];

	snprintf(start, sizeof start, "p.yaml:%u: ", line);
	err_clear();
	enum secpool_error error = load(text, &policy);
	if (error != SECPOOL_E_POLICY || policy != (struct policy *)-1 ||
		strncmp(err_detail(), start, strlen(start)) != 0 || !strstr(err_detail(), words))
		fail_msg("line %d: %s, detail '%s', expected '%s ... %s'", at, err_name(error),
			err_detail(), start, words);
}
#define expect_refused(text, line, words) expect_refused_(text, line, words, __LINE__)

/* Who may read what a tenant seals: itself, and those that it names; all of them must be tenants. */
static void test_shares(void **state)
{
	struct policy *policy = NULL;

	(void)state;
	assert_int_equal(load("version: 1\n" TENANT "    share_with: [b]\n"
			      "  - name: b\n    users: [root]\n"
			      "    quota: {bytes: 0, regions: 0, sessions: 3, local_bytes: 64M}\n",
				 &policy),
		SECPOOL_OK);
	assert_int_equal(policy_may_share(policy, "a", "b"), SECPOOL_OK);
	assert_int_equal(policy_may_share(policy, "a", "a"), SECPOOL_OK);
	assert_int_equal(policy_may_share(policy, "b", "b"), SECPOOL_OK);
	assert_int_equal(policy_may_share(policy, "b", "a"), SECPOOL_E_DENIED);
	assert_int_equal(policy_may_share(policy, "a", "c"), SECPOOL_E_UNKNOWN_TENANT);
	assert_int_equal(policy_may_share(policy, "c", "a"), SECPOOL_E_UNKNOWN_TENANT);
	policy_free(policy);
	expect_refused("version: 1\n" TENANT "    share_with: [b]\n", 6, "no tenant 'b'");
	expect_refused("version: 1\n" TENANT "    share_with: [a, \"b/c\"]\n", 6, "share_with[1]");
}

static void test_minimal(void **state)
{
	struct policy *policy = NULL;

	(void)state;
	assert_int_equal(load("version: 1\n" TENANT, &policy), SECPOOL_OK);
	const struct policy_settings *s = policy_settings(policy);
	assert_true(s->window_base == 0x110000000000 && s->window_bytes == 64ull << 40);
	assert_true(s->grace_ns == 60000000000ull && s->max_age_ns == 3600000000000ull);
	assert_true(s->suspect_after_ms == 100 && s->gone_after_ms == 1000);
	assert_true(s->suspect_tenants == 2 && s->suspect_faults == 0);
	assert_true(s->suspect_poison == 1);
	assert_int_equal(s->suspect_health, POLICY_HEALTH_REPLACE | POLICY_HEALTH_MEDIA);
	assert_int_equal(s->host_pcrs, 1 << 7);
	assert_false(s->demand_openssl);
	assert_false(s->allow_unlocked_memory || s->allow_memfd_without_secret);
	assert_string_equal(policy_tenant_name(policy, 0), "a");
	assert_string_equal(policy_tenant_users(policy, 0), "root");
	assert_null(policy_tenant_name(policy, 1));
	assert_null(policy_tenant_users(policy, 1));
	policy_free(policy);
	policy_free(NULL);
}

static void test_settings(void **state)
{
	struct policy *policy = NULL;

	(void)state;
	assert_int_equal(
		load("version: 1\nwindow: {base: \"0x004000000000\", bytes: 128G}\n"
		     "grace_seconds: 5\nsession_seconds: 0\nhost_pcrs: [0, 10]\n"
		     "allow: {unlocked_memory: true, memfd_without_secret: yes}\n"
		     "tenants:\n  - name: B.c-d_9\n    users: [\"%self\", \"0\"]\n    groups: "
		     "[root, "
		     "\"7\"]\n"
		     "    quota: {bytes: 0x200000, regions: 0, sessions: 1, local_bytes: 1T}\n",
			&policy),
		SECPOOL_OK);
	const struct policy_settings *s = policy_settings(policy);
	assert_true(s->window_base == 0x4000000000 && s->window_bytes == 128ull << 30);
	assert_true(s->grace_ns == 5000000000ull && s->session_ns == 0);
	assert_int_equal(s->host_pcrs, 1 << 0 | 1 << 10);
	assert_true(s->allow_unlocked_memory && s->allow_memfd_without_secret);
	assert_string_equal(policy_tenant_users(policy, 0), "%self, 0, @root, @7");
	policy_free(policy);
}

static void test_recovery(void **state)
{
	struct policy *policy = NULL;

	(void)state;
	assert_int_equal(load("version: 1\n" TENANT, &policy), SECPOOL_OK);
	assert_true(policy_settings(policy)->recovery_key);
	policy_free(policy);
	assert_int_equal(load("version: 1\nrecovery: none\n" TENANT, &policy), SECPOOL_OK);
	assert_false(policy_settings(policy)->recovery_key);
	policy_free(policy);
	expect_refused("version: 1\nrecovery: no\n" TENANT, 2, "'key' or 'none'");
	expect_refused("version: 1\nrecovery: [key]\n" TENANT, 2, "expected");
}

static void test_cipher(void **state)
{
	struct policy *policy = NULL;

	(void)state;
	assert_int_equal(load("version: 1\ncipher: openssl\n" TENANT, &policy), SECPOOL_OK);
	assert_true(policy_settings(policy)->demand_openssl);
	policy_free(policy);
	assert_int_equal(load("version: 1\ncipher: auto\n" TENANT, &policy), SECPOOL_OK);
	assert_false(policy_settings(policy)->demand_openssl);
	policy_free(policy);
	expect_refused("version: 1\ncipher: fast\n" TENANT, 2, "'auto' or 'openssl'");
	expect_refused("version: 1\ncipher: [openssl]\n" TENANT, 2, "expected");
	expect_refused("version: 1\ncipher: openssl\ncipher: auto\n" TENANT, 3, "");
}

static void test_shipped(void **state)
{
	struct policy *policy = NULL;
	struct policy_quota quota;
	size_t bytes;
	const char *text = policy_default(&bytes);

	(void)state;
	assert_int_equal(policy_load_text(text, bytes, "default", &policy), SECPOOL_OK);
	assert_int_equal(
		policy_may_be_tenant(policy, "default", geteuid(), getegid(), &quota), SECPOOL_OK);
	policy_free(policy);
	if (access("policy/example.yaml", R_OK) == 0) { /* run from the project's folder */
		int fd = open("policy/example.yaml", O_RDONLY | O_CLOEXEC);
		if (policy_load_fd(fd, "example", &policy) != SECPOOL_OK)
			fail_msg("%s", err_detail());
		policy_free(policy);
		os_close(&fd);
	}
}

static void test_fd(void **state)
{
	static const char text[] = "version: 1\n" TENANT;
	struct policy *policy = NULL;
	int fd = memfd_create("policy", MFD_CLOEXEC), pipes[2];

	(void)state;
	assert_int_equal(write(fd, text, sizeof text - 1), sizeof text - 1);
	assert_int_equal(policy_load_fd(fd, "m", &policy), SECPOOL_OK); /* from its start */
	policy_free(policy);
	assert_int_equal(ftruncate(fd, POLICY_FILE_BYTES_MOST + 1), 0);
	policy = NULL;
	assert_int_equal(policy_load_fd(fd, "m", &policy), SECPOOL_E_LIMIT);
	assert_null(policy);
	os_close(&fd);
	assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
	assert_int_equal(policy_load_fd(pipes[0], "m", &policy), SECPOOL_E_SYSTEM);
	assert_null(policy);
	os_close(&pipes[0]);
	os_close(&pipes[1]);
}

static void test_syntax(void **state)
{
	(void)state;
	expect_refused("", 1, "empty");
	expect_refused("# nothing\n", 1, "empty");
	expect_refused("- 1\n", 1, "expected 'version: 1'");
	expect_refused("version: 1\n\t: 1\n", 2, "tab");
	expect_refused("version: 1\n" TENANT "    users: [root\n", 7, "");
	expect_refused("version: 1\n" TENANT "---\nversion: 1\n", 7, "one document");
	expect_refused("version: 1\n" TENANT "version: 1\n", 6, "'version' is given twice");
	expect_refused("version: 1\n" TENANT "    users: [daemon]\n", 6, "'users' is given twice");
	expect_refused("version: &v 1\n" TENANT "grace_seconds: *v\n", 6, "alias");
	expect_refused("version: 1\n? [a]\n: b\n" TENANT, 2, "expected a name");
}

static void test_keys(void **state)
{
	(void)state;
	expect_refused("version: 1\n", 1, "'tenants' is missing");
	expect_refused(TENANT, 1, "'version' is missing");
	expect_refused("version: 1\n" TENANT "color: red\n", 6, "'color' is not known here");
	expect_refused("version: 1\n" TENANT "color: red\n", 6, "grace_seconds, session_seconds");
	expect_refused("version: 1\n" TENANT "    colour: red\n", 6, "expected one of name, users");
	expect_refused("version: 1\n" TENANT "window: {base: \"0x110000000000\"}\n", 6,
		"'bytes' is missing");
	expect_refused(
		"version: 1\n" TENANT "devices:\n  enrol: listed\n", 7, "'firmware' is missing");
	expect_refused("version: 1\n" TENANT
		       "devices:\n  firmware: [x]\n  known:\n    - id: d\n      eek: 1\n",
		10, "expected one of id, ek");
	expect_refused("version: 1\n" TENANT "window: 7\n", 6, "expected keys with values");
	expect_refused("version: 1\ntenants: 1\n", 2, "expected a list");
	expect_refused("version: 1\ntenants:\n  - name: [a]\n", 3, "expected one value");
	expect_refused(
		"version: 1\ntenants:\n  - name: a\n    users: [root]\n", 3, "'quota' is missing");
	expect_refused("version: 1\n" TENANT "devices:\n  enrol: maybe\n  firmware: [x]\n", 7,
		"'listed', 'first-use' or 'operator'");
	expect_refused(
		"version: 1\n" TENANT "allow:\n  unlocked_memory: flase\n", 7, "'true' or 'false'");
}

static void test_values(void **state)
{
	(void)state;
	expect_refused("version: 2\n" TENANT, 1, "expected 1");
	expect_refused("version: x\n" TENANT, 1, "expected a number");
	expect_refused("version: 1\n" TENANT "grace_seconds: -1\n", 6, "expected a number");
	expect_refused("version: 1\n" TENANT "grace_seconds: 1x\n", 6, "expected a number");
	expect_refused("version: 1\n" TENANT "session_seconds: 99999999999999999999999\n", 6,
		"expected at most");
	expect_refused("version: 1\n" TENANT "host_pcrs: [0,\n  24]\n", 7, "expected at most 23");
	expect_refused("version: 1\n" TENANT "host_pcrs: [16]\n", 6, "reset");
	expect_refused("version: 1\n" TENANT "host_pcrs: [1, 1]\n", 6, "twice");
	expect_refused("version: 1\n" TENANT "host_pcrs: [1,2,3,4,5,6,7,8,9]\n", 6, "at most 8");
	expect_refused("version: 1\n" TENANT "rebalance_percent: 0\n", 6, "expected 1 or more");
	expect_refused("version: 1\n" TENANT "rebalance_percent: 101\n", 6, "at most 100");
	expect_refused("version: 1\n" TENANT "rebalance_bytes_per_second: fast\n", 6,
		"rebalance_bytes_per_second");
	expect_refused("version: 1\n" TENANT "devices: {firmware: [x], max_age_seconds: 0}\n", 6,
		"1 or more");
	expect_refused("version: 1\n" TENANT "devices: {firmware: [x], suspect_after_ms: 0}\n", 6,
		"1 or more");
	expect_refused("version: 1\n" TENANT "devices: {firmware: [x], suspect_tenants: 0}\n", 6,
		"expected 1 or more");
	expect_refused("version: 1\n" TENANT "devices: {firmware: [x], suspect_tenants: 5}\n", 6,
		"devices.suspect_tenants");
	expect_refused("version: 1\n" TENANT "devices: {firmware: [x], suspect_faults: -1}\n", 6,
		"devices.suspect_faults");
	expect_refused("version: 1\n" TENANT "devices: {firmware: [x], suspect_poison: 1001}\n", 6,
		"at most 1000");
	expect_refused("version: 1\n" TENANT "devices: {firmware: [x], suspect_health: [bad]}\n", 6,
		"expected maintenance, degraded, replace, media, or none alone, found 'bad'");
	expect_refused("version: 1\n" TENANT
		       "devices: {firmware: [x], suspect_health: [media, none]}\n",
		6, "expected none to be alone");
	expect_refused("version: 1\n" TENANT "devices: {firmware: [x], suspect_after_ms: 1000}\n",
		6, "gone_after_ms (1000) above suspect_after_ms (1000)");
	expect_refused("version: 1\n" TENANT "devices: {firmware: [x], gone_after_ms: 60001}\n", 6,
		"at most 60000");
	expect_refused("version: 1\n" TENANT "devices: {firmware: [x], gone_after_ms: soon}\n", 6,
		"expected a number");
	expect_refused("version: 1\n" TENANT "devices: {firmware: [\"a b\"]}\n", 6, "is no name");
	expect_refused("version: 1\n" TENANT "devices: {firmware: [x], revoked: [\"a b\"]}\n", 6,
		"devices.revoked[0]: 'a b' is no name");
	expect_refused("version: 1\n" TENANT "devices: {firmware: [x], revoke_drains: all}\n", 6,
		"'readable', 'redundant' or 'none'");
	expect_refused("version: 1\n" TENANT "devices: {firmware: [x], revoke_seconds: -1}\n", 6,
		"devices.revoke_seconds");
}

static void test_tiers(void **state)
{
#define TIERS(list) "version: 1\n" TENANT "devices:\n  firmware: [x]\n  tiers:\n" list
	struct policy *policy = NULL;

	(void)state;
	assert_int_equal(load(TIERS("    - {name: fast, latency_ns: 300}\n"
				    "    - {name: slow, latency_ns: 301}\n"),
				 &policy),
		SECPOOL_OK);
	assert_int_equal(policy_tier(policy, 1), 0);
	assert_int_equal(policy_tier(policy, 300), 0);
	assert_int_equal(policy_tier(policy, 301), 1);
	assert_int_equal(policy_tier(policy, 302), 2);
	assert_int_equal(policy_tier(policy, UINT64_MAX), 2);
	assert_int_equal(policy_tier(policy, 0), 2); /* not known */
	assert_string_equal(policy_tier_label(policy, 0), "fast");
	assert_string_equal(policy_tier_label(policy, 1), "slow");
	assert_string_equal(policy_tier_label(policy, 2), "rest");
	policy_free(policy);
	assert_int_equal(load("version: 1\n" TENANT, &policy), SECPOOL_OK);
	assert_int_equal(policy_tier(policy, 1000), 0);
	assert_int_equal(policy_tier(policy, 1001), 1);
	assert_int_equal(policy_tier(policy, 10001), 2);
	assert_string_equal(policy_tier_label(policy, 0), "near");
	policy_free(policy);
	expect_refused(TIERS("    - {name: a, latency_ns: 0}\n"), 9, "more than 0");
	expect_refused(TIERS("    - {name: a, latency_ns: 9}\n    - {name: b, latency_ns: 9}\n"),
		10, "more than 9");
	expect_refused(TIERS("    - {name: a, latency_ns: 9}\n    - {name: a, latency_ns: 10}\n"),
		10, "two tiers 'a'");
	expect_refused(TIERS("    - {name: rest, latency_ns: 9}\n"), 9, "all other devices");
	expect_refused(TIERS("    - {name: a, latency_ns: 1000000001}\n"), 9, "at most");
	expect_refused(TIERS("    - {name: a b, latency_ns: 1}\n"), 9, "is no name");
	expect_refused(TIERS("    - {name: a}\n"), 9, "'latency_ns' is missing");
	expect_refused("version: 1\n" TENANT "devices: {firmware: [x], tiers: []}\n", 6, "tiers");
}

static void test_window(void **state)
{
	(void)state;
	expect_refused("version: 1\n" TENANT "window:\n  base: 1048576\n  bytes: 2M\n", 7,
		"multiple of 2M");
	expect_refused("version: 1\n" TENANT "window:\n  base: 2M\n  bytes: 2M\n", 7, "or more");
	expect_refused("version: 1\n" TENANT "window:\n  base: \"0x7f0000000000\"\n  bytes: 2M\n",
		7, "below");
	expect_refused("version: 1\n" TENANT "window:\n  base: \"0x110000000000\"\n  bytes: 127T\n",
		8, "end of the window");
	expect_refused("version: 1\n" TENANT "window:\n  base: \"0x110000000000\"\n  bytes: 0\n", 8,
		"not 0");
	expect_refused("version: 1\n" TENANT "window:\n  base: \"0x110000000000\"\n  bytes: 1Q\n",
		8, "is no size");
}

static void test_tenants(void **state)
{
	char text[1024], name[65];

	(void)state;
	memset(name, 'n', 64);
	name[64] = '\0';
	snprintf(text, sizeof text,
		"version: 1\ntenants:\n  - name: %s\n    users: [root]\n"
		"    quota: {bytes: 1, regions: 1, sessions: 1, local_bytes: 1}\n",
		name);
	expect_refused(text, 3, "1 to 63 bytes");
	name[63] = '\0';
	snprintf(text, sizeof text,
		"version: 1\ntenants:\n  - name: %s\n    users: [root]\n"
		"    quota: {bytes: 1, regions: 1, sessions: 1, local_bytes: 1}\n",
		name);
	struct policy *policy = NULL;
	assert_int_equal(load(text, &policy), SECPOOL_OK);
	policy_free(policy);
	expect_refused("version: 1\n" TENANT
		       "  - name: a\n    users: [root]\n    quota: {bytes: 1, regions: 1, "
		       "sessions: 1, local_bytes: 1}\n",
		6, "two tenants");
	expect_refused("version: 1\ntenants:\n  - name: a/b\n    users: [root]\n"
		       "    quota: {bytes: 1, regions: 1, sessions: 1, local_bytes: 1}\n",
		3, "is no name");
	expect_refused("version: 1\ntenants:\n  - name: a\n    users:\n      - root\n      - "
		       "nosuchuser\n"
		       "    quota: {bytes: 1, regions: 1, sessions: 1, local_bytes: 1}\n",
		6, "user 'nosuchuser' is not known");
	expect_refused("version: 1\ntenants:\n  - name: a\n    groups: [nosuchgroup]\n"
		       "    quota: {bytes: 1, regions: 1, sessions: 1, local_bytes: 1}\n",
		4, "group 'nosuchgroup' is not known");
	expect_refused("version: 1\ntenants:\n  - name: a\n    users: [\"4294967295\"]\n"
		       "    quota: {bytes: 1, regions: 1, sessions: 1, local_bytes: 1}\n",
		4, "is not known");
	expect_refused("version: 1\ntenants:\n  - name: a\n"
		       "    quota: {bytes: 1, regions: 1, sessions: 1, local_bytes: 1}\n",
		3, "nobody");
	expect_refused(
		"version: 1\ntenants:\n  - name: a\n    users: [root]\n    quota:\n"
		"      bytes: 1Z\n      regions: 1\n      sessions: 1\n      local_bytes: 1\n",
		6, "is no size");
	expect_refused("version: 1\n" TENANT "    protection: [xts]\n", 6, "not available");
	expect_refused("version: 1\n" TENANT "    protection: [rot13]\n", 6, "expected xts-gmac");
	expect_refused("version: 1\n" TENANT "    redundancy: [\"mirror:5\"]\n", 6, "mirror:4");
	expect_refused("version: 1\n" TENANT "    redundancy: [\"ec:4+5\"]\n", 6, "ec:K+M");
	expect_refused("version: 1\n" TENANT "    redundancy: [\"ec:1+1\"]\n", 6, "ec:K+M");
	expect_refused("version: 1\n" TENANT "    redundancy: [\"ec:13+4\"]\n", 6, "ec:K+M");
	expect_refused("version: 1\n" TENANT "    on_loss: [retry]\n", 6, "signal or kill");
}

#define EK "000b000102030405060708090a0b0c0d0e0f000102030405060708090a0b0c0d0e0f"

static void test_devices(void **state)
{
	static const char start[] = "version: 1\n" TENANT "devices:\n  firmware: [x]\n  known:\n";
	char text[1024];

	(void)state;
	snprintf(text, sizeof text, "%s    - {id: a, ek: 00}\n", start);
	expect_refused(text, 9, "68 hex digits");
	snprintf(text, sizeof text, "%s    - {id: a, ek: %s0}\n", start, EK);
	expect_refused(text, 9, "68 hex digits");
	snprintf(text, sizeof text, "%s    - {id: a, ek: %.67sg}\n", start, EK);
	expect_refused(text, 9, "68 hex digits");
	snprintf(text, sizeof text, "%s    - {id: a, ek: 0004%s}\n", start, EK + 4);
	expect_refused(text, 9, "000b");
	snprintf(text, sizeof text, "%s    - {id: a, ek: %s}\n    - {id: b, ek: %s}\n", start, EK,
		EK);
	expect_refused(text, 10, "same EK");
	snprintf(text, sizeof text, "%s    - {id: a, ek: %s}\n    - {id: a, ek: %.67s0}\n", start,
		EK, EK);
	expect_refused(text, 10, "two devices");
}

static void test_revoked(void **state)
{
	static const char start[] = "version: 1\n" TENANT "devices:\n  firmware: [x]\n";
	struct policy *policy = NULL;
	uint8_t ek[34] = {0x00, 0x0b, 0x00, 0x01};
	bool first;
	char text[1024];

	(void)state;
	snprintf(text, sizeof text, "%s  revoked: [a, 0004%s]\n", start, EK + 4);
	expect_refused(text, 8, "devices.revoked[1]: expected a TPM name that begins with 000b");
	snprintf(text, sizeof text, "%s  revoked: [%.67s]\n", start, EK);
	expect_refused(text, 8, "68 hex digits");
	assert_int_equal(policy_load_text(start, strlen(start), "p", &policy), SECPOOL_OK);
	assert_int_equal(policy_settings(policy)->revoke_drains, POLICY_DRAINS_READABLE);
	assert_int_equal(policy_settings(policy)->revoke_ns, 600ull * 1000000000);
	assert_false(policy_is_revoked(policy, "a", ek));
	policy_free(policy);
	/* also an EK and an id that are listed as good */
	snprintf(text, sizeof text,
		"%s  enrol: first-use\n  revoked: [a, %s]\n  revoke_drains: none\n  "
		"revoke_seconds: 7\n"
		"  known:\n    - {id: a, ek: 000b01%s}\n",
		start, EK, EK + 6);
	assert_int_equal(policy_load_text(text, strlen(text), "p", &policy), SECPOOL_OK);
	assert_int_equal(policy_settings(policy)->revoke_drains, POLICY_DRAINS_NONE);
	assert_int_equal(policy_settings(policy)->revoke_ns, 7ull * 1000000000);
	assert_true(policy_is_revoked(policy, "a", NULL));
	assert_false(policy_is_revoked(policy, "b", NULL));
	assert_false(policy_is_revoked(policy, "b", ek));
	assert_int_equal(policy_may_use_device(policy, "b", ek, "x", &first), SECPOOL_OK);
	for (size_t i = 0; i < 32; i++)
		ek[2 + i] = (uint8_t)(i % 16);
	assert_true(policy_is_revoked(policy, "b", ek));
	assert_int_equal(
		policy_may_use_device(policy, "b", ek, "x", &first), SECPOOL_E_ATTESTATION);
	assert_non_null(strstr(err_detail(), "revoked"));
	ek[2] = 1;
	assert_int_equal(
		policy_may_use_device(policy, "a", ek, "x", &first), SECPOOL_E_ATTESTATION);
	assert_non_null(strstr(err_detail(), "revoked"));
	policy_free(policy);
}

static void test_device_pcrs(void **state)
{
	static const char start[] = "version: 1\n" TENANT "devices:\n  firmware: [x]\n";
	static const char zeros[] =
		"0000000000000000000000000000000000000000000000000000000000000000";
	struct policy *policy = NULL;
	uint8_t value[32] = {0};
	char text[1024];

	(void)state;
	snprintf(text, sizeof text, "%s  pcrs: [0, 4]\n", start);
	expect_refused(text, 8, "expected 0 and 2 among them");
	snprintf(text, sizeof text, "%s  pcrs: [0, 2, 17]\n", start);
	expect_refused(text, 8, "PCRs below 16");
	snprintf(text, sizeof text, "%s  pcrs: [0, 2, 16]\n", start);
	expect_refused(text, 8, "anyone can reset PCR 16");
	snprintf(text, sizeof text, "%s  pcrs: [0, 2, 2]\n", start);
	expect_refused(text, 8, "PCR 2 is there twice");
	snprintf(text, sizeof text, "%s  reference:\n    - {name: a, pcr: 4, sha256: %s}\n", start,
		zeros);
	expect_refused(text, 9, "PCR 4 is not quoted");
	snprintf(text, sizeof text, "%s  reference:\n    - {name: a, pcr: 2, sha256: %s0}\n", start,
		zeros);
	expect_refused(text, 9, "64 hex digits");
	snprintf(text, sizeof text, "%s  reference:\n    - {name: a b, pcr: 2, sha256: %s}\n",
		start, zeros);
	expect_refused(text, 9, "no name");
	snprintf(text, sizeof text, "%s  ek_ca: [/a, b/c]\n", start);
	expect_refused(text, 8, "path from / on, found 'b/c'");
	assert_int_equal(policy_load_text(start, strlen(start), "p", &policy), SECPOOL_OK);
	assert_int_equal(policy_settings(policy)->device_pcrs, 0x5);
	assert_int_equal(policy_may_measure(policy, "d", 2, value), SECPOOL_OK);
	policy_free(policy);
	snprintf(text, sizeof text,
		"%s  pcrs: [7, 0, 2]\n  reference:\n    - {name: a, pcr: 7, sha256: %s}\n"
		"    - {name: b, pcr: 7, sha256: 01%s}\n",
		start, zeros, zeros + 2);
	assert_int_equal(policy_load_text(text, strlen(text), "p", &policy), SECPOOL_OK);
	assert_int_equal(policy_settings(policy)->device_pcrs, 0x85);
	assert_int_equal(policy_may_measure(policy, "d", 7, value), SECPOOL_OK);
	value[0] = 1;
	assert_int_equal(policy_may_measure(policy, "d", 7, value), SECPOOL_OK);
	value[31] = 1;
	assert_int_equal(policy_may_measure(policy, "d", 7, value), SECPOOL_E_ATTESTATION);
	assert_non_null(strstr(err_detail(), "(a, b)"));
	assert_int_equal(policy_may_measure(policy, "d", 0, value), SECPOOL_OK);
	policy_free(policy);
}

#define EXPLAINED                                                                                  \
	"version: 1\n"                                                                             \
	"tenants:\n"                                                                               \
	"  - name: a\n"                                                                            \
	"    users: [\"7\"]\n"                                                                     \
	"    groups: [\"4000000001\"]\n"                                                           \
	"    quota:\n"                                                                             \
	"      regions: 2\n"                                                                       \
	"      bytes: 4G\n"                                                                        \
	"      sessions: 3\n"                                                                      \
	"      local_bytes: 64M\n"                                                                 \
	"    on_loss: [sigbus, failover]\n"                                                        \
	"    redundancy: [none, \"mirror:2\"]\n"

/* Each decision with its rule and the line of it; the decision is the one of the functions that the daemons call. */
static void test_explain(void **state)
{
	static const struct {
		struct policy_question q;
		enum secpool_error decision;
		enum policy_rule rule;
		unsigned line;
	} cases[] = {
		{{"a", 7, 1, POLICY_ACTION_SESSION, 0, 0, 0, 0}, SECPOOL_OK, POLICY_RULE_USERS, 4},
		{{"a", 8, 4000000001, POLICY_ACTION_SESSION, 0, 0, 0, 0}, SECPOOL_OK,
			POLICY_RULE_GROUPS, 5},
		{{"a", 8, 1, POLICY_ACTION_SESSION, 0, 0, 0, 0}, SECPOOL_E_DENIED,
			POLICY_RULE_TENANT, 3},
		{{"b", 7, 1, POLICY_ACTION_SESSION, 0, 0, 0, 0}, SECPOOL_E_UNKNOWN_TENANT,
			POLICY_RULE_TENANTS, 2},
		{{"a", 7, 1, POLICY_ACTION_CREATE, 4ull << 30, 1, 2, MSG_ON_LOSS_FAILOVER},
			SECPOOL_OK, POLICY_RULE_USERS, 4},
		{{"a", 8, 1, POLICY_ACTION_CREATE, 1 << 21, 1, 1, MSG_ON_LOSS_SIGBUS},
			SECPOOL_E_DENIED, POLICY_RULE_TENANT, 3},
		{{"a", 7, 1, POLICY_ACTION_CREATE, (4ull << 30) + 1, 1, 1, MSG_ON_LOSS_SIGBUS},
			SECPOOL_E_QUOTA, POLICY_RULE_QUOTA, 8},
		{{"a", 7, 1, POLICY_ACTION_CREATE, 1 << 21, 1, 3, MSG_ON_LOSS_SIGBUS},
			SECPOOL_E_DENIED, POLICY_RULE_REDUNDANCY, 12},
		{{"a", 7, 1, POLICY_ACTION_CREATE, 1 << 21, 4, 6, MSG_ON_LOSS_KILL},
			SECPOOL_E_DENIED, POLICY_RULE_REDUNDANCY, 12},
		{{"a", 7, 1, POLICY_ACTION_CREATE, 1 << 21, 1, 2, MSG_ON_LOSS_KILL},
			SECPOOL_E_DENIED, POLICY_RULE_ON_LOSS, 11},
		{{"a", 7, 1, POLICY_ACTION_CREATE, 1 << 21, 9, 7, MSG_ON_LOSS_SIGBUS},
			SECPOOL_E_UNSUPPORTED, POLICY_RULE_NONE, 0},
		{{"a", 7, 1, POLICY_ACTION_CREATE, 1 << 21, 1, 1, MSG_ON_LOSS_FAILOVER},
			SECPOOL_E_UNSUPPORTED, POLICY_RULE_NONE, 0},
	};
	struct policy *policy = NULL;

	(void)state;
	assert_int_equal(load(EXPLAINED, &policy), SECPOOL_OK);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct policy_answer answer = policy_explain(policy, &cases[i].q);
		if (answer.decision != cases[i].decision || answer.rule != cases[i].rule ||
			answer.line != cases[i].line)
			fail_msg("case %zu: %s by '%s' in line %u", i, err_name(answer.decision),
				policy_rule_name(answer.rule), answer.line);
	}
	policy_free(policy);
	/* what the file leaves out is decided by the tenant as a whole */
	assert_int_equal(load("version: 1\n" TENANT, &policy), SECPOOL_OK);
	struct policy_answer answer =
		policy_explain(policy, &(struct policy_question){"a", 0, 0, POLICY_ACTION_CREATE,
					       1 << 21, 1, 2, MSG_ON_LOSS_SIGBUS});
	assert_int_equal(answer.rule, POLICY_RULE_REDUNDANCY);
	assert_int_equal(answer.line, 3);
	policy_free(policy);
	assert_string_equal(policy_rule_name(POLICY_RULES), "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_minimal),
		cmocka_unit_test(test_shares),
		cmocka_unit_test(test_settings),
		cmocka_unit_test(test_recovery),
		cmocka_unit_test(test_cipher),
		cmocka_unit_test(test_shipped),
		cmocka_unit_test(test_fd),
		cmocka_unit_test(test_syntax),
		cmocka_unit_test(test_keys),
		cmocka_unit_test(test_values),
		cmocka_unit_test(test_tiers),
		cmocka_unit_test(test_window),
		cmocka_unit_test(test_tenants),
		cmocka_unit_test(test_devices),
		cmocka_unit_test(test_revoked),
		cmocka_unit_test(test_device_pcrs),
		cmocka_unit_test(test_explain),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
