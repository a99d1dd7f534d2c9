/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The key manager over its socket, with real TPMs, enclave and hotplugd: a region's life with its receipt, kill -9 and resume, a client's
 * death, a pull that only keymgrd can see, a reader that does not read, clients to whom no key can be sent, a second daemon, the enclave's end.
 * timeout: 120
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/base/os.h"
#include "lib/wire/msg.h"
#include "lib/wire/sock.h"
#include "tests/support/support.h"

#define MIB (1ull << 20)
enum { LOCAL_BYTES = 4 << 20, WAIT_MS = 15000 };

static uint64_t create(int fd, uint64_t bytes, uint32_t copies)
{
	struct msg request = {.type = MSG_REGION_CREATE}, answer;
	int key = -1;

	request.u.region_create.bytes = bytes;
	request.u.region_create.page_bytes = 4096;
	request.u.region_create.data = 1;
	request.u.region_create.lanes = copies;
	request.u.region_create.on_loss = MSG_ON_LOSS_SIGBUS;
	MSG_SET(request.u.region_create.name, "test");
	SUPPORT_OK(support_ask(fd, &request, MSG_REGION_CREATED, &answer, &key));
	SUPPORT_CHECK(key >= 0);
	close(key);
	SUPPORT_CHECK(answer.u.region_created.bytes == bytes);
	SUPPORT_CHECK(answer.u.region_created.extent_count >= copies);
	return answer.u.region_created.region;
}

static enum secpool_error extents(int fd, uint64_t region, struct msg_extents *ret_extents)
{
	struct msg request = {.type = MSG_EXTENTS_GET}, answer;
	enum secpool_error error;

	request.u.extents_get.region = region;
	error = support_ask(fd, &request, MSG_EXTENTS, &answer, NULL);
	if (!error)
		*ret_extents = answer.u.extents;
	return error;
}

static enum secpool_error resume(int fd, uint64_t region)
{
	struct msg request = {.type = MSG_REGION_RESUME}, answer;

	request.u.region_resume.region = region;
	return support_ask(fd, &request, MSG_REPLY, &answer, NULL);
}

static void release(int fd, uint64_t region, const char *expect)
{
	struct msg request = {.type = MSG_REGION_RELEASE}, answer;

	request.u.region_release.region = region;
	SUPPORT_OK(support_ask(fd, &request, MSG_RECEIPT, &answer, NULL));
	SUPPORT_CHECK(strlen(answer.u.receipt.document) > 100);
	if (expect && !strstr(answer.u.receipt.document, expect))
		support_fail("the receipt does not say %s: %s", expect, answer.u.receipt.document);
}

static void open_session(int *ret_fd)
{
	SUPPORT_OK(support_session("alpha", LOCAL_BYTES, ret_fd));
}

static void test_life_of_a_region(void)
{
	struct msg_extents places;
	uint64_t first, second;
	int fd;

	open_session(&fd);
	first = create(fd, 8 * MIB, 2);
	SUPPORT_OK(extents(fd, first, &places));
	SUPPORT_CHECK(places.count == 2 && places.total == 2);
	SUPPORT_CHECK(places.slot[0] != places.slot[1]);
	SUPPORT_CHECK(places.bytes[0] == 8 * MIB && places.bytes[1] == 8 * MIB);
	second = create(fd, 4096, 1);
	SUPPORT_CHECK(second > first);
	release(fd, first, NULL);
	SUPPORT_CHECK(extents(fd, first, &places) == SECPOOL_E_NOT_FOUND);
	SUPPORT_CHECK(resume(fd, first) == SECPOOL_E_NOT_FOUND);
	release(fd, second, NULL);
	close(fd);
	support_wait_regions(0, WAIT_MS);
}

static int die_with_regions(void *arg)
{
	int fd;

	(void)arg;
	open_session(&fd);
	create(fd, 4 * MIB, 2);
	create(fd, 4 * MIB, 1);
	kill(getpid(), SIGKILL);
	return 0;
}

static void test_a_dead_client_is_released(void)
{
	SUPPORT_CHECK(support_join(support_fork(die_with_regions, NULL), WAIT_MS) == 128 + SIGKILL);
	support_wait_regions(0, WAIT_MS);
	support_wait_device("dev0", "online", true, WAIT_MS);
}

static int other_process_asks(void *arg)
{
	uint64_t region = *(uint64_t *)arg;
	struct msg_extents places;
	int fd;

	open_session(&fd);
	return extents(fd, region, &places) == SECPOOL_E_NOT_FOUND &&
			       resume(fd, region) == SECPOOL_E_NOT_FOUND
		       ? 0
		       : 1;
}

static void test_kill_and_resume(void)
{
	struct msg_extents before, after;
	uint64_t region;
	int fd, devices = 2;

	open_session(&fd);
	region = create(fd, 8 * MIB, 2);
	SUPPORT_OK(extents(fd, region, &before));
	support_kill_daemon("keymgrd");
	close(fd);
	support_up((unsigned)devices, "64M", NULL);
	support_wait_regions(1, WAIT_MS);
	open_session(&fd);
	SUPPORT_CHECK(support_join(support_fork(other_process_asks, &region), WAIT_MS) == 0);
	SUPPORT_OK(resume(fd, region));
	SUPPORT_OK(extents(fd, region, &after));
	SUPPORT_CHECK(memcmp(&before, &after, sizeof after) == 0);
	/* a session that ended in silence: the process lives, so its region does */
	close(fd);
	clock_sleep_ns(200 * CLOCK_NS_PER_MS);
	support_wait_regions(1, WAIT_MS);
	open_session(&fd);
	SUPPORT_OK(resume(fd, region));
	release(fd, region, NULL);
	close(fd);
	support_wait_regions(0, WAIT_MS);
}

/* The descriptor-less end of a pull while hotplugd is dead: only a client's report and keymgrd's own look find it. */
static void test_a_pull_without_hotplugd(void)
{
	struct msg report = {.type = MSG_DEVICE_REPORT}, msg = {.type = 0};
	uint64_t deadline;
	struct msg_extents places;
	uint64_t region, slot = 0;
	int fd;

	SUPPORT_OK(sock_connect_as(support_path("keymgr.sock"), MSG_ROLE_CLIENT, &fd));
	SUPPORT_OK(sock_want_credentials(fd));
	msg.type = MSG_SESSION_OPEN;
	MSG_SET(msg.u.session_open.tenant, "alpha");
	deadline = clock_now_ns() + 10 * CLOCK_NS_PER_S;
	SUPPORT_OK(sock_send(fd, &msg, NULL, 0, deadline));
	while (slot == 0) {
		SUPPORT_OK(sock_receive(fd, &msg, NULL, deadline));
		if (msg.type == MSG_DEVICE && strcmp(msg.u.device.id, "dev1") == 0) {
			slot = msg.u.device.slot;
			report.u.device_report.media = msg.u.device.media;
		}
	}
	region = create(fd, 4 * MIB, 2);
	support_kill_daemon("hotplugd");
	SUPPORT_CHECK(truncate(support_path("devices/dev1/media"), 0) == 0);
	report.u.device_report.region = region;
	report.u.device_report.slot = slot;
	report.u.device_report.cause = MSG_CAUSE_FAULT;
	SUPPORT_OK(sock_send(fd, &report, NULL, 0, deadline));
	do
		SUPPORT_OK(sock_receive(fd, &msg, NULL, deadline));
	while (msg.type != MSG_DEVICE || msg.u.device.slot != slot ||
		msg.u.device.state != MSG_DEVICE_LOST);
	/* two domains, one gone: nothing can replace the copy, which is given up all the same */
	msg = (struct msg){.type = MSG_REGION_REPLACE};
	msg.u.region_replace.region = region;
	msg.u.region_replace.slot = slot;
	SUPPORT_CHECK(support_ask(fd, &msg, MSG_REPLY, &msg, NULL) == SECPOOL_E_NO_SPACE);
	SUPPORT_OK(extents(fd, region, &places));
	SUPPORT_CHECK(places.count == 1 && places.slot[0] != slot);
	release(fd, region, NULL);
	close(fd);
}

/* Asks for lists and never reads: the connection is dropped or held, the others are served. */
static void test_a_reader_that_does_not_read(void)
{
	struct msg list = {.type = MSG_LIST};
	int slow, fd;

	SUPPORT_OK(sock_connect_as(support_path("keymgr.sock"), MSG_ROLE_ADMIN, &slow));
	list.u.list.what = MSG_LIST_EVENTS;
	list.u.list.after = MSG_FOLLOW;
	SUPPORT_OK(sock_send(slow, &list, NULL, 0, clock_now_ns() + CLOCK_NS_PER_S));
	for (int i = 0; i < 20; i++) {
		open_session(&fd);
		release(fd, create(fd, 4096, 1), NULL);
		close(fd);
	}
	close(slow);
}

static void test_a_second_daemon_is_refused(void)
{
	char text[4096], where[300];
	char program[300], runtime[300], state[300], policy[300];
	char *const argv[] = {program, "--runtime-dir", runtime, "--state-dir", state, "--policy",
		policy, "--tpm", where, NULL};

	snprintf(program, sizeof program, "%s/secpool-keymgrd", support_bin_dir());
	snprintf(runtime, sizeof runtime, "%s", support_runtime_dir());
	snprintf(state, sizeof state, "%s", support_path("state"));
	snprintf(policy, sizeof policy, "%s", support_path("policy.yaml"));
	snprintf(where, sizeof where, "unix:%s", support_path("tpm.sock"));
	SUPPORT_CHECK(support_run(text, sizeof text, argv) == 1);
	SUPPORT_CHECK(strstr(text, "another secpool-keymgrd") != NULL);
}

static unsigned long count_receipts(void)
{
	char text[8192];
	const char *at;

	SUPPORT_CHECK(support_cli(text, sizeof text, "status", NULL) == 0);
	at = strstr(text, "receipts");
	SUPPORT_CHECK(at != NULL);
	return strtoul(at + strcspn(at, "0123456789"), NULL, 10);
}

static void fill_create(struct msg_region_create *create_it)
{
	create_it->bytes = 4 * MIB;
	create_it->page_bytes = 4096;
	create_it->data = 1;
	create_it->lanes = 1;
	create_it->on_loss = MSG_ON_LOSS_SIGBUS;
}

static void send_create(int fd)
{
	struct msg msg = {.type = MSG_REGION_CREATE, .number = 7777};

	fill_create(&msg.u.region_create);
	SUPPORT_OK(sock_send(fd, &msg, NULL, 0, clock_now_ns() + 5 * CLOCK_NS_PER_S));
}

/*
 * Asks so often without reading that there is no room for the key; the answer to the creation, SECPOOL_E_CLOSED when there was none. A region that was
 * made all the same is released.
 */
static enum secpool_error create_behind_a_queue(unsigned asked)
{
	uint64_t deadline = clock_now_ns() + 10 * CLOCK_NS_PER_S;
	struct msg msg = {.type = MSG_EXTENTS_GET, .number = 1};
	struct msg create_it = {.type = MSG_REGION_CREATE, .number = 7777};
	enum secpool_error error = SECPOOL_OK;
	int fd;

	open_session(&fd);
	for (unsigned i = 0; i < asked && !error; i++)
		error = sock_send(fd, &msg, NULL, 0, deadline);
	fill_create(&create_it.u.region_create);
	if (!error)
		error = sock_send(fd, &create_it, NULL, 0, deadline);
	clock_sleep_ns(100 * CLOCK_NS_PER_MS);
	do
		error = error ? error : sock_receive(fd, &msg, NULL, deadline);
	while (!error && (msg.number != 7777 || msg.type == MSG_REGION_KEY));
	if (error) /* too slow a reader: keymgrd closed it */
		error = SECPOOL_E_CLOSED;
	else if (msg.type == MSG_REPLY)
		error = (enum secpool_error)msg.u.reply.error;
	else
		release(fd, msg.u.region_created.region, NULL);
	close(fd);
	return error;
}

static int ask_and_die(void *arg)
{
	int fd;

	(void)arg;
	open_session(&fd);
	send_create(fd);
	kill(getpid(), SIGKILL);
	return 0;
}

/* What a client does to its own socket is no reason for keymgrd to think that its enclave is gone. */
static void test_clients_that_get_no_key(void)
{
	pid_t keymgrd = support_daemon("keymgrd");
	unsigned long before = count_receipts();
	bool was_busy = false;
	int fd;

	open_session(&fd);
	SUPPORT_CHECK(shutdown(fd, SHUT_RD) == 0);
	send_create(fd);
	clock_sleep_ns(200 * CLOCK_NS_PER_MS);
	close(fd);
	for (unsigned asked = 100; asked <= 550; asked += 50) {
		enum secpool_error error = create_behind_a_queue(asked);

		before += error == SECPOOL_OK;
		was_busy |= error == SECPOOL_E_BUSY;
	}
	SUPPORT_CHECK(was_busy);
	SUPPORT_CHECK(support_daemon("keymgrd") == keymgrd);
	/* a region that never was live leaves neither itself nor a receipt */
	support_wait_regions(0, WAIT_MS);
	SUPPORT_CHECK(count_receipts() == before);
	for (int i = 0; i < 8; i++)
		SUPPORT_CHECK(
			support_join(support_fork(ask_and_die, NULL), WAIT_MS) == 128 + SIGKILL);
	open_session(&fd);
	release(fd, create(fd, 4096, 1), NULL);
	close(fd);
	SUPPORT_CHECK(support_daemon("keymgrd") == keymgrd);
}

/* What works is not given up: otherwise one region could take the pool device by device. */
static void test_a_healthy_device_is_not_replaced(void)
{
	struct msg request = {.type = MSG_REGION_REPLACE};
	struct msg_extents before, after;
	uint64_t region;
	int fd;

	open_session(&fd);
	region = create(fd, 4 * MIB, 1);
	SUPPORT_OK(extents(fd, region, &before));
	request.u.region_replace.region = region;
	request.u.region_replace.slot = before.slot[0];
	SUPPORT_CHECK(support_ask(fd, &request, MSG_REPLY, &request, NULL) == SECPOOL_E_BUSY);
	SUPPORT_OK(extents(fd, region, &after));
	SUPPORT_CHECK(memcmp(&before, &after, sizeof after) == 0);
	release(fd, region, NULL);
	close(fd);
}

static void test_silence_ends_a_connection(void)
{
	uint64_t begun = clock_now_ns();
	struct msg msg;
	int fd, talking;

	SUPPORT_OK(sock_connect(support_path("keymgr.sock"), &fd));
	SUPPORT_OK(sock_connect_as(support_path("keymgr.sock"), MSG_ROLE_CLIENT, &talking));
	SUPPORT_OK(sock_receive(fd, &msg, NULL, begun + 10 * CLOCK_NS_PER_S));
	SUPPORT_CHECK(msg.type == MSG_REPLY && msg.u.reply.error == SECPOOL_E_TIMEOUT);
	SUPPORT_CHECK(clock_now_ns() - begun > 4 * CLOCK_NS_PER_S);
	SUPPORT_CHECK(
		sock_receive(fd, &msg, NULL, begun + 12 * CLOCK_NS_PER_S) == SECPOOL_E_DAEMON_GONE);
	SUPPORT_CHECK(sock_receive(talking, &msg, NULL, 0) == SECPOOL_E_NO_EVENT);
	close(fd);
	close(talking);
}

static bool keymgrd_is_gone(void *arg)
{
	(void)arg;
	return support_daemon("keymgrd") == 0;
}

/* Nothing is served without the enclave, which is the only child of the front's guardian. */
static void test_the_enclaves_end_is_the_daemons(void)
{
	struct sock_peer peer;
	int fd;

	SUPPORT_OK(sock_connect(support_path("keymgr.sock"), &fd));
	SUPPORT_OK(sock_peer(fd, &peer));
	close(fd);
	SUPPORT_CHECK(peer.pid != support_daemon("keymgrd"));
	SUPPORT_CHECK(kill(peer.pid, SIGKILL) == 0);
	SUPPORT_CHECK(support_wait(keymgrd_is_gone, NULL, WAIT_MS));
}

int main(void)
{
	support_up(2, "64M", NULL);
	test_life_of_a_region();
	test_a_dead_client_is_released();
	test_kill_and_resume();
	test_a_reader_that_does_not_read();
	test_a_healthy_device_is_not_replaced();
	test_silence_ends_a_connection();
	test_a_second_daemon_is_refused();
	test_clients_that_get_no_key();
	test_a_pull_without_hotplugd();
	test_the_enclaves_end_is_the_daemons();
	support_down();
	return 0;
}
