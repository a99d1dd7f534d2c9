/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SIGHUP to keymgrd while a program writes: a bad policy file changes nothing and an event says where it is wrong; a good one counts: a tenant that went is refused, one that came is not, a device whose firmware
 * went is refused and its stored keys are destroyed; the program goes on with its mirror. timeout: 120
 */
#include <stdlib.h>

#include "lib/base/os.h"
#include "tests/fault/load.h"

enum { PAGES = 512, LOCAL_BYTES = 4 << 20, TEXT_MOST = 1 << 16 };

static char policy_path[256], *policy_text;

struct wanted {
	const char *kind, *words;
	unsigned count;
};

static bool has_events(void *arg)
{
	const struct wanted *wanted = arg;
	struct msg request = {.type = MSG_LIST, .number = 1}, row;
	uint64_t end = clock_now_ns() + 10 * CLOCK_NS_PER_S;
	unsigned count = 0;
	int fd;

	request.u.list.what = MSG_LIST_EVENTS;
	/* it may be starting again */
	if (sock_connect_as(support_path("keymgr.sock"), MSG_ROLE_ADMIN, &fd) != SECPOOL_OK)
		return false;
	SUPPORT_OK(sock_send(fd, &request, NULL, 0, end));
	while (sock_receive(fd, &row, NULL, end) == SECPOOL_OK && row.type == MSG_EVENT_ROW)
		count += strcmp(row.u.event_row.kind, wanted->kind) == 0 &&
			 strstr(row.u.event_row.detail, wanted->words);
	close(fd);
	return count >= wanted->count;
}

static void await_events(const char *kind, const char *words, unsigned count)
{
	struct wanted wanted = {kind, words, count};

	if (!support_wait(has_events, &wanted, LOAD_WAIT_MS))
		support_fail("no %u events %s say '%s'", count, kind, words);
}

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
	await_events("policy-refused", "policy.yaml:1: ", 1);
	SUPPORT_CHECK(unlink(policy_path) == 0);
	hang_up();
	await_events("policy-refused", "", 2);
	SUPPORT_CHECK(support_daemon("keymgrd") == pid && may_be("brief"));
}

static void a_good_one_counts(struct secpool *pool)
{
	struct secpool_event event;

	change("name: brief", "name: other");
	hang_up();
	await_events("policy-reloaded", "", 1);
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
	await_events("policy-reloaded", "", 2);
	await_events("device-quarantined", "the policy does not list it", 2);
	support_wait_device("dev0", "quarantined", false, LOAD_WAIT_MS);
	support_wait_device("dev1", "quarantined", false, LOAD_WAIT_MS);
	await_events("key-destroyed", "", 1);
	if (!support_event(pool, SECPOOL_EVENT_DAEMON_BACK, LOAD_WAIT_MS, &event))
		support_fail("the program does not see keymgrd again");
}

int main(void)
{
	struct secpool_region *region;
	struct secpool *pool;
	size_t bytes = 0;

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
	free(policy_text);
	support_down();
	return 0;
}
