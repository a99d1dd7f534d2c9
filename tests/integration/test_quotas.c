/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tenant's quotas at their ends: bytes, regions and sessions exactly used, one over, after a release, after a crash, and asked for by many clients at once; and no user has all connections.
 * timeout: 240
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "keymgr/server.h"
#include "lib/base/clock.h"
#include "lib/base/os.h"
#include "lib/wire/msg.h"
#include "lib/wire/sock.h"
#include "tests/support/support.h"

#define MIB (1ull << 20)
enum { WAIT_MS = 60000, MANY = 12, MANY_REGIONS = 5, NOBODY = 65534 };

/* bytes: 8 MiB are four units of space; the devices have more than all quotas. */
static const char policy_text[] =
	"version: 1\n"
	"tenants:\n"
	"  - name: bytes\n    users: [\"%self\"]\n"
	"    quota: {bytes: 8M, regions: 100, sessions: 4, local_bytes: 1M}\n"
	"    redundancy: [none, \"mirror:2\"]\n"
	"  - name: regions\n    users: [\"%self\"]\n"
	"    quota: {bytes: 64M, regions: 3, sessions: 4, local_bytes: 1M}\n"
	"  - name: sessions\n    users: [\"%self\"]\n"
	"    quota: {bytes: 64M, regions: 3, sessions: 3, local_bytes: 1M}\n"
	"  - name: many\n    users: [\"%self\"]\n"
	"    quota: {bytes: 64M, regions: 5, sessions: 12, local_bytes: 1M}\n"
	"  - name: manybytes\n    users: [\"%self\"]\n"
	"    quota: {bytes: 10M, regions: 100, sessions: 12, local_bytes: 1M}\n"
	"devices:\n  enrol: first-use\n  max_age_seconds: 3600\n"
	"  firmware: [secpool-emulated-1.0]\n";

static void fill(struct msg *msg, uint64_t bytes, uint32_t copies)
{
	*msg = (struct msg){.type = MSG_REGION_CREATE};
	msg->u.region_create.bytes = bytes;
	msg->u.region_create.page_bytes = 4096;
	msg->u.region_create.data = 1;
	msg->u.region_create.lanes = copies;
	msg->u.region_create.on_loss = MSG_ON_LOSS_SIGBUS;
}

/* *ret_region: 0 on error. */
static enum secpool_error create(int fd, uint64_t bytes, uint32_t copies, uint64_t *ret_region)
{
	struct msg request, answer;
	enum secpool_error error;
	int key = -1;

	fill(&request, bytes, copies);
	error = support_ask(fd, &request, MSG_REGION_CREATED, &answer, &key);
	os_close(&key);
	*ret_region = error ? 0 : answer.u.region_created.region;
	return error;
}

static void release(int fd, uint64_t region)
{
	struct msg request = {.type = MSG_REGION_RELEASE}, answer;

	request.u.region_release.region = region;
	SUPPORT_OK(support_ask(fd, &request, MSG_RECEIPT, &answer, NULL));
}

/* Over by one thing, and the sentence names tenant, limit and policy line. */
static void check_refused(enum secpool_error error, const char *tenant, const char *line)
{
	SUPPORT_CHECK(error == SECPOOL_E_QUOTA);
	if (!strstr(err_detail(), tenant) || !strstr(err_detail(), line))
		support_fail(
			"a refusal that does not name %s and %s: %s", tenant, line, err_detail());
}

static int fill_quota_and_die(void *arg)
{
	uint64_t region;
	int fd;

	SUPPORT_OK(support_session(arg, 0, &fd));
	SUPPORT_OK(create(fd, 6 * MIB, 1, &region));
	SUPPORT_OK(
		create(fd, 1, 1, &region) == SECPOOL_E_INVALID ? SECPOOL_OK : SECPOOL_E_INTERNAL);
	SUPPORT_OK(create(fd, 2 * MIB, 1, &region));
	kill(getpid(), SIGKILL);
	return 0;
}

static void test_bytes(void)
{
	uint64_t regions[4], none;
	int fd;

	SUPPORT_OK(support_session("bytes", 0, &fd));
	/* a byte of a unit is a unit */
	SUPPORT_OK(create(fd, 2 * MIB + 4096, 1, &regions[0]));
	SUPPORT_OK(create(fd, 4096, 1, &regions[1]));
	check_refused(create(fd, 2 * MIB + 4096, 1, &none), "bytes", "quota.bytes");
	SUPPORT_OK(create(fd, 2 * MIB, 1, &regions[2])); /* exactly all */
	check_refused(create(fd, 4096, 1, &none), "bytes", "quota.bytes");
	release(fd, regions[1]); /* its receipt is the end of its charge */
	SUPPORT_OK(create(fd, 2 * MIB, 1, &regions[1]));
	check_refused(create(fd, 4096, 1, &none), "bytes", "quota.bytes");
	for (int i = 0; i < 3; i++)
		release(fd, regions[i]);
	/* what is refused for its size takes nothing */
	check_refused(create(fd, 8 * MIB + 4096, 1, &none), "bytes", "8");
	SUPPORT_OK(create(fd, 8 * MIB, 1, &regions[0]));
	release(fd, regions[0]);
	/* a tenant's bytes are the region's, not its copies' */
	SUPPORT_OK(create(fd, 8 * MIB, 2, &regions[0]));
	check_refused(create(fd, 4096, 1, &none), "bytes", "quota.bytes");
	release(fd, regions[0]);
	close(fd);
	/* a crash gives back what was used, when it is scrubbed */
	SUPPORT_CHECK(support_join(support_fork(fill_quota_and_die, (void *)(uintptr_t) "bytes"),
			      WAIT_MS) == 128 + SIGKILL);
	support_wait_regions(0, WAIT_MS);
	SUPPORT_OK(support_session("bytes", 0, &fd));
	SUPPORT_OK(create(fd, 8 * MIB, 1, &regions[0]));
	release(fd, regions[0]);
	close(fd);
}

static void test_regions(void)
{
	uint64_t regions[3], none;
	int fd, other;

	SUPPORT_OK(support_session("regions", 0, &fd));
	SUPPORT_OK(support_session("regions", 0, &other));
	for (int i = 0; i < 3; i++)
		SUPPORT_OK(create(i == 1 ? other : fd, 4096, 1, &regions[i]));
	check_refused(create(fd, 4096, 1, &none), "regions", "quota.regions");
	check_refused(create(other, 4096, 1, &none), "regions", "quota.regions");
	release(fd, regions[0]);
	SUPPORT_OK(create(other, 4096, 1, &regions[0]));
	check_refused(create(fd, 4096, 1, &none), "regions", "quota.regions");
	for (int i = 0; i < 3; i++)
		release(fd, regions[i]);
	close(fd);
	close(other);
}

static bool session_is_had(void *arg)
{
	return support_session("sessions", 0, arg) == SECPOOL_OK;
}

static int hold_sessions_and_die(void *arg)
{
	int fd;

	(void)arg;
	/* those before may be ending still */
	for (int i = 0; i < 3; i++)
		SUPPORT_CHECK(support_wait(session_is_had, &fd, WAIT_MS));
	check_refused(support_session("sessions", 0, &fd), "sessions", "quota.sessions");
	kill(getpid(), SIGKILL);
	return 0;
}

static void test_sessions(void)
{
	int fds[4];

	for (int i = 0; i < 3; i++)
		SUPPORT_OK(support_session("sessions", 0, &fds[i]));
	check_refused(support_session("sessions", 0, &fds[3]), "sessions", "quota.sessions");
	/* one connection's end is another's place, as soon as keymgrd has seen it */
	close(fds[0]);
	SUPPORT_CHECK(support_wait(session_is_had, &fds[0], WAIT_MS));
	check_refused(support_session("sessions", 0, &fds[3]), "sessions", "quota.sessions");
	for (int i = 0; i < 3; i++)
		close(fds[i]);
}

/* Its sessions end with it: all of them can be had again. */
static void test_sessions_after_a_crash(void)
{
	for (int tries = 0; tries < 2; tries++)
		SUPPORT_CHECK(support_join(support_fork(hold_sessions_and_die, NULL), WAIT_MS) ==
			      128 + SIGKILL);
}

/* The answer to the creation that was sent; the region, 0 when it was refused for the quota. */
static uint64_t take_answer(int fd)
{
	uint64_t deadline = clock_now_ns() + (uint64_t)WAIT_MS * CLOCK_NS_PER_MS;
	struct msg msg;

	do
		SUPPORT_OK(sock_receive(fd, &msg, NULL, deadline));
	while (msg.type != MSG_REGION_CREATED && msg.type != MSG_REPLY);
	if (msg.type == MSG_REGION_CREATED)
		return msg.u.region_created.region;
	SUPPORT_CHECK(msg.u.reply.error == SECPOOL_E_QUOTA);
	return 0;
}

/* Many ask before any is answered: as many get one as the quota has, neither more nor fewer. */
static void test_many_at_once(const char *tenant)
{
	int fds[MANY], opened[MANY];
	unsigned made = 0;

	for (int i = 0; i < MANY; i++)
		SUPPORT_OK(support_session(tenant, 0, &fds[i]));
	for (int i = 0; i < MANY; i++) {
		struct msg msg;

		fill(&msg, 2 * MIB, 1);
		SUPPORT_OK(sock_send(fds[i], &msg, NULL, 0, clock_now_ns() + CLOCK_NS_PER_S * 60));
	}
	for (int i = 0; i < MANY; i++) {
		uint64_t region = take_answer(fds[i]);

		opened[i] = region != 0;
		made += region != 0;
	}
	SUPPORT_CHECK(made == MANY_REGIONS);
	for (int i = 0; i < MANY; i++)
		if (!opened[i])
			close(fds[i]);
	support_wait_regions(MANY_REGIONS, WAIT_MS);
	for (int i = 0; i < MANY; i++)
		if (opened[i])
			close(fds[i]);
}

static int many_at_once(void *arg)
{
	test_many_at_once(arg);
	return 0;
}

/* Connections of a user that is not the daemon's own, up to the bound; the next is told so, and others are served. Status 77: not enough descriptors. */
static int take_connections(void *arg)
{
	struct rlimit limit;
	struct msg msg;
	int fd = -1;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0 ||
		limit.rlim_max < SERVER_CONNECTIONS_PER_USER + 64)
		return 77;
	limit.rlim_cur = limit.rlim_max;
	SUPPORT_CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
	SUPPORT_CHECK(setgid(NOBODY) == 0 && setuid(NOBODY) == 0);
	for (int i = 0; i < SERVER_CONNECTIONS_PER_USER; i++)
		SUPPORT_OK(sock_connect_as(arg, MSG_ROLE_CLIENT, &fd));
	SUPPORT_OK(sock_connect(arg, &fd));
	SUPPORT_OK(sock_receive(fd, &msg, NULL, clock_now_ns() + 60 * CLOCK_NS_PER_S));
	SUPPORT_CHECK(msg.type == MSG_REPLY && msg.u.reply.error == SECPOOL_E_LIMIT);
	SUPPORT_CHECK(write(STDOUT_FILENO, "x", 1) == 1);
	pause();
	return 0;
}

static void test_connections_of_one_user(void)
{
	char path[256], byte;
	uint64_t region;
	int pipes[2], fd;
	pid_t child;

	if (geteuid() != 0) {
		fprintf(stderr, "connections of another user are not tried: not root\n");
		return;
	}
	snprintf(path, sizeof path, "%s", support_path("keymgr.sock"));
	SUPPORT_CHECK(pipe(pipes) == 0);
	fflush(NULL);
	child = fork();
	SUPPORT_CHECK(child >= 0);
	if (child == 0) {
		dup2(pipes[1], STDOUT_FILENO);
		close(pipes[0]);
		_exit(take_connections(path));
	}
	close(pipes[1]);
	if (read(pipes[0], &byte, 1) != 1) {
		SUPPORT_CHECK(support_join(child, WAIT_MS) == 77);
		fprintf(stderr, "connections of another user are not tried: few descriptors\n");
		return;
	}
	/* all of them are held: */
	SUPPORT_OK(support_session("regions", 0, &fd));
	SUPPORT_OK(create(fd, 4096, 1, &region));
	release(fd, region);
	close(fd);
	kill(child, SIGKILL);
	SUPPORT_CHECK(support_join(child, WAIT_MS) == 128 + SIGKILL);
	close(pipes[0]);
}

int main(void)
{
	const char *folder;
	char path[256];
	FILE *file;

	support_runtime_dir();
	folder = getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp";
	snprintf(path, sizeof path, "%s/quotas-%d.yaml", folder, getpid());
	file = fopen(path, "we");
	SUPPORT_CHECK(file && fputs(policy_text, file) >= 0 && fchmod(fileno(file), 0644) == 0 &&
		      fclose(file) == 0);
	support_up(2, "64M", path);
	test_bytes();
	test_regions();
	test_sessions();
	test_sessions_after_a_crash();
	SUPPORT_CHECK(
		support_join(support_fork(many_at_once, (void *)(uintptr_t) "many"), WAIT_MS) == 0);
	support_wait_regions(0, WAIT_MS);
	SUPPORT_CHECK(support_join(support_fork(many_at_once, (void *)(uintptr_t) "manybytes"),
			      WAIT_MS) == 0);
	support_wait_regions(0, WAIT_MS);
	test_connections_of_one_user();
	support_down();
	unlink(path);
	return 0;
}
