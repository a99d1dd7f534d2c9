/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who is refused, and how: another user, another tenant, an unknown tenant, an expired session, used-up quotas, wrong roles, malformed,
 * short and over-long messages, floods of reports and losses. After each the daemon goes on (the same process, and a good client is served). timeout: 120
 */
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/base/os.h"
#include "lib/wire/msg.h"
#include "lib/wire/sock.h"
#include "tests/support/support.h"

enum { LOCAL_BYTES = 4 << 20, MIB = 1 << 20 };

static pid_t keymgrd;

/* The daemon is the one that it was, and serves. */
static void check_alive(void)
{
	int fd;

	SUPPORT_CHECK(support_daemon("keymgrd") == keymgrd);
	SUPPORT_OK(support_session("alpha", LOCAL_BYTES, &fd));
	close(fd);
}

static void expect_refused(const char *tenant, enum secpool_error expected)
{
	int fd;
	enum secpool_error error = support_session(tenant, LOCAL_BYTES, &fd);

	if (error != expected)
		support_fail(
			"tenant %s: %s instead of %s", tenant, err_name(error), err_name(expected));
	if (!strstr(err_detail(), tenant))
		support_fail("the refusal does not name the tenant: %s", err_detail());
}

static void test_tenants(void)
{
	expect_refused("nobodys-tenant", SECPOOL_E_UNKNOWN_TENANT);
	expect_refused("beta", SECPOOL_E_DENIED);
	check_alive();
}

static void become_nobody(void)
{
	struct passwd *nobody = getpwnam("nobody");

	SUPPORT_CHECK(nobody != NULL);
	SUPPORT_CHECK(setgroups(0, NULL) == 0 && setgid(nobody->pw_gid) == 0 &&
		      setuid(nobody->pw_uid) == 0);
}

/* HELLO in a role, then a list: refused somewhere on the way. */
static bool role_is_refused(const char *socket, enum msg_role role, uint32_t what)
{
	struct msg request = {.type = MSG_LIST}, answer;
	enum secpool_error error;
	int fd = -1;

	error = sock_connect_as(support_path("%s", socket), role, &fd);
	if (error)
		return true;
	request.u.list.what = what;
	request.number = 1;
	error = sock_send(fd, &request, NULL, 0, clock_now_ns() + CLOCK_NS_PER_S);
	if (!error)
		error = sock_receive(fd, &answer, NULL, clock_now_ns() + 5 * CLOCK_NS_PER_S);
	close(fd);
	if (error == SECPOOL_E_TIMEOUT)
		return false;
	return error || (answer.type == MSG_REPLY && answer.u.reply.error != SECPOOL_OK);
}

static int be_nobody(void *arg)
{
	int fd;

	(void)arg;
	become_nobody();
	expect_refused("alpha", SECPOOL_E_DENIED);
	SUPPORT_OK(support_session("beta", LOCAL_BYTES, &fd));
	close(fd);
	SUPPORT_CHECK(role_is_refused("keymgr.sock", MSG_ROLE_ADMIN, MSG_LIST_REGIONS));
	SUPPORT_CHECK(role_is_refused("keymgr.sock", MSG_ROLE_HOTPLUG, MSG_LIST_REGIONS));
	SUPPORT_CHECK(role_is_refused("hotplug.sock", MSG_ROLE_ADMIN, MSG_LIST_DEVICES));
	/* nor can it read what lies about */
	SUPPORT_CHECK(access(support_path("state/root.sealed"), R_OK) != 0);
	SUPPORT_CHECK(access(support_path("state/directory.db"), R_OK) != 0);
	SUPPORT_CHECK(access(support_path("devices/dev0/media"), R_OK) != 0);
	SUPPORT_CHECK(access(support_path("tpm.sock"), W_OK) != 0);
	return 0;
}

static void test_other_user(void)
{
	if (getuid() != 0)
		return; /* main says so at the end */
	SUPPORT_CHECK(support_join(support_fork(be_nobody, NULL), 20000) == 0);
	check_alive();
	/* the roles themselves do work for the daemon's own user */
	SUPPORT_CHECK(!role_is_refused("keymgr.sock", MSG_ROLE_ADMIN, MSG_LIST_STATUS));
}

static enum secpool_error create_region(int fd, uint64_t bytes, uint64_t *ret_region)
{
	struct msg request = {.type = MSG_REGION_CREATE}, answer;
	enum secpool_error error;
	int key = -1;

	request.u.region_create.bytes = bytes;
	request.u.region_create.page_bytes = 4096;
	request.u.region_create.data = 1;
	request.u.region_create.lanes = 1;
	request.u.region_create.on_loss = MSG_ON_LOSS_SIGBUS;
	MSG_SET(request.u.region_create.name, "access");
	error = support_ask(fd, &request, MSG_REGION_CREATED, &answer, &key);
	os_close(&key);
	if (!error)
		*ret_region = answer.u.region_created.region;
	return error;
}

static enum secpool_error ask_extents(int fd, uint64_t region)
{
	struct msg request = {.type = MSG_EXTENTS_GET}, answer;

	request.u.extents_get.region = region;
	return support_ask(fd, &request, MSG_EXTENTS, &answer, NULL);
}

/* A region of this process, and what is asked about it from elsewhere. */
static struct {
	uint64_t region, slot;
	const char *tenant;
} known;

/* Every request that names a region: whoever it is not, is told that there is none. */
static void check_none_of_theirs(int fd)
{
	struct msg release = {.type = MSG_REGION_RELEASE}, resume = {.type = MSG_REGION_RESUME};
	struct msg replace = {.type = MSG_REGION_REPLACE}, places = {.type = MSG_EXTENTS_GET};
	const struct {
		struct msg *request;
		uint32_t want;
	} asked[] = {{&places, MSG_EXTENTS}, {&replace, MSG_REPLY}, {&resume, MSG_REPLY},
		{&release, MSG_RECEIPT}};
	struct msg answer;
	int key = -1;

	places.u.extents_get.region = known.region;
	release.u.region_release.region = known.region;
	resume.u.region_resume.region = known.region;
	replace.u.region_replace.region = known.region;
	replace.u.region_replace.slot =
		known.slot; /* a device that is there: only the owner check is left */
	for (size_t i = 0; i < sizeof asked / sizeof *asked; i++) {
		enum secpool_error error =
			support_ask(fd, asked[i].request, asked[i].want, &answer, &key);

		if (error != SECPOOL_E_NOT_FOUND || !strstr(err_detail(), "no region"))
			support_fail("%s as %s: %s: %s", msg_name(asked[i].request->type),
				known.tenant, err_name(error), err_detail());
	}
	SUPPORT_CHECK(key < 0);
}

static int be_another_process(void *arg)
{
	int fd;

	(void)arg;
	SUPPORT_OK(support_session(known.tenant, LOCAL_BYTES, &fd));
	check_none_of_theirs(fd);
	close(fd);
	return 0;
}

static int be_another_user(void *arg)
{
	become_nobody();
	return be_another_process(arg);
}

/* Another tenant's session, another process of the tenant, another user: no places, no keys; can't end it, replace its space or take it over. */
static void test_others_regions(void)
{
	struct msg release = {.type = MSG_REGION_RELEASE}, places = {.type = MSG_EXTENTS_GET},
		   answer;
	int mine, other;

	SUPPORT_OK(support_session("alpha", LOCAL_BYTES, &mine));
	SUPPORT_OK(create_region(mine, 4 * MIB, &known.region));
	places.u.extents_get.region = known.region;
	SUPPORT_OK(support_ask(mine, &places, MSG_EXTENTS, &answer, NULL));
	SUPPORT_CHECK(answer.u.extents.count > 0);
	known.slot = answer.u.extents.slot[0];
	known.tenant = "alpha2";
	SUPPORT_OK(support_session(known.tenant, LOCAL_BYTES, &other));
	check_none_of_theirs(other);
	close(other);
	known.tenant = "alpha";
	SUPPORT_CHECK(support_join(support_fork(be_another_process, NULL), 20000) == 0);
	known.tenant = "beta";
	if (getuid() == 0)
		SUPPORT_CHECK(support_join(support_fork(be_another_user, NULL), 20000) == 0);
	SUPPORT_OK(ask_extents(mine, known.region));
	release.u.region_release.region = known.region;
	SUPPORT_OK(support_ask(mine, &release, MSG_RECEIPT, &answer, NULL));
	close(mine);
	check_alive();
}

/* Tells that a device gave bad bytes, as often as it likes. region and offset 0: the tenant has nothing there. */
static void report_bad_bytes(
	int fd, const struct msg_device *device, uint64_t region, uint64_t offset)
{
	struct msg msg = {.type = MSG_DEVICE_REPORT};

	msg.u.device_report.slot = device->slot;
	msg.u.device_report.media = device->media;
	msg.u.device_report.cause = MSG_CAUSE_TAG;
	msg.u.device_report.region = region;
	msg.u.device_report.offset = offset;
	msg.u.device_report.bytes = 4096;
	for (int i = 0; i < 100; i++)
		SUPPORT_OK(sock_send(fd, &msg, NULL, 0, clock_now_ns() + 5 * CLOCK_NS_PER_S));
}

/* A session, and what keymgrd tells it of dev0. */
static int session_and_device(const char *tenant, struct msg_device *ret_device)
{
	uint64_t deadline = clock_now_ns() + 10 * CLOCK_NS_PER_S;
	struct msg msg = {.type = MSG_SESSION_OPEN};
	int fd;

	SUPPORT_OK(sock_connect_as(support_path("keymgr.sock"), MSG_ROLE_CLIENT, &fd));
	SUPPORT_OK(sock_want_credentials(fd));
	MSG_SET(msg.u.session_open.tenant, tenant);
	SUPPORT_OK(sock_send(fd, &msg, NULL, 0, deadline));
	do
		SUPPORT_OK(sock_receive(fd, &msg, NULL, deadline));
	while (msg.type != MSG_DEVICE || strcmp(msg.u.device.id, "dev0") != 0);
	*ret_device = msg.u.device;
	return fd;
}

/* Mirrored, so that it has space on both devices; where on this one. */
static uint64_t region_on(int fd, uint64_t slot, uint64_t *ret_offset)
{
	struct msg request = {.type = MSG_REGION_CREATE}, places = {.type = MSG_EXTENTS_GET},
		   answer;
	uint64_t region;
	int key = -1;

	request.u.region_create.bytes = 2 * MIB;
	request.u.region_create.page_bytes = 4096;
	request.u.region_create.data = 1;
	request.u.region_create.lanes = 2;
	request.u.region_create.on_loss = MSG_ON_LOSS_SIGBUS;
	SUPPORT_OK(support_ask(fd, &request, MSG_REGION_CREATED, &answer, &key));
	os_close(&key);
	region = answer.u.region_created.region;
	places.u.extents_get.region = region;
	SUPPORT_OK(support_ask(fd, &places, MSG_EXTENTS, &answer, NULL));
	for (uint32_t i = 0; i < answer.u.extents.count; i++)
		if (answer.u.extents.slot[i] == slot) {
			*ret_offset = answer.u.extents.offset[i];
			return region;
		}
	support_fail("region %llu has nothing on dev0", (unsigned long long)region);
}

static void expect_online_after_a_while(void)
{
	clock_sleep_ns(400 * CLOCK_NS_PER_MS);
	support_wait_device("dev0", "online", false, 1000);
}

/* One tenant alone can't talk a device out of the pool, nor can any that has nothing on it; two that have can. */
static void test_false_reports(void)
{
	struct msg_device device;
	uint64_t region, other_region, offset = 0, other_offset = 0;
	int fd = session_and_device("alpha", &device);
	int other = session_and_device("alpha2", &device);

	report_bad_bytes(fd, &device, 0, 0);
	report_bad_bytes(other, &device, 0, 0);
	expect_online_after_a_while();
	region = region_on(fd, device.slot, &offset);
	other_region = region_on(other, device.slot, &other_offset);
	/* another's region, and a place that is not the region's */
	report_bad_bytes(fd, &device, other_region, other_offset);
	report_bad_bytes(other, &device, other_region, offset);
	clock_sleep_ns(1100 * CLOCK_NS_PER_MS); /* so many are not heard in one second */
	report_bad_bytes(fd, &device, region, offset);
	expect_online_after_a_while();
	clock_sleep_ns(800 * CLOCK_NS_PER_MS);
	report_bad_bytes(other, &device, other_region, other_offset);
	support_wait_device("dev0", "suspect", false, 5000);
	close(fd);
	close(other);
	check_alive();
}

/* How many lines of keymgrd's log have the word. */
static unsigned count_log_lines(const char *word)
{
	FILE *log = fopen(support_path("log/keymgrd.log"), "r");
	char line[1024];
	unsigned count = 0;

	SUPPORT_CHECK(log != NULL);
	while (fgets(line, sizeof line, log))
		count += strstr(line, word) != NULL;
	fclose(log);
	return count;
}

/* A tenant that tells of losses without end: keymgrd goes on, and what else happened is still there. */
static void test_event_flood(void)
{
	struct msg msg = {.type = MSG_REGION_LOST};
	static char text[1 << 21];
	uint64_t region = 0, begun = clock_now_ns();
	int fd;

	SUPPORT_OK(support_session("alpha", LOCAL_BYTES, &fd));
	SUPPORT_OK(create_region(fd, 4 * MIB, &region));
	msg.u.region_lost.region = region;
	msg.u.region_lost.cause = MSG_CAUSE_TAG;
	msg.u.region_lost.bytes = 1;
	for (unsigned i = 0; i < 20000; i++) {
		msg.u.region_lost.offset = 2ull * i;
		SUPPORT_OK(sock_send(fd, &msg, NULL, 0, clock_now_ns() + 5 * CLOCK_NS_PER_S));
	}
	close(fd);
	check_alive();
	/* 200 a second are heard (docs/wire.md) */
	SUPPORT_CHECK(count_log_lines("range-lost") <=
		      200 * (2 + (clock_now_ns() - begun) / CLOCK_NS_PER_S));
	SUPPORT_CHECK(support_cli(text, sizeof text, "events", NULL) == 0);
	unsigned lost = 0;
	for (const char *at = text; (at = strstr(at, "range-lost")) != NULL; at++)
		lost++;
	SUPPORT_CHECK(lost > 0 && lost <= 2000);
	SUPPORT_CHECK(strstr(text, "device-online") != NULL);
}

/* What a child that inherited the connection gets when its opener has ended. */
static int end_and_leave_a_child(void *arg)
{
	const int *ends = arg; /* go: read; result: write */
	char byte;
	int fd;

	SUPPORT_OK(support_session("alpha", LOCAL_BYTES, &fd));
	if (fork() == 0) {
		uint64_t region = 0;

		if (read(ends[0], &byte, 1) != 1)
			_exit(1);
		byte = create_region(fd, 4 * MIB, &region) == SECPOOL_E_NOT_FOUND ? 'y' : 'n';
		_exit(write(ends[1], &byte, 1) == 1 ? 0 : 1);
	}
	return 0;
}

/* A session is its process's: when that has ended nobody makes a region by it, whose end nobody would see. */
static void test_session_of_a_dead_process(void)
{
	int go[2], result[2];
	char byte = 'x';

	SUPPORT_CHECK(pipe(go) == 0 && pipe(result) == 0);
	SUPPORT_CHECK(support_join(support_fork(end_and_leave_a_child, (int[]){go[0], result[1]}),
			      20000) == 0);
	close(go[0]);
	close(result[1]);
	SUPPORT_CHECK(write(go[1], &byte, 1) == 1);
	SUPPORT_CHECK(read(result[0], &byte, 1) == 1 && byte == 'y');
	close(go[1]);
	close(result[0]);
	check_alive();
}

static void test_quotas(void)
{
	uint64_t region = 0;
	int fd, second;

	SUPPORT_OK(support_session("small", LOCAL_BYTES, &fd));
	SUPPORT_CHECK(support_session("small", LOCAL_BYTES, &second) == SECPOOL_E_QUOTA);
	SUPPORT_CHECK(create_region(fd, 16 * MIB, &region) == SECPOOL_E_QUOTA);
	SUPPORT_OK(create_region(fd, 4 * MIB, &region));
	SUPPORT_CHECK(create_region(fd, 2 * MIB, &region) == SECPOOL_E_QUOTA);
	close(fd);
	check_alive();
}

/* Sends bytes on a new connection, after HELLO or not; the daemon answers with an error or closes, and no more. */
static void send_raw(bool hello, const void *bytes, size_t count, const char *what)
{
	struct msg answer;
	enum secpool_error error;
	int fd = -1;

	if (hello)
		SUPPORT_OK(sock_connect_as(support_path("keymgr.sock"), MSG_ROLE_CLIENT, &fd));
	else
		SUPPORT_OK(sock_connect(support_path("keymgr.sock"), &fd));
	SUPPORT_CHECK(send(fd, bytes, count, MSG_NOSIGNAL) == (ssize_t)count);
	error = sock_receive(fd, &answer, NULL, clock_now_ns() + 5 * CLOCK_NS_PER_S);
	if (!error && (answer.type != MSG_REPLY || answer.u.reply.error == SECPOOL_OK))
		support_fail("%s: answered by %s", what, msg_name(answer.type));
	if (error && error != SECPOOL_E_DAEMON_GONE)
		support_fail("%s: %s", what, err_name(error));
	/* the connection has ended */
	if (!error && sock_receive(fd, &answer, NULL, clock_now_ns() + 5 * CLOCK_NS_PER_S) !=
			      SECPOOL_E_DAEMON_GONE)
		support_fail("%s: the connection goes on", what);
	close(fd);
	check_alive();
}

static size_t encode(struct msg *msg, uint8_t *bytes)
{
	size_t count;

	msg->number = 7;
	SUPPORT_OK(msg_encode(msg, bytes, MSG_BYTES_MAX, &count));
	return count;
}

static void test_malformed(void)
{
	struct msg open = {.type = MSG_SESSION_OPEN}, hello = {.type = MSG_HELLO};
	struct msg stop = {.type = MSG_ENC_STOP}, destroy = {.type = MSG_ENC_KEY_DESTROY};
	struct msg state = {.type = MSG_DEVICE_STATE}, create = {.type = MSG_REGION_CREATE};
	uint8_t bytes[4 * MSG_BYTES_MAX] = {0};
	size_t count;

	os_random(bytes, 512);
	send_raw(true, bytes, 512, "noise");
	send_raw(false, bytes, 512, "noise before HELLO");
	MSG_SET(open.u.session_open.tenant, "alpha");
	count = encode(&open, bytes);
	send_raw(false, bytes, count, "SESSION_OPEN before HELLO");
	for (size_t cut = 1; cut < count; cut += cut < 16 ? 1 : 17)
		send_raw(true, bytes, cut, "a short message");
	send_raw(true, bytes, count + 1, "a message that is one byte too long");
	send_raw(true, bytes, sizeof bytes, "an over-long message");
	/* the tenant's name without its end */
	memset(open.u.session_open.tenant, 'x', sizeof open.u.session_open.tenant - 1);
	count = encode(&open, bytes);
	uint8_t *end = memchr(bytes, 'x', count);
	SUPPORT_CHECK(end != NULL);
	memset(end, 'x', sizeof open.u.session_open.tenant);
	send_raw(true, bytes, count, "a text without its end");
	hello.u.hello.version = MSG_VERSION + 1;
	hello.u.hello.role = MSG_ROLE_CLIENT;
	send_raw(false, bytes, encode(&hello, bytes), "another version");
	hello.u.hello.version = MSG_VERSION;
	hello.u.hello.role = 99;
	send_raw(false, bytes, encode(&hello, bytes), "an unknown role");
	/* well-formed, but not for this role or state */
	send_raw(true, bytes, encode(&stop, bytes), "ENC_STOP from a client");
	send_raw(true, bytes, encode(&destroy, bytes), "ENC_KEY_DESTROY from a client");
	send_raw(true, bytes, encode(&state, bytes), "DEVICE_STATE from a client");
	send_raw(true, bytes, encode(&create, bytes), "REGION_CREATE without a session");
}

/* The other socket too. */
static void test_malformed_hotplug(void)
{
	uint8_t noise[300];
	pid_t hotplugd = support_daemon("hotplugd");
	struct msg answer;
	int fd;

	os_random(noise, sizeof noise);
	SUPPORT_OK(sock_connect(support_path("hotplug.sock"), &fd));
	SUPPORT_CHECK(send(fd, noise, sizeof noise, MSG_NOSIGNAL) == (ssize_t)sizeof noise);
	enum secpool_error error =
		sock_receive(fd, &answer, NULL, clock_now_ns() + 5 * CLOCK_NS_PER_S);
	SUPPORT_CHECK(error == SECPOOL_E_DAEMON_GONE ||
		      (!error && answer.type == MSG_REPLY && answer.u.reply.error != SECPOOL_OK));
	close(fd);
	SUPPORT_CHECK(support_daemon("hotplugd") == hotplugd);
	SUPPORT_CHECK(support_cli(NULL, 0, "device", "list", NULL) == 0);
}

/* A session has an end: after it no key is handed out. */
static void test_expired(void)
{
	uint64_t region = 0;
	int fd;

	SUPPORT_OK(support_session("brief", LOCAL_BYTES, &fd));
	SUPPORT_OK(create_region(fd, 2 * MIB, &region));
	clock_sleep_ns(3 * CLOCK_NS_PER_S);
	enum secpool_error error = create_region(fd, 2 * MIB, &region);
	if (error != SECPOOL_E_SESSION_EXPIRED && error != SECPOOL_E_DAEMON_GONE)
		support_fail("a region after the session's end: %s", err_name(error));
	close(fd);
	SUPPORT_OK(support_session("brief", LOCAL_BYTES, &fd));
	SUPPORT_OK(create_region(fd, 2 * MIB, &region));
	close(fd);
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	support_up(2, "32M", NULL);
	keymgrd = support_daemon("keymgrd");
	SUPPORT_CHECK(keymgrd > 0);
	test_tenants();
	test_other_user();
	test_others_regions();
	test_session_of_a_dead_process();
	test_quotas();
	test_malformed();
	test_malformed_hotplug();
	test_event_flood();
	test_false_reports();
	support_down();
	support_up(2, "32M", support_policy(2));
	test_expired();
	support_down();
	if (getuid() != 0)
		support_skip("not root: all but the other user was tested");
	return 0;
}
