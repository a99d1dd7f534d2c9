/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libFuzzer: a hostile peer of keymgrd. The input is a role and a series of messages whose bodies it chooses, or raw packets; the
 * front must answer or refuse each and go on. A thread opens sessions and makes keys in the enclave's place and refuses all else. The peer's process has a live region, of number 1.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "keymgr/anchor.h"
#include "keymgr/creates.h"
#include "keymgr/devices.h"
#include "keymgr/directory.h"
#include "keymgr/events.h"
#include "keymgr/owners.h"
#include "keymgr/releases.h"
#include "keymgr/seals.h"
#include "keymgr/session.h"
#include "keymgr/wraps.h"
#include "lib/base/clock.h"
#include "lib/base/os.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

static const char policy_text[] =
	"version: 1\n"
	"tenants:\n"
	"  - name: t\n"
	"    users: [\"%self\"]\n"
	"    quota: {bytes: 1G, regions: 4, sessions: 2, local_bytes: 64M}\n"
	"devices:\n"
	"  enrol: first-use\n"
	"  firmware: [secpool-emulated-1.0]\n";

static struct daemon front;
static int enclave_end = -1;
static char path[96];
static struct os_process self;

static void require(bool holds)
{
	if (!holds)
		abort();
}

static void *answer_all(void *arg)
{
	struct sock_extra extra;
	struct msg request;
	uint64_t slot = 0;

	for (;;) {
		struct msg answer = {.type = MSG_REPLY};
		struct msg_enc_session_opened *opened = &answer.u.enc_session_opened;

		require(sock_receive(enclave_end, &request, &extra, UINT64_MAX) == SECPOOL_OK);
		answer.number = request.number;
		if (request.type == MSG_ENC_SESSION_OPEN) {
			answer.type = MSG_ENC_SESSION_OPENED;
			opened->session = 7;
			opened->uid = getuid();
			opened->pid = (uint32_t)getpid();
		} else if (request.type == MSG_ENC_LEAF_CLAIM) {
			answer.type = MSG_ENC_LEAVES;
		} else if (request.type == MSG_ENC_KEY_DESTROY) {
			answer.type = MSG_ENC_KEY_DESTROYED;
		} else if (request.type == MSG_ENC_KEYS_SEND) {
			answer.type = MSG_ENC_KEYS_SENT;
		} else if (request.type == MSG_ENC_KEY_CREATE) {
			answer.type = MSG_ENC_KEY_WRAPPED;
			answer.u.enc_key_wrapped.region = request.u.enc_key_create.region;
			answer.u.enc_key_wrapped.epoch = request.u.enc_key_create.epoch;
			answer.u.enc_key_wrapped.wrapped_bytes = 40;
			answer.u.enc_key_wrapped.slot = slot++ % KEYFILE_SLOTS_MOST + 1;
		} else if (request.type != MSG_ENC_SESSION_CLOSE &&
			   request.type != MSG_ENC_LEAF_DROP &&
			   request.type != MSG_ENC_AUDIT_NOTE) {
			answer.u.reply.error = SECPOOL_E_UNSUPPORTED;
		}
		sock_close_fds(&extra);
		require(sock_send(enclave_end, &answer, NULL, 0, UINT64_MAX) == SECPOOL_OK);
	}
	return arg;
}

static char folder[64] = "/tmp/secpool-fuzz-client-XXXXXX";

static void clean_up(void)
{
	(void)!os_remove_tree(folder);
}

static void start(void)
{
	int pair[2];
	pthread_t thread;
	struct policy *policy = NULL;
	int listener = -1;

	require(sock_pair(pair) == SECPOOL_OK);
	enclave_end = pair[1];
	require(pthread_create(&thread, NULL, answer_all, NULL) == 0);
	front = (struct daemon){.enclave = pair[0], .faultfd = -1, .start_ns = clock_now_ns()};
	require(mkdtemp(folder) && sd_event_new(&front.loop) >= 0);
	atexit(clean_up);
	snprintf(path, sizeof path, "%s/directory.db", folder);
	require(directory_open(path, &front.directory) == SECPOOL_OK);
	require(wraps_open(folder, front.directory, &front.wraps) == SECPOOL_OK);
	require(os_process_find(getpid(), &self) == SECPOOL_OK);
	require(policy_load_text(policy_text, strlen(policy_text), "fuzz", &policy) == SECPOOL_OK);
	front.policy = policy;
	require(events_new(&front, &front.events) == SECPOOL_OK);
	require(session_new_table(&front.sessions) == SECPOOL_OK);
	require(owners_new(&front.owners) == SECPOOL_OK);
	require(devices_new(&front, &front.devices) == SECPOOL_OK);
	require(anchor_new(&front, folder, &front.anchor) == SECPOOL_OK);
	require(releases_new(&front, &front.releases) == SECPOOL_OK);
	require(seals_new(&front, folder, &front.seals) == SECPOOL_OK);
	require(creates_new(&front, &front.creates) == SECPOOL_OK);
	snprintf(path, sizeof path, "%s/s", folder);
	require(sock_listen(path, 0600, &listener) == SECPOOL_OK);
	require(server_new(&front, listener, &front.server) == SECPOOL_OK);
}

static void run(void)
{
	while (sd_event_run(front.loop, 0) > 0)
		;
}

/* The region as it was, whatever the input before did to it. */
static void put_region(void)
{
	require(directory_run(front.directory,
			"INSERT OR REPLACE INTO regions (id, tenant, uid, pid, start_ticks, "
			"address,"
			" bytes, page_bytes, data, lanes, on_loss, name, state, epoch)"
			" VALUES (1, 't', ?1, ?2, ?3, 4096, 4096, 4096, 1, 1, 1, '', ?4, 1)",
			DIRECTORY_VALUES(DIRECTORY_N(getuid()), DIRECTORY_N(self.pid),
				DIRECTORY_N(self.start_ticks), DIRECTORY_N(MSG_REGION_LIVE))) ==
		SECPOOL_OK);
}

/* Says hello in the role that the input chooses, and opens a session as a client: as a good peer would. */
static void begin(int fd, uint8_t role)
{
	struct msg msg = {.type = MSG_HELLO, .number = 1};

	if (role == 0)
		return;
	msg.u.hello.version = MSG_VERSION;
	msg.u.hello.role = role;
	require(sock_send(fd, &msg, NULL, 0, 0) == SECPOOL_OK);
	run();
	if (role != MSG_ROLE_CLIENT)
		return;
	msg = (struct msg){.type = MSG_SESSION_OPEN, .number = 2};
	MSG_SET(msg.u.session_open.tenant, "t");
	require(sock_send(fd, &msg, NULL, 0, 0) == SECPOOL_OK);
	run();
	require(session_count(front.sessions, "t") == 1);
}

/* A packet of this type with the right length, its body from the input. */
static size_t shape(uint8_t type, const uint8_t *body, size_t count, uint8_t *packet)
{
	struct msg msg = {.type = type, .number = 1};
	size_t whole = 0;

	if (msg_encode(&msg, packet, MSG_BYTES_MAX, &whole) != SECPOOL_OK)
		return 0;
	memcpy(packet + 12, body, count < whole - 12 ? count : whole - 12);
	return whole;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
	uint8_t packet[MSG_BYTES_MAX];
	size_t at = 1;
	int fd = -1;

	if (count < 1)
		return 0;
	if (!front.loop)
		start();
	put_region();
	require(sock_connect(path, &fd) == SECPOOL_OK);
	run();
	require(server_count(front.server) == 1);
	begin(fd, bytes[0] % 4);
	while (at + 2 <= count) {
		size_t length = bytes[at + 1], whole;
		uint8_t type = bytes[at];

		at += 2;
		length = length < count - at ? length : count - at;
		whole = shape(type, bytes + at, length, packet);
		if (whole > 0)
			(void)!send(fd, packet, whole, MSG_NOSIGNAL | MSG_DONTWAIT);
		else if (length > 0)
			(void)!send(fd, bytes + at, length, MSG_NOSIGNAL | MSG_DONTWAIT);
		at += length;
		run();
	}
	close(fd);
	run();
	require(server_count(front.server) == 0);
	require(session_count(front.sessions, NULL) == 0);
	return 0;
}
