/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libFuzzer: a hostile front at the enclave's socket. The input is a series of messages whose bodies it chooses, with or without a descriptor. A session is open and two devices have fresh evidence, so that keys can be
 * made. Each must be answered, with a refusal or with what was asked for; what does not belong to the table ends the enclave; and the counts hold at the end.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "enclave/requests.h"
#include "enclave/secmem.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/base/os.h"
#include "tests/unit/audit_sink.h"

enum { HEAD_BYTES = 12, SESSIONS = 4, LIFE_S = 3600, SENT = 15 };

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

static const char policy_text[] =
	"version: 1\n"
	"tenants:\n"
	"  - name: t\n    users: [\"%self\"]\n"
	"    quota: {bytes: 1G, regions: 64, sessions: 64, local_bytes: 64M}\n"
	"devices: {enrol: first-use, max_age_seconds: 3600, firmware: [good]}\n";

static struct requests requests;
static int client[2] = {-1, -1}; /* a client's connection: the enclave's end, the client's */

static void require(bool holds)
{
	if (!holds)
		abort();
}

static void start(void)
{
	uint8_t scalar[RECEIPT_KEY_BYTES];
	struct policy *policy = NULL;

	log_init("fuzz", LOG_LEVEL_ERROR);
	require(secmem_init(SECMEM_ALLOW_LOCKED) == SECPOOL_OK);
	require(policy_load_text(policy_text, sizeof policy_text - 1, "fuzz", &policy) ==
		SECPOOL_OK);
	memset(scalar, 0x33, sizeof scalar);
	require(receipt_signer_init(&requests.keys.signer, scalar) == SECPOOL_OK);
	requests.policy = policy;
	requests.verifier.socket = -1;
	require(sock_pair(client) == SECPOOL_OK);
}

/* No leaf is read again: none is renewed. */
static bool no_slot(void *arg, uint32_t slot, uint8_t bytes[KEYFILE_SLOT_BYTES])
{
	(void)arg;
	(void)slot;
	(void)bytes;
	return false;
}

/* As it is after a client's session was opened, and d0 and d1 attested. */
static void begin(void)
{
	uint8_t *root = secmem_new(WRAP_KEY_BYTES), ek[QUOTE_NAME_BYTES] = {1},
		record[KEYFILE_NODE_BYTES];
	struct msg request = {.type = MSG_ENC_SESSION_OPEN, .number = 1}, answer;
	struct sock_extra extra = {.fd_count = 1};

	require(root);
	os_random(root, WRAP_KEY_BYTES);
	require(keytree_new(&requests.tree, &root, no_slot, NULL, record) == SECPOOL_OK);
	audit_init(&requests.audit, &requests.keys.signer);
	requests.audit.sink = audit_keep_nowhere;
	vault_init(&requests.vault, &requests.tree);
	sessions_init(&requests.sessions, SESSIONS);
	memset(&requests.verdicts, 0, sizeof requests.verdicts);
	requests.state = REQUESTS_SERVING;
	for (char id[] = "d0"; id[1] < '2'; id[1]++) {
		const struct verdicts_proof proof = {.id = id, .serial = id, .ek_name = ek};

		ek[1] = (uint8_t)id[1];
		require(verdicts_accept(&requests.verdicts, &proof,
				clock_now_ns() + LIFE_S * CLOCK_NS_PER_S) == SECPOOL_OK);
	}
	MSG_SET(request.u.enc_session_open.tenant, "t");
	extra.fds[0] = dup(client[0]);
	require(requests_serve(&requests, &request, &extra, &answer));
	require(answer.type == MSG_ENC_SESSION_OPENED && answer.u.enc_session_opened.session != 0);
}

static void end(void)
{
	struct sock_extra extra = {.fd_count = 0};
	struct msg key;

	require(requests.sessions.count <= SESSIONS);
	require(requests.vault.handouts.regions <= requests.vault.handouts.count);
	requests_drop_held(&requests);
	sessions_done(&requests.sessions);
	vault_done(&requests.vault);
	keytree_done(&requests.tree);
	/* keys that were sent: each is a key for a region that was asked for, and nothing else came */
	while (sock_receive(client[1], &key, &extra, 0) == SECPOOL_OK) {
		require(key.type == MSG_REGION_KEY && extra.fd_count == 1);
		sock_close_fds(&extra);
	}
}

/* A message of this type with the right length, its body from the input; as it would come from the socket. False: there is no such type. */
static bool shape(uint8_t type, const uint8_t *body, size_t count, struct msg *ret_msg)
{
	uint8_t packet[MSG_BYTES_MAX];
	struct msg empty = {.type = type, .number = 1};
	size_t whole = 0;

	if (msg_encode(&empty, packet, sizeof packet, &whole) != SECPOOL_OK)
		return false;
	memcpy(packet + HEAD_BYTES, body, count < whole - HEAD_BYTES ? count : whole - HEAD_BYTES);
	if (msg_decode(packet, whole, ret_msg) != SECPOOL_OK)
		return false;
	/* the epochs lie beyond what a body of the input reaches */
	for (size_t i = 0; type == MSG_ENC_KEYS_SEND && i < SENT; i++)
		ret_msg->u.enc_keys_send.epochs[i] = ret_msg->u.enc_keys_send.regions[SENT + i];
	return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
	static struct msg request, answer;
	bool go_on = true;
	size_t at = 0;

	if (!requests.policy)
		start();
	begin();
	while (at + 3 <= count && go_on) {
		struct sock_extra extra = {.fd_count = bytes[at + 1] % 3};
		size_t length = bytes[at + 2];
		uint8_t type = bytes[at];

		at += 3;
		length = length < count - at ? length : count - at;
		if (shape(type, bytes + at, length, &request)) {
			for (unsigned i = 0; i < extra.fd_count; i++)
				extra.fds[i] = dup(client[0]);
			go_on = requests_serve(&requests, &request, &extra, &answer);
			require(answer.type != 0 && answer.number == request.number);
			require(extra.fd_count == 0);
			/* what is not in the table is refused, and is the end */
			require(requests_allowed(type, REQUESTS_SERVING) || !go_on);
		}
		at += length;
	}
	end();
	return 0;
}
