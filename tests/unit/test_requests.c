/* SPDX-License-Identifier: Apache-2.0 */
/* The enclave's table of requests: every message in every state, with and without the descriptors it needs, and what each answers when it is empty. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "enclave/requests.h"
#include "enclave/secmem.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/base/os.h"
#include "tests/unit/page_fixture.h"

static const char policy_text[] =
	"version: 1\n"
	"tenants:\n"
	"  - name: mine\n    users: [\"%self\"]\n"
	"    quota: {bytes: 1G, regions: 64, sessions: 64, local_bytes: 64M}\n"
	"devices: {enrol: first-use, max_age_seconds: 60, firmware: [good]}\n";

/* What the table must say, written a second time: requests that are served, with their descriptors. */
static const struct {
	uint32_t type;
	unsigned fds;
} served[] = {
	{MSG_ENC_SESSION_OPEN, 1},
	{MSG_ENC_SESSION_CLOSE, 0},
	{MSG_ENC_KEY_CREATE, 0},
	{MSG_ENC_KEYS_SEND, 0},
	{MSG_ENC_KEY_DESTROY, 0},
	{MSG_ENC_KEY_SEAL, 0},
	{MSG_ENC_KEY_GRANT, 0},
	{MSG_ENC_KEY_REVOKE, 0},
	{MSG_ENC_KEY_ATTACH, 0},
	{MSG_ATTEST_BEGIN, 0},
	{MSG_ATTEST_EVIDENCE, 0},
	{MSG_ENC_DEVICE_CHECK, 0},
	{MSG_ENC_DEVICE_VOID, 0},
	{MSG_ENC_DEVICE_ENROL, 0},
	{MSG_ENC_DEVICE_KNOWN, 0},
	{MSG_ENC_RECEIPT, 0},
	{MSG_ENC_LEAF_CLAIM, 0},
	{MSG_ENC_LEAF_DROP, 0},
	{MSG_ENC_ANCHOR_SEAL, 1},
	{MSG_ENC_ANCHOR_END, 0},
	{MSG_ENC_AUDIT_NOTE, 0},
	{MSG_ENC_AUDIT_ANCHOR, 0},
	{MSG_ENC_STATUS, 0},
	{MSG_ENC_STOP, 0},
};

static const uint32_t all_types[] = {
#define MESSAGE(number, NAME, name, fields) number,
#include "lib/wire/msg.def"
#undef MESSAGE
};

static struct requests requests;
static struct policy *policy;

static bool no_slot(void *arg, uint32_t slot, uint8_t bytes[KEYFILE_SLOT_BYTES])
{
	(void)arg;
	(void)slot;
	(void)bytes;
	return false;
}

/* The front's part of the audit: the last record, whether the disk was waited for since, or a refusal of each. */
static char last_record[AUDIT_LINE_BYTES];
static bool audit_full, on_disk, sync_fails;

static enum secpool_error sink(void *arg, const char *line, bool wait)
{
	(void)arg;
	if (audit_full && line[0])
		return err_set(SECPOOL_E_NO_SPACE, "the disk is full");
	if (wait && sync_fails)
		return err_set(SECPOOL_E_STORE, "the disk is broken");
	on_disk = wait;
	if (line[0])
		snprintf(last_record, sizeof last_record, "%s", line);
	return SECPOOL_OK;
}

static int set_up(void **state)
{
	uint8_t *root = secmem_new(WRAP_KEY_BYTES), record[KEYFILE_NODE_BYTES];
	uint8_t scalar[RECEIPT_KEY_BYTES];

	(void)state;
	memset(&requests, 0, sizeof requests);
	memset(scalar, 0x33, sizeof scalar);
	assert_int_equal(receipt_signer_init(&requests.keys.signer, scalar), SECPOOL_OK);
	audit_init(&requests.audit, &requests.keys.signer);
	requests.audit.sink = sink;
	audit_full = sync_fails = false;
	os_random(root, WRAP_KEY_BYTES);
	if (keytree_new(&requests.tree, &root, no_slot, NULL, record))
		return 1;
	vault_init(&requests.vault, &requests.tree);
	sessions_init(&requests.sessions, 4);
	requests.verifier.socket = -1;
	requests.policy = policy;
	requests.state = REQUESTS_SERVING;
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	requests_drop_held(&requests);
	sessions_done(&requests.sessions);
	vault_done(&requests.vault);
	keytree_done(&requests.tree);
	receipt_signer_done(&requests.keys.signer);
	return 0;
}

static bool is_served(uint32_t type, unsigned *ret_fds)
{
	for (size_t i = 0; i < sizeof served / sizeof *served; i++) {
		if (served[i].type == type) {
			*ret_fds = served[i].fds;
			return true;
		}
	}
	return false;
}

static bool is_open(int fd)
{
	int copy = dup(fd);

	if (copy >= 0)
		close(copy);
	return copy >= 0;
}

/* Serves an empty message of this type with so many descriptors; they are closed afterwards unless a session took them. */
static bool serve(uint32_t type, unsigned fds, struct msg *answer)
{
	struct msg request = {.type = type, .number = 77};
	struct sock_extra extra = {.fd_count = 0};
	int kept[MSG_FDS_MAX];

	for (unsigned i = 0; i < fds; i++) {
		kept[i] = memfd_create("passed", MFD_CLOEXEC);
		extra.fds[extra.fd_count++] = kept[i];
	}
	bool go_on = requests_serve(&requests, &request, &extra, answer);
	for (unsigned i = 0; i < fds; i++)
		assert_false(is_open(kept[i]));
	assert_int_equal(answer->number, 77);
	return go_on;
}

static void expect_not_allowed(uint32_t type, unsigned fds)
{
	enum requests_state before = requests.state;
	struct msg answer;

	assert_false(serve(type, fds, &answer));
	assert_int_equal(answer.type, MSG_REPLY);
	assert_int_equal(answer.u.reply.error, SECPOOL_E_PROTOCOL);
	assert_non_null(strstr(answer.u.reply.detail, msg_name(type)));
	assert_int_equal(requests.state, before);
}

static void every_request_in_every_state(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof all_types / sizeof *all_types; i++) {
		for (int at = 0; at < REQUESTS_STATES; at++) {
			uint32_t type = all_types[i];
			unsigned fds = 0;
			struct msg answer;
			bool allowed = is_served(type, &fds) && at == REQUESTS_SERVING;

			requests.state = (enum requests_state)at;
			assert_int_equal(requests_allowed(type, requests.state), allowed);
			if (!allowed) {
				expect_not_allowed(type, fds);
				continue;
			}
			assert_int_equal(requests_fds(type), fds);
			expect_not_allowed(type, fds + 1);
			if (fds > 0)
				expect_not_allowed(type, fds - 1);
			assert_int_equal(serve(type, fds, &answer), type != MSG_ENC_STOP);
			assert_int_equal(requests.state,
				type == MSG_ENC_STOP ? REQUESTS_STOPPING : REQUESTS_SERVING);
		}
	}
	assert_false(requests_allowed(9999, REQUESTS_SERVING));
	assert_false(requests_allowed(MSG_ENC_STATUS, REQUESTS_STATES));
	assert_int_equal(requests_fds(9999), 0);
	assert_int_equal(requests.sessions.count, 0);
	assert_int_equal(requests.vault.handouts.count, 0);
}

/* docs/wire.md shows the table: a row for each request that it has, and none for another. */
static void page_shows_the_table(void **state)
{
	static const char *const words[] = {"ends", "served"};
	char row[128], *page;
	size_t bytes;

	(void)state;
	page = page_read("docs/wire.md", &bytes);
	for (size_t i = 0; i < sizeof all_types / sizeof *all_types; i++) {
		uint32_t type = all_types[i];
		bool any = false;
		for (int at = 0; at < REQUESTS_STATES; at++)
			any = any || requests_allowed(type, (enum requests_state)at);
		snprintf(row, sizeof row, "\n| %s | %u | %s | %s | %s |\n", msg_name(type),
			requests_fds(type), words[requests_allowed(type, REQUESTS_STARTING)],
			words[requests_allowed(type, REQUESTS_SERVING)],
			words[requests_allowed(type, REQUESTS_STOPPING)]);
		if ((strstr(page, row) != NULL) != any)
			fail_msg("docs/wire.md %s this row:%s", any ? "lacks" : "has", row);
	}
	free(page);
}

/* The error that an empty request gives: nothing in it may be taken for good. */
static void empty_requests(void **state)
{
	static const struct {
		uint32_t type;
		enum secpool_error error;
	} wanted[] = {
		{MSG_ENC_SESSION_OPEN, SECPOOL_E_SYSTEM}, /* a memfd is no socket */
		{MSG_ENC_SESSION_CLOSE, SECPOOL_E_SESSION_EXPIRED},
		{MSG_ENC_KEY_CREATE, SECPOOL_E_SESSION_EXPIRED},
		{MSG_ENC_KEY_DESTROY, SECPOOL_E_INVALID},
		{MSG_ENC_KEY_SEAL, SECPOOL_E_SESSION_EXPIRED},
		{MSG_ENC_KEY_GRANT, SECPOOL_E_SESSION_EXPIRED},
		{MSG_ENC_KEY_REVOKE, SECPOOL_E_SESSION_EXPIRED},
		{MSG_ENC_KEY_ATTACH, SECPOOL_E_SESSION_EXPIRED},
		{MSG_ATTEST_BEGIN, SECPOOL_E_ATTESTATION},
		{MSG_ENC_DEVICE_VOID, SECPOOL_OK},
		{MSG_ENC_DEVICE_ENROL, SECPOOL_E_NOT_FOUND},
		{MSG_ENC_DEVICE_KNOWN, SECPOOL_E_INVALID},
		{MSG_ENC_RECEIPT, SECPOOL_E_INVALID},
		{MSG_ENC_LEAF_DROP, SECPOOL_OK},
		{MSG_ENC_ANCHOR_SEAL, SECPOOL_E_INVALID},
		{MSG_ENC_ANCHOR_END, SECPOOL_OK},
		{MSG_ENC_AUDIT_NOTE, SECPOOL_E_INVALID},
	};
	struct msg answer;

	(void)state;
	for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
		assert_true(serve(wanted[i].type, requests_fds(wanted[i].type), &answer));
		assert_int_equal(answer.type, MSG_REPLY);
		assert_int_equal(answer.u.reply.error, wanted[i].error);
	}
	assert_true(serve(MSG_ATTEST_EVIDENCE, 0, &answer));
	assert_int_equal(answer.type, MSG_ATTEST_VERDICT);
	assert_int_equal(answer.u.attest_verdict.error, SECPOOL_E_ATTESTATION);
	assert_true(serve(MSG_ENC_DEVICE_CHECK, 0, &answer));
	assert_int_equal(answer.type, MSG_ATTEST_VERDICT);
	assert_int_equal(answer.u.attest_verdict.error, SECPOOL_E_NOT_ATTESTED);
	assert_true(serve(MSG_ENC_KEYS_SEND, 0, &answer));
	assert_int_equal(answer.type, MSG_ENC_KEYS_SENT);
	assert_true(serve(MSG_ENC_STATUS, 0, &answer));
	assert_int_equal(answer.type, MSG_ENC_STATUS_REPLY);
}

/* *ret_client: the client's end; NULL: it is closed. */
static enum secpool_error open_client(const char *tenant, struct msg *answer, int *ret_client)
{
	struct msg request = {.type = MSG_ENC_SESSION_OPEN};
	struct sock_extra extra = {.fd_count = 1};
	int ends[2];

	assert_int_equal(sock_pair(ends), SECPOOL_OK);
	extra.fds[0] = ends[0];
	MSG_SET(request.u.enc_session_open.tenant, tenant);
	assert_true(requests_serve(&requests, &request, &extra, answer));
	if (ret_client)
		*ret_client = ends[1];
	else
		os_close(&ends[1]);
	return answer->type == MSG_REPLY ? answer->u.reply.error : SECPOOL_OK;
}

static enum secpool_error open_session(const char *tenant, struct msg *answer)
{
	return open_client(tenant, answer, NULL);
}

/* A request for a key of region 3 in this session, on a device that has proved itself. */
static struct msg request_key(const struct msg *opened)
{
	struct msg request = {.type = MSG_ENC_KEY_CREATE};
	struct msg_enc_key_create *create = &request.u.enc_key_create;
	uint8_t ek_name[QUOTE_NAME_BYTES] = {1};
	const struct verdicts_proof proof = {
		.id = "d0", .ek_name = ek_name, .serial = "S", .resets = 1};

	assert_int_equal(
		verdicts_accept(&requests.verdicts, &proof, clock_now_ns() + CLOCK_NS_PER_S * 60),
		SECPOOL_OK);
	create->session = opened->u.enc_session_opened.session;
	create->region = 3;
	create->epoch = 1;
	create->page_bytes = 4096;
	create->device_count = 1;
	memcpy(create->devices, "d0", sizeof "d0");
	memcpy(create->devices + MSG_NAME_BYTES, "d1", sizeof "d1");
	return request;
}

static const struct msg *ask(const struct msg *request)
{
	static struct msg answer;
	struct sock_extra none = {.fd_count = 0};

	assert_true(requests_serve(&requests, request, &none, &answer));
	return &answer;
}

static void destroy_key(uint64_t region, uint64_t epoch)
{
	struct msg request = {.type = MSG_ENC_KEY_DESTROY};

	request.u.enc_key_destroy.region = region;
	request.u.enc_key_destroy.epoch = epoch;
	assert_int_equal(ask(&request)->type, MSG_ENC_KEY_DESTROYED);
}

/* The error for the one key, or of the whole request. */
static uint64_t send_one(uint64_t region, uint64_t epoch)
{
	struct msg request = {.type = MSG_ENC_KEYS_SEND};
	const struct msg *answer;

	request.u.enc_keys_send.count = 1;
	request.u.enc_keys_send.regions[0] = region;
	request.u.enc_keys_send.epochs[0] = epoch;
	answer = ask(&request);
	return answer->type == MSG_REPLY ? answer->u.reply.error
					 : answer->u.enc_keys_sent.errors[0];
}

static void expect_recorded(const char *words)
{
	if (!strstr(last_record, words))
		fail_msg("no '%s' in %s", words, last_record);
}

static void sessions_and_keys(void **state)
{
	struct msg opened, request;
	const struct msg *answer;

	(void)state;
	assert_int_equal(open_session("other", &opened), SECPOOL_E_UNKNOWN_TENANT);
	assert_int_equal(requests.sessions.count, 0);
	assert_int_equal(open_session("mine", &opened), SECPOOL_OK);
	assert_int_equal(opened.u.enc_session_opened.uid, getuid());
	assert_int_equal(opened.u.enc_session_opened.pid, getpid());
	request = request_key(&opened);
	for (uint32_t count = 0; count <= MSG_LANES_MAX + 1; count++) {
		request.u.enc_key_create.device_count = count;
		if (count != 1)
			assert_int_equal(ask(&request)->u.reply.error,
				count == 0 || count > MSG_LANES_MAX ? SECPOOL_E_INVALID
								    : SECPOOL_E_NOT_ATTESTED);
	}
	request.u.enc_key_create.device_count = 1;
	/* without its record no key is left behind, nor a node */
	audit_full = true;
	answer = ask(&request);
	assert_int_equal(answer->type, MSG_REPLY);
	assert_int_equal(answer->u.reply.error, SECPOOL_E_NO_SPACE);
	assert_int_equal(requests.vault.handouts.count + requests.held_count, 0);
	assert_int_equal(requests.tree.leaves, 0);
	assert_int_equal(requests.tree.tenant_count, 0);
	assert_false(keytree_dirty(&requests.tree));
	audit_full = false;
	/* the client is gone: its key is held until the front ends it, which can't be refused */
	assert_int_equal(ask(&request)->type, MSG_ENC_KEY_WRAPPED);
	assert_int_equal(send_one(3, 1), SECPOOL_E_CLOSED);
	assert_int_equal(requests.held_count, 1);
	audit_full = true;
	destroy_key(3, 0);
	assert_int_equal(requests.vault.handouts.count + requests.held_count, 0);
	assert_int_equal(requests.tree.leaves, 0);
	assert_true(keytree_dirty(&requests.tree));
	audit_full = false;
	/* while a new generation is under way nothing changes */
	requests.keys.anchor.pending = true;
	assert_int_equal(ask(&request)->u.reply.error, SECPOOL_E_BUSY);
	assert_int_equal(send_one(3, 1), SECPOOL_E_BUSY);
	requests.keys.anchor.pending = false;
}

/* A key goes to its client when its record is on disk, and not before; many may wait for that together, and no more than are held. */
static void keys_are_held_until_recorded(void **state)
{
	struct msg opened, request, key;
	struct sock_extra extra = {.fd_count = 0};
	int client = -1;

	(void)state;
	assert_int_equal(open_client("mine", &opened, &client), SECPOOL_OK);
	request = request_key(&opened);
	assert_int_equal(ask(&request)->type, MSG_ENC_KEY_WRAPPED);
	expect_recorded("\"kind\":\"key-created\"");
	assert_false(on_disk);
	assert_int_equal(sock_receive(client, &key, &extra, 0), SECPOOL_E_NO_EVENT);
	sync_fails = true;
	assert_int_equal(send_one(3, 1), SECPOOL_E_STORE);
	assert_int_equal(sock_receive(client, &key, &extra, 0), SECPOOL_E_NO_EVENT);
	sync_fails = false;
	assert_int_equal(send_one(3, 2), SECPOOL_E_INVALID);
	assert_int_equal(send_one(3, 0), SECPOOL_E_INVALID);
	assert_int_equal(send_one(4, 1), SECPOOL_E_INVALID);
	assert_int_equal(send_one(3, 1), SECPOOL_OK);
	assert_true(on_disk);
	assert_int_equal(sock_receive(client, &key, &extra, 0), SECPOOL_OK);
	assert_true(key.type == MSG_REGION_KEY && key.u.region_key.region == 3);
	assert_int_equal(extra.fd_count, 1);
	sock_close_fds(&extra);
	/* once */
	assert_int_equal(send_one(3, 1), SECPOOL_E_INVALID);
	for (uint64_t i = 0; i < MSG_KEYS_MAX; i++) {
		request.u.enc_key_create.region = 100 + i;
		assert_int_equal(ask(&request)->type, MSG_ENC_KEY_WRAPPED);
	}
	request.u.enc_key_create.region = 99;
	assert_int_equal(ask(&request)->u.reply.error, SECPOOL_E_LIMIT);
	/* of a region with a key that was handed out and one that is held, each has its own record */
	destroy_key(100, 0);
	request.u.enc_key_create.region = 3;
	request.u.enc_key_create.epoch = 2;
	assert_int_equal(ask(&request)->type, MSG_ENC_KEY_WRAPPED);
	destroy_key(3, 0);
	expect_recorded("\"kind\":\"key-destroyed\",\"region\":3,\"generation\":1}");
	assert_false(vault_has_region(&requests.vault, 3));
	/* a session that is closed gets none */
	assert_int_equal(
		sessions_close(&requests.sessions, request.u.enc_key_create.session), SECPOOL_OK);
	assert_int_equal(send_one(101, 1), SECPOOL_E_SESSION_EXPIRED);
	os_close(&client);
}

/* What is destroyed, also a region of an earlier run, becomes durable with the next generation. */
static void destruction_has_its_generation(void **state)
{
	struct msg answer, request = {.type = MSG_ENC_KEY_DESTROY};
	struct sock_extra none = {.fd_count = 0};
	uint64_t before = clock_calendar_ns();

	(void)state;
	for (uint64_t i = 1; i < 4; i++) {
		requests.keys.anchor.generation = i;
		request.u.enc_key_destroy.region = 40 + i;
		assert_true(requests_serve(&requests, &request, &none, &answer));
		assert_int_equal(answer.type, MSG_ENC_KEY_DESTROYED);
		assert_int_equal(answer.u.enc_key_destroyed.generation, i + 1);
		assert_int_equal(answer.u.enc_key_destroyed.region, 40 + i);
		assert_true(answer.u.enc_key_destroyed.destroyed_ns >= before);
	}
}

/* Where a record can't be kept nothing is done; what can't be refused is counted in the next record. */
static void nothing_without_its_record(void **state)
{
	struct msg answer, destroy = {.type = MSG_ENC_KEY_DESTROY},
			   receipt = {.type = MSG_ENC_RECEIPT}, note = {.type = MSG_ENC_AUDIT_NOTE};
	struct sock_extra none = {.fd_count = 0};

	(void)state;
	destroy.u.enc_key_destroy.region = 5;
	MSG_SET(receipt.u.enc_receipt.tenant, "mine");
	receipt.u.enc_receipt.readback = MSG_READBACK_MATCHED;
	receipt.u.enc_receipt.client = MSG_CLIENT_DEAD;
	note.u.enc_audit_note.kind = MSG_NOTE_ROTATION_ASKED;
	audit_full = true;
	assert_int_equal(open_session("mine", &answer), SECPOOL_E_NO_SPACE);
	assert_non_null(strstr(answer.u.reply.detail, "audit record can't be kept"));
	assert_int_equal(requests.sessions.count, 0);
	assert_true(requests_serve(&requests, &destroy, &none, &answer));
	assert_int_equal(answer.u.reply.error, SECPOOL_E_NO_SPACE);
	assert_int_equal(requests.tree.dropped, 0);
	assert_true(requests_serve(&requests, &receipt, &none, &answer));
	assert_int_equal(answer.type, MSG_REPLY);
	assert_int_equal(answer.u.reply.error, SECPOOL_E_NO_SPACE);
	assert_string_equal(
		answer.u.reply.detail + strlen(answer.u.reply.detail) - 16, "the disk is full");
	assert_true(requests_serve(&requests, &note, &none, &answer));
	assert_int_equal(answer.u.reply.error, SECPOOL_E_NO_SPACE);
	assert_int_equal(requests.audit.count, 0);
	audit_full = false;
	assert_int_equal(open_session("mine", &answer), SECPOOL_OK);
	expect_recorded("\"number\":1,");
	expect_recorded("\"kind\":\"session-opened\",\"missed\":4,\"tenant\":\"mine\"");
	assert_int_equal(requests.sessions.count, 1);
}

static void each_has_its_record(void **state)
{
	struct msg answer, destroy = {.type = MSG_ENC_KEY_DESTROY},
			   device = {.type = MSG_ENC_DEVICE_VOID};
	struct sock_extra none = {.fd_count = 0};

	(void)state;
	assert_int_equal(open_session("other", &answer), SECPOOL_E_UNKNOWN_TENANT);
	expect_recorded("\"kind\":\"refused\",\"tenant\":\"other\"");
	expect_recorded("\"error\":\"SECPOOL_E_UNKNOWN_TENANT\"");
	destroy.u.enc_key_destroy.region = 5;
	assert_true(requests_serve(&requests, &destroy, &none, &answer));
	expect_recorded("\"kind\":\"key-destroyed\",\"region\":5,\"generation\":1}");
	MSG_SET(device.u.enc_device_void.id, "d\"0");
	assert_true(requests_serve(&requests, &device, &none, &answer));
	expect_recorded("\"kind\":\"device-void\",\"device\":\"d\\\"0\"}");
	assert_true(serve(MSG_ATTEST_EVIDENCE, 0, &answer));
	expect_recorded("\"kind\":\"attestation-refused\",\"error\":\"SECPOOL_E_ATTESTATION\"");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(every_request_in_every_state, set_up, tear_down),
		cmocka_unit_test(page_shows_the_table),
		cmocka_unit_test_setup_teardown(empty_requests, set_up, tear_down),
		cmocka_unit_test_setup_teardown(sessions_and_keys, set_up, tear_down),
		cmocka_unit_test_setup_teardown(keys_are_held_until_recorded, set_up, tear_down),
		cmocka_unit_test_setup_teardown(destruction_has_its_generation, set_up, tear_down),
		cmocka_unit_test_setup_teardown(nothing_without_its_record, set_up, tear_down),
		cmocka_unit_test_setup_teardown(each_has_its_record, set_up, tear_down),
	};
	int status;

	log_init("test_requests", (enum log_level)0); /* 150 refusals are wanted here */
	if (secmem_init(SECMEM_ALLOW_LOCKED) ||
		policy_load_text(policy_text, sizeof policy_text - 1, "test.yaml", &policy)) {
		fprintf(stderr, "test_requests: %s\n", err_detail());
		return 1;
	}
	status = cmocka_run_group_tests(tests, NULL, NULL);
	policy_free(policy);
	return status;
}
