/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SIGHUP to keymgrd while a program writes: a bad policy file changes nothing and an event says where it is wrong; a good one counts: a tenant that went is refused, one that came is not, a device whose firmware
 * went is refused and its stored keys are destroyed; the program goes on with its mirror. What a new policy takes back ends at once; a quota that shrinks is told of, and nothing more is given. timeout: 120
 */
#include <stdlib.h>

#include "lib/base/os.h"
#include "tests/fault/load.h"

enum { PAGES = 512, QUOTA_PAGES = 16, LOCAL_BYTES = 4 << 20, TEXT_MOST = 1 << 16 };

static char policy_path[256], *policy_text;

/* The policy with the first `from` replaced by `to`, of the same or another length, takes the file's place. */
static void change(const char *from, const char *to)
{
	char text[TEXT_MOST];
	const char *at = strstr(policy_text, from);
	int length;

	SUPPORT_CHECK(at != NULL);
	length = snprintf(text, sizeof text, "%.*s%s%s", (int)(at - policy_text), policy_text, to,
		at + strlen(from));
	SUPPORT_CHECK(length > 0 && length < (int)sizeof text);
	SUPPORT_OK(os_write_file_durable(policy_path, text, (size_t)length, 0600));
}

static void hang_up(void)
{
	SUPPORT_CHECK(kill(support_daemon("keymgrd"), SIGHUP) == 0);
}

static bool may_be(const char *tenant)
{
	enum secpool_error error;
	int fd = -1;

	error = support_session(tenant, 4 << 20, &fd);
	os_close(&fd);
	SUPPORT_CHECK(!error || error == SECPOOL_E_UNKNOWN_TENANT);
	return !error;
}

static void bad_files_change_nothing(void)
{
	pid_t pid = support_daemon("keymgrd");

	change("version: 1", "version: 2");
	hang_up();
	load_await_events("policy-refused", NULL, "policy.yaml:1: ", 1);
	SUPPORT_CHECK(unlink(policy_path) == 0);
	hang_up();
	load_await_events("policy-refused", NULL, "", 2);
	SUPPORT_CHECK(support_daemon("keymgrd") == pid && may_be("brief"));
}

/* Asks until the answer is this one, also while nobody answers. */
static void await_session(const char *tenant, enum secpool_error wanted)
{
	for (unsigned ms = 0; ms < LOAD_WAIT_MS; ms += 100) {
		int fd = -1;
		enum secpool_error error = support_session(tenant, 4 << 20, &fd);

		os_close(&fd);
		if (error == wanted)
			return;
		clock_sleep_ns(100 * CLOCK_NS_PER_MS);
	}
	support_fail("tenant %s: not answered by %s", tenant, err_name(wanted));
}

static void use_first_policy(void)
{
	change("version: 1", "version: 1");
	hang_up();
	await_session("brief", SECPOOL_OK);
	for (int i = 0; i < 2; i++)
		support_wait_device(i ? "dev1" : "dev0", "online", true, LOAD_WAIT_MS);
}

/* A tenant that goes from the policy, or a user from a tenant, while its program has a region: that ends at once, not after the grace; its stored key is nowhere, and the audit says so. */
static void regions_are_revoked(const char *from, const char *to, unsigned nth)
{
	static uint8_t store[1][KEYFILE_SLOT_BYTES];
	struct secpool *pool = support_open("brief", LOCAL_BYTES);
	struct secpool_region *region;
	struct secpool_event event;
	static char text[1 << 20];
	uint8_t *memory;

	/* the slots of keys that ended are free from the next generation on, so that the key is in the first one */
	SUPPORT_CHECK(support_cli(NULL, 0, "keystore", "anchor", NULL) == 0);
	region = support_region(pool, 64 * 4096, 2);
	memory = secpool_region_address(region);
	support_fill(memory, 4096, 5);
	load_read_store(1, store);
	SUPPORT_CHECK(load_count_in_state(store[0]) == 1);
	change(from, to);
	hang_up();
	if (!support_event(pool, SECPOOL_EVENT_REGION_ENDED, LOAD_WAIT_MS, &event))
		support_fail("the program is not told that its region ended");
	SUPPORT_CHECK(event.region == region && load_touch_raises(memory));
	load_await_events("revoked", NULL, "", nth);
	SUPPORT_CHECK(load_count_in_state(store[0]) == 0);
	SUPPORT_CHECK(support_cli(text, sizeof text, "audit", "list", "--json", NULL) == 0);
	SUPPORT_CHECK(strstr(text, "\"kind\":\"revoked\"") != NULL);
	secpool_close(pool);
}

/* Also those that come while it starts again; it lives, and the last file counts. */
static void hangups_are_not_lost(void)
{
	pid_t pid = support_daemon("keymgrd");

	for (int i = 0; i < 20; i++) {
		hang_up();
		clock_sleep_ns((uint64_t)i * 10 * CLOCK_NS_PER_MS);
	}
	change("name: brief", "name: later");
	hang_up();
	await_session("later", SECPOOL_OK);
	await_session("brief", SECPOOL_E_UNKNOWN_TENANT);
	SUPPORT_CHECK(support_daemon("keymgrd") == pid);
}

static enum secpool_error make_region(struct secpool *pool, struct secpool_region **ret_region)
{
	const struct secpool_region_options options = {
		.size = sizeof options, .bytes = QUOTA_PAGES * 4096};

	return secpool_region_create(pool, &options, ret_region);
}

/* A tenant that has more than a new policy gives it: that is told, it keeps what it has, and gets no more until it is below. */
static void quotas_shrink(void)
{
	struct secpool *pool = support_open("alpha", LOCAL_BYTES);
	struct secpool_region *regions[2], *more;
	struct secpool_event event;
	enum secpool_error error;

	for (unsigned i = 0; i < 2; i++)
		support_wait_device(i ? "dev1" : "dev0", "online", true, LOAD_WAIT_MS);
	for (unsigned i = 0; i < 2; i++) {
		SUPPORT_OK(make_region(pool, &regions[i]));
		support_fill(secpool_region_address(regions[i]), QUOTA_PAGES * 4096, 70 + i);
	}
	change("regions: 64", "regions: 1");
	hang_up();
	load_await_events("over-quota", NULL, "2 regions of 1", 1);
	if (!support_event(pool, SECPOOL_EVENT_DAEMON_BACK, LOAD_WAIT_MS, &event))
		support_fail("the program does not see keymgrd again");
	for (unsigned i = 0; i < 2; i++)
		support_wait_device(i ? "dev1" : "dev0", "online", true, LOAD_WAIT_MS);
	SUPPORT_CHECK(make_region(pool, &more) == SECPOOL_E_QUOTA);
	for (unsigned i = 0; i < 2; i++)
		SUPPORT_CHECK(support_matches(
			secpool_region_address(regions[i]), QUOTA_PAGES * 4096, 70 + i));
	/* as much as it may have is not below */
	SUPPORT_OK(secpool_region_release(regions[0], NULL));
	SUPPORT_CHECK(make_region(pool, &more) == SECPOOL_E_QUOTA);
	SUPPORT_OK(secpool_region_release(regions[1], NULL));
	error = make_region(pool, &more);
	if (error)
		support_fail("below its quota: %s", err_detail());
	secpool_close(pool);
}

static void a_good_one_counts(struct secpool *pool)
{
	struct secpool_event event;

	change("name: brief", "name: other");
	hang_up();
	load_await_events("policy-reloaded", NULL, "", 1);
	if (!support_event(pool, SECPOOL_EVENT_DAEMON_BACK, LOAD_WAIT_MS, &event))
		support_fail("the program does not see keymgrd again");
	SUPPORT_CHECK(may_be("other") && !may_be("brief"));
	for (int i = 0; i < 2; i++)
		support_wait_device(i ? "dev1" : "dev0", "online", true, LOAD_WAIT_MS);
	load_await(2000);
}

/* With other firmware only, no device may be used: quarantined, no stored key is left, and nothing new is placed there; what is there can be read still. */
static void devices_are_revoked(struct secpool *pool)
{
	struct secpool_event event;

	change("secpool-emulated-1.0", "another");
	hang_up();
	load_await_events("policy-reloaded", NULL, "", 2);
	load_await_events("device-quarantined", NULL, "the policy does not list it", 2);
	support_wait_device("dev0", "quarantined", false, LOAD_WAIT_MS);
	support_wait_device("dev1", "quarantined", false, LOAD_WAIT_MS);
	load_await_events("key-destroyed", NULL, "", 1);
	if (!support_event(pool, SECPOOL_EVENT_DAEMON_BACK, LOAD_WAIT_MS, &event))
		support_fail("the program does not see keymgrd again");
}

int main(void)
{
	struct secpool_region *region;
	struct secpool *pool;
	size_t bytes = 0;

	/* longer than any wait here: what ends, does so by the policy */
	support_policy_lines = "grace_seconds: 3600\n";
	support_up(2, "64M", NULL);
	snprintf(policy_path, sizeof policy_path, "%s", support_path("policy.yaml"));
	SUPPORT_OK(os_read_file(policy_path, TEXT_MOST, &policy_text, &bytes));
	pool = support_open("alpha", LOCAL_BYTES);
	load_catch_bus();
	region = load_redundant(pool, PAGES, false);
	load_begin(region, PAGES);
	load_await(1000);
	bad_files_change_nothing();
	load_await(1000);
	a_good_one_counts(pool);
	load_end();
	devices_are_revoked(pool);
	load_check_all();
	SUPPORT_OK(secpool_region_release(region, NULL));
	secpool_close(pool);
	use_first_policy();
	regions_are_revoked("name: brief", "name: other", 1);
	use_first_policy();
	regions_are_revoked(
		"name: brief\n    users: [\"%self\"]", "name: brief\n    users: [\"65533\"]", 2);
	hangups_are_not_lost();
	quotas_shrink();
	free(policy_text);
	support_down();
	return 0;
}
