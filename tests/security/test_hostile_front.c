/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A front that was taken over, played against a real enclave over its socket: it holds every socket, every wrapped key and the state folder's files, and asks for what it should not have. Clients are processes of three
 * users. Two things must never happen, whatever it asks: a byte of a key reaches the front or the memory that it can see, or a key reaches another process than those of the session's tenant. timeout: 240
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <poll.h>

#include "enclave/keypage.h"
#include "enclave/secmem.h"
#include "tests/security/hostile.h"

static struct rig rig;
static struct rig_device device;

/* ---- keys of open sessions, and no others ---- */

/* A stored key is claimed as what it was wrapped as, and no answer to that has a key in it; what the front says of slots moves no key. */
static void leaves_are_claimed_by_their_labels(void **state)
{
	const struct hostile_user *theirs = hostile_user(0);
	struct msg opened, key, claim = {.type = MSG_ENC_LEAF_CLAIM},
				drop = {.type = MSG_ENC_LEAF_DROP};
	struct msg_enc_leaf_claim *in = &claim.u.enc_leaf_claim;
	uint64_t slot;

	(void)state;
	rig_ok(hostile_open(theirs, 0, "theirs", &opened), "theirs");
	rig_ok(hostile_key(&opened, 1, 1, &key), "a key");
	hostile_expect_keys(theirs, 1);
	slot = key.u.enc_key_wrapped.slot;
	const uint64_t wrong[][3] = {
		{slot, 1, 2}, {slot, 2, 1}, {slot + 1, 1, 1}, {0, 1, 1}, {UINT64_MAX, 1, 1}};
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		in->count = 1;
		in->slots[0] = wrong[i][0];
		in->regions[0] = wrong[i][1];
		in->epochs[0] = wrong[i][2];
		assert_int_not_equal(rig_ask(&rig, &claim, MSG_ENC_LEAVES, NULL), SECPOOL_OK);
	}
	in->count = MSG_LEAVES_MAX + 1;
	assert_int_equal(rig_ask(&rig, &claim, MSG_ENC_LEAVES, NULL), SECPOOL_E_INVALID);
	drop.u.enc_leaf_drop.count = MSG_LEAVES_MAX + 1;
	assert_int_equal(rig_ask(&rig, &drop, MSG_REPLY, NULL), SECPOOL_E_INVALID);
	drop.u.enc_leaf_drop.count = 1;
	drop.u.enc_leaf_drop.slots[0] = UINT64_MAX;
	assert_int_equal(rig_ask(&rig, &drop, MSG_REPLY, NULL), SECPOOL_E_INVALID);
	/* what was dropped is not made again for a claim, nor given to anybody */
	drop.u.enc_leaf_drop.slots[0] = slot;
	rig_ok(rig_ask(&rig, &drop, MSG_REPLY, NULL), "drop");
	in->count = 1;
	in->slots[0] = slot;
	in->regions[0] = in->epochs[0] = 1;
	assert_int_not_equal(rig_ask(&rig, &claim, MSG_ENC_LEAVES, NULL), SECPOOL_OK);
	hostile_expect_keys(theirs, 0);
	hostile_expect_keys(hostile_user(1), 0);
}

/* Every user's socket as every tenant: only the kernel's word counts. */
static void sockets_are_their_users(void **state)
{
	static const char *const tenants[] = {"mine", "theirs", "third", "nobody", ""};
	struct msg opened, again;

	(void)state;
	for (unsigned u = 0; u < HOSTILE_USERS; u++) {
		const struct hostile_user *user = hostile_user(u);
		for (unsigned t = 0; t < sizeof tenants / sizeof *tenants; t++) {
			bool may = user->tenant && strcmp(user->tenant, tenants[t]) == 0;
			enum secpool_error error =
				hostile_open(user, u % HOSTILE_SOCKETS, tenants[t], &opened);
			if (t >= 3)
				assert_int_equal(error, SECPOOL_E_UNKNOWN_TENANT);
			else
				assert_int_equal(error, may ? SECPOOL_OK : SECPOOL_E_DENIED);
		}
		if (!user->tenant)
			continue;
		/* one socket twice: two sessions, whose keys go to the one process */
		rig_ok(hostile_open(user, 0, user->tenant, &opened), "once");
		rig_ok(hostile_open(user, 0, user->tenant, &again), "twice");
		assert_int_not_equal(
			opened.u.enc_session_opened.session, again.u.enc_session_opened.session);
		rig_ok(hostile_key(&opened, 10 + 2 * u, 1, NULL), "its key");
		rig_ok(hostile_key(&again, 11 + 2 * u, 1, NULL), "and another");
		hostile_expect_keys(user, 2);
	}
}

/* What is no client's socket at all, and what the front could read at the other end. */
static void other_descriptors_are_no_clients(void **state)
{
	struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fds[7], ends[2], count = 0, tcp, peer;
	socklen_t bytes = sizeof any;

	(void)state;
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	fds[count++] = ends[0];
	fds[count++] = ends[1];
	fds[count++] = memfd_create("no socket", MFD_CLOEXEC);
	fds[count++] = open(rig.state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	peer = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(tcp, (struct sockaddr *)&any, sizeof any), 0);
	assert_int_equal(listen(tcp, 1), 0);
	assert_int_equal(getsockname(tcp, (struct sockaddr *)&any, &bytes), 0);
	assert_int_equal(connect(peer, (struct sockaddr *)&any, sizeof any), 0);
	fds[count++] = tcp;
	fds[count++] = peer;
	fds[count++] = socket(
		AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0); /* nobody's: the kernel names nobody */
	for (int i = 0; i < count; i++) {
		for (unsigned t = 0; t < 3; t++) {
			int copy = dup(fds[i]);
			struct msg opened;
			enum secpool_error error = rig_session(&rig,
				t == 0	 ? "mine"
				: t == 1 ? "theirs"
					 : "third",
				&copy, &opened);
			assert_int_not_equal(error, SECPOOL_OK);
		}
		os_close(&fds[i]);
	}
	/* sockets of the front's own: it is user %self, and no other */
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
	for (unsigned t = 1; t < 3; t++) {
		int copy = dup(ends[0]);
		struct msg opened;
		assert_int_equal(rig_session(&rig, t == 1 ? "theirs" : "third", &copy, &opened),
			SECPOOL_E_DENIED);
	}
	os_close(&ends[0]);
	os_close(&ends[1]);
}

/* Sessions that are closed, were never, or whose client went; handles near to good ones. */
static void only_open_sessions_get_keys(void **state)
{
	const struct hostile_user *theirs = hostile_user(0);
	struct msg opened, closed, close_it = {.type = MSG_ENC_SESSION_CLOSE};
	uint64_t handle;

	(void)state;
	rig_ok(hostile_open(theirs, 0, "theirs", &opened), "open");
	rig_ok(hostile_open(theirs, 1, "theirs", &closed), "open");
	close_it.u.enc_session_close.session = closed.u.enc_session_opened.session;
	rig_ok(rig_ask(&rig, &close_it, MSG_REPLY, NULL), "close");
	assert_int_equal(hostile_key(&closed, 30, 1, NULL), SECPOOL_E_SESSION_EXPIRED);
	/* another session in its place does not answer to the old handle */
	rig_ok(hostile_open(hostile_user(1), 0, "third", NULL), "third");
	assert_int_equal(hostile_key(&closed, 30, 1, NULL), SECPOOL_E_SESSION_EXPIRED);
	handle = opened.u.enc_session_opened.session;
	for (unsigned bit = 0; bit < 64; bit++) {
		if (bit < 2) /* the neighbours are open */
			continue;
		closed.u.enc_session_opened.session = handle ^ 1ull << bit;
		assert_int_equal(hostile_key(&closed, 31, 1, NULL), SECPOOL_E_SESSION_EXPIRED);
	}
	closed.u.enc_session_opened.session = 0;
	assert_int_equal(hostile_key(&closed, 31, 1, NULL), SECPOOL_E_SESSION_EXPIRED);
	closed.u.enc_session_opened.session = UINT64_MAX;
	assert_int_equal(hostile_key(&closed, 31, 1, NULL), SECPOOL_E_SESSION_EXPIRED);
	hostile_expect_keys(theirs, 0);
	hostile_expect_keys(hostile_user(1), 0);
	/* the process is gone: nobody takes its place on the socket */
	rig_ok(hostile_key(&opened, 32, 1, NULL), "the control");
	hostile_expect_keys(theirs, 1);
	hostile_kill(0);
	assert_int_equal(hostile_key(&opened, 33, 1, NULL), SECPOOL_E_CLOSED);
}

/* Labels and places: regions that have a key, numbers that are none, pages of other sizes, devices that proved nothing. */
static void labels_are_checked(void **state)
{
	const struct hostile_user *theirs = hostile_user(0), *third = hostile_user(1);
	struct msg mine, other, create;
	struct msg_enc_key_create *in = &create.u.enc_key_create;

	(void)state;
	rig_ok(hostile_open(theirs, 0, "theirs", &mine), "open");
	rig_ok(hostile_open(third, 0, "third", &other), "open");
	rig_ok(hostile_key(&mine, 40, 2, NULL), "a region");
	/* the same region and epoch, or an older one, in whichever session; two keys at most */
	assert_int_equal(hostile_key(&other, 40, 2, NULL), SECPOOL_E_EXISTS);
	assert_int_equal(hostile_key(&mine, 40, 1, NULL), SECPOOL_E_EXISTS);
	rig_ok(hostile_key(&mine, 40, 3, NULL), "its next");
	assert_int_equal(hostile_key(&mine, 40, 4, NULL), SECPOOL_E_EXISTS);
	hostile_expect_keys(theirs, 2);
	static const uint64_t pages[] = {0, 1, 4095, 4097, 2048, 4 << 20, UINT64_MAX, 1ull << 63};
	for (unsigned i = 0; i < sizeof pages / sizeof *pages; i++) {
		hostile_create(&mine, 41, 1, &create);
		in->page_bytes = pages[i];
		assert_int_equal(
			rig_ask(&rig, &create, MSG_ENC_KEY_WRAPPED, NULL), SECPOOL_E_INVALID);
	}
	assert_int_equal(hostile_key(&mine, 0, 1, NULL), SECPOOL_E_INVALID);
	assert_int_equal(hostile_key(&mine, 41, 0, NULL), SECPOOL_E_INVALID);
	static const uint32_t counts[] = {0, MSG_LANES_MAX + 1, UINT32_MAX};
	for (unsigned i = 0; i < sizeof counts / sizeof *counts; i++) {
		hostile_create(&mine, 41, 1, &create);
		in->device_count = counts[i];
		assert_int_equal(
			rig_ask(&rig, &create, MSG_ENC_KEY_WRAPPED, NULL), SECPOOL_E_INVALID);
	}
	/* ids without an end, of nothing, of a device that proved nothing, a good one first */
	hostile_create(&mine, 41, 1, &create);
	memset(in->devices, 'd', sizeof in->devices);
	assert_int_equal(rig_ask(&rig, &create, MSG_ENC_KEY_WRAPPED, NULL), SECPOOL_E_NOT_ATTESTED);
	hostile_create(&mine, 41, 1, &create);
	in->device_count = 2;
	assert_int_equal(rig_ask(&rig, &create, MSG_ENC_KEY_WRAPPED, NULL), SECPOOL_E_NOT_ATTESTED);
	msg_set_text((char *)in->devices + MSG_NAME_BYTES, MSG_NAME_BYTES, "d1");
	assert_int_equal(rig_ask(&rig, &create, MSG_ENC_KEY_WRAPPED, NULL), SECPOOL_E_NOT_ATTESTED);
	hostile_expect_keys(theirs, 0);
	hostile_expect_keys(third, 0);
	rig_ok(hostile_key(&mine, 41, 1, NULL), "the control");
	hostile_expect_keys(theirs, 1);
}

/* A key that was not destroyed is in no receipt, whatever the front says of it. */
static void receipts_need_destruction(void **state)
{
	struct msg opened, receipt = {.type = MSG_ENC_RECEIPT},
			   destroy = {.type = MSG_ENC_KEY_DESTROY};
	struct msg_enc_receipt *facts = &receipt.u.enc_receipt;

	(void)state;
	rig_ok(hostile_open(hostile_user(0), 0, "theirs", &opened), "open");
	rig_ok(hostile_key(&opened, 50, 1, NULL), "a key");
	rig_ok(hostile_key(&opened, 50, 2, NULL), "its next");
	facts->region = 50;
	MSG_SET(facts->tenant, "theirs");
	facts->readback = MSG_READBACK_MATCHED;
	facts->client = MSG_CLIENT_DEAD;
	facts->destroyed_ns = clock_calendar_ns();
	facts->generation = 1;
	destroy.u.enc_key_destroy.region = 50;
	/* both of its keys must have ended */
	for (uint64_t epoch = 1; epoch <= 2; epoch++) {
		assert_int_equal(rig_ask(&rig, &receipt, MSG_RECEIPT, NULL), SECPOOL_E_INVALID);
		destroy.u.enc_key_destroy.epoch = epoch;
		rig_ok(rig_ask(&rig, &destroy, MSG_ENC_KEY_DESTROYED, NULL), "destroy");
	}
	rig_ok(rig_ask(&rig, &receipt, MSG_RECEIPT, NULL), "the control");
	hostile_expect_keys(hostile_user(0), 2);
}

/* ---- requests that end the enclave, with no key in the answer ---- */

static const uint32_t all_types[] = {
#define MESSAGE(number, NAME, name, fields) number,
#include "lib/wire/msg.def"
#undef MESSAGE
};

/* Whether the enclave is still there after what was sent; takes its answer. */
static bool is_over(void)
{
	struct pollfd end = {.fd = rig.enclave.socket, .events = POLLIN};
	struct msg answer;

	assert_int_equal(poll(&end, 1, (int)(RIG_WAIT_NS / CLOCK_NS_PER_MS)), 1);
	enum secpool_error error = sock_receive(rig.enclave.socket, &answer, NULL, 0);
	/* it may want a record of the refusal first */
	while (!error && answer.type == MSG_ENC_AUDIT) {
		struct msg kept = {.type = MSG_ENC_AUDIT_KEPT, .number = answer.number};

		rig_ok(sock_send(rig.enclave.socket, &kept, NULL, 0, clock_now_ns() + RIG_WAIT_NS),
			"kept");
		error = sock_receive(
			rig.enclave.socket, &answer, NULL, clock_now_ns() + RIG_WAIT_NS);
	}
	if (!error) {
		assert_int_equal(answer.type, MSG_REPLY);
		assert_int_equal(answer.u.reply.error, SECPOOL_E_PROTOCOL);
	}
	hostile.ended = sock_receive(rig.enclave.socket, &answer, NULL,
				clock_now_ns() + RIG_WAIT_NS) == SECPOOL_E_DAEMON_GONE;
	return hostile.ended;
}

/* A fresh enclave with one open session and a key handed out, that wrong requests meet. */
static void begin_again(void)
{
	struct msg opened;

	enclave_stop(&rig.enclave);
	rig_ok(rig_start(&rig), "start again");
	hostile.ended = false;
	rig_ok(rig_attest(&rig, &device, NULL), "attest");
	hostile_connect();
	rig_ok(hostile_open(hostile_user(0), 0, "theirs", &opened), "session");
	rig_ok(hostile_key(&opened, 60, 1, NULL), "key");
	hostile_expect_keys(hostile_user(0), 1);
}

/* Each type that is not for the enclave, and each that is with descriptors missing or too many. */
static void disorder_ends_it(void **state)
{
	int fds[MSG_FDS_MAX + 1];

	(void)state;
	for (size_t i = 0; i < sizeof all_types / sizeof *all_types; i++) {
		struct msg request = {.type = all_types[i], .number = 9};
		bool served = requests_allowed(request.type, REQUESTS_SERVING);
		unsigned right = requests_fds(request.type);
		/* types that it never serves are all one row's absence: every fifth of them here, all in unit/test_requests.c */
		if (!served && i % 5 != 0)
			continue;
		begin_again();
		unsigned count = served ? right == 0 ? 1 + (unsigned)i % MSG_FDS_MAX
					  : i % 2    ? 0u
						     : 2u
					: 0u;
		for (unsigned f = 0; f < count; f++)
			fds[f] = hostile_front(hostile_user(f % 2), 0);
		rig_ok(sock_send(rig.enclave.socket, &request, fds, count,
			       clock_now_ns() + RIG_WAIT_NS),
			"send");
		if (!is_over())
			fail_msg("the enclave goes on after %s with %u descriptors",
				msg_name(request.type), count);
		hostile_expect_keys(hostile_user(0), 0);
		hostile_expect_keys(hostile_user(1), 0);
	}
}

/* Messages cut, too long, with other heads, with more descriptors than a message has. */
static void malformed_ends_it(void **state)
{
	struct msg open = {.type = MSG_ENC_SESSION_OPEN, .number = 3};
	uint8_t bytes[MSG_BYTES_MAX], sent[MSG_BYTES_MAX * 2];
	size_t count = 0;

	(void)state;
	MSG_SET(open.u.enc_session_open.tenant, "theirs");
	rig_ok(msg_encode(&open, bytes, sizeof bytes, &count), "encode");
	const struct {
		size_t bytes;	  /* how many are sent */
		size_t flip;	  /* which byte is changed; count: none */
		unsigned sockets; /* that come with it */
	} wrongs[] = {{1, count, 1}, {count / 2, count, 1}, {count - 1, count, 1},
		{count + 1, count, 1}, {sizeof sent, count, 1}, {count, 0, 1}, {count, 3, 1},
		{count, count, HOSTILE_FDS_MANY}};
	for (size_t i = 0; i < sizeof wrongs / sizeof *wrongs; i++) {
		begin_again();
		memset(sent, 0, sizeof sent);
		memcpy(sent, bytes, count);
		if (wrongs[i].flip < count)
			sent[wrongs[i].flip] ^= 0x41;
		hostile_send(sent, wrongs[i].bytes, wrongs[i].sockets);
		if (!is_over())
			fail_msg("the enclave goes on after malformed message %zu", i);
		hostile_expect_keys(hostile_user(0), 0);
	}
}

/* ---- all of it, in random order ---- */

enum { STEPS = 3000, SESSIONS_KEPT = 12, REGIONS_TRIED = 40 };

/* A linear congruential sequence: the same run each time (Knuth, MMIX). */
static uint32_t draw(uint32_t below)
{
	static uint64_t state = 42;

	state = state * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(state >> 33) % below;
}

/* What the front holds of the sessions that it opened, right or wrong. */
struct held {
	struct msg opened;
	unsigned user;
	bool open;
};

static void open_some(struct held *held)
{
	static const char *const tenants[] = {"mine", "theirs", "third"};
	const char *tenant = tenants[draw(3)];
	unsigned user = draw(HOSTILE_USERS);
	bool may = hostile_user(user)->tenant && strcmp(hostile_user(user)->tenant, tenant) == 0;
	enum secpool_error error =
		hostile_open(hostile_user(user), draw(HOSTILE_SOCKETS), tenant, &held->opened);

	if (!may)
		assert_int_equal(error, SECPOOL_E_DENIED);
	else
		rig_ok(error, "session");
	if (!error)
		held->open = true;
	if (!error)
		held->user = user;
}

static void anything_goes(void **state)
{
	static struct held held[SESSIONS_KEPT];
	struct msg first, request;
	unsigned keys = 0, refused = 0;

	(void)state;
	memset(held, 0, sizeof held);
	rig_ok(hostile_open(hostile_user(0), 0, "theirs", &first), "first");
	for (unsigned step = 0; step < STEPS; step++) {
		struct held *one = &held[draw(SESSIONS_KEPT)];
		memset(&request, 0, sizeof request);
		switch (draw(7)) {
		case 0:
		case 1:
		case 2:
			if (!one->open)
				open_some(one);
			break;
		case 3:
			request.type = MSG_ENC_SESSION_CLOSE;
			request.u.enc_session_close.session =
				one->opened.u.enc_session_opened.session;
			assert_int_equal(rig_ask(&rig, &request, MSG_REPLY, NULL),
				one->open ? SECPOOL_OK : SECPOOL_E_SESSION_EXPIRED);
			one->open = false;
			break;
		case 4:
			request.type = MSG_ENC_KEY_DESTROY;
			request.u.enc_key_destroy.region = 100 + draw(REGIONS_TRIED);
			request.u.enc_key_destroy.epoch = draw(3);
			rig_ok(rig_ask(&rig, &request, MSG_ENC_KEY_DESTROYED, NULL), "destroy");
			break;
		default: {
			enum secpool_error error = hostile_key(
				&one->opened, 100 + draw(REGIONS_TRIED), 1 + draw(2), NULL);
			if (!one->open)
				assert_int_equal(error, SECPOOL_E_SESSION_EXPIRED);
			if (one->open && error)
				assert_int_equal(error, SECPOOL_E_EXISTS);
			if (one->open && !error) {
				hostile_expect_keys(hostile_user(one->user), 1);
				keys++;
			} else {
				refused++;
			}
		} break;
		}
	}
	for (unsigned u = 0; u < HOSTILE_USERS; u++)
		hostile_expect_keys(hostile_user(u), 0);
	/* the run did something */
	print_message("%u keys, %u refused\n", keys, refused);
	assert_true(keys > 100 && refused > 100);
}

/* ---- around each of them ---- */

static int start(void **state)
{
	(void)state;
	rig_init(&rig);
	rig_ok(rig_start(&rig), "start");
	rig_device_init(&device, "d0", RIG_FIRMWARE, RIG_FIRMWARE);
	rig_ok(rig_attest(&rig, &device, NULL), "attest");
	hostile_init(&rig);
	hostile_connect();
	return 0;
}

/* The end of each: no key of all that were handed out was seen by the front, in an answer or in memory that it can read. */
static int end(void **state)
{
	(void)state;
	hostile_search();
	hostile_done();
	rig_device_done(&device);
	rig_done(&rig);
	return 0;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(leaves_are_claimed_by_their_labels, start, end),
		cmocka_unit_test_setup_teardown(sockets_are_their_users, start, end),
		cmocka_unit_test_setup_teardown(other_descriptors_are_no_clients, start, end),
		cmocka_unit_test_setup_teardown(only_open_sessions_get_keys, start, end),
		cmocka_unit_test_setup_teardown(labels_are_checked, start, end),
		cmocka_unit_test_setup_teardown(receipts_need_destruction, start, end),
		cmocka_unit_test_setup_teardown(disorder_ends_it, start, end),
		cmocka_unit_test_setup_teardown(malformed_ends_it, start, end),
		cmocka_unit_test_setup_teardown(anything_goes, start, end),
	};
	int status = 0;

	if (enclave_is_child(argc, argv, &status))
		return status;
	if (geteuid() != 0) {
		printf("other users' processes can be had by root only\n");
		return 77;
	}
	rig_ok(secmem_init(SECMEM_ALLOW_LOCKED), "secret memory");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
