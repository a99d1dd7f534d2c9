/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A real enclave with the test inside it: by the linker's --wrap each key that it draws has a mark in every 16 bytes, its secret memory can be counted from within, a forbidden call can be made where requests are served, and it
 * stands still when it has put away its keys. From outside root looks at all the rest of its memory. Keys are in secret memory and nowhere else; after use, rotation, release and shutdown nothing of them is left there either. timeout: 240
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <poll.h>
#include <sched.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

#include "enclave/enclave_main.h"
#include "enclave/keytree.h"
#include "enclave/requests.h"
#include "enclave/secmem.h"
#include "tests/security/enclave_rig.h"
#include "tests/support/support.h"

/* ---- inside ---- */

enum { CHUNKS_MOST = 32, BLOCK = 16, MARK_BYTES = 8 };

/* The mark, masked, and read byte by byte: not even the program's code has it in clear. */
static const volatile uint8_t masked_mark[MARK_BYTES] = {
	0x19, 0xe2, 0x5b, 0x06, 0xc4, 0x7d, 0x90, 0x33};

static struct {
	bool is_enclave, stopping;
	int socket;
	unsigned chunk_count;
	struct {
		const uint8_t *at;
		size_t bytes;
	} chunks[CHUNKS_MOST]; /* all secret memory but key pages for clients */
	uint64_t draws;
	/* the control of the search from outside: the mark, once forwards and once backwards, in ordinary memory */
	volatile uint8_t control[2 * MARK_BYTES];
} inside;

void __real_os_random(void *bytes, size_t count);
void __wrap_os_random(void *bytes, size_t count);
enum secpool_error __real_secmem_new_pages(size_t bytes, void **ret_pages);
enum secpool_error __wrap_secmem_new_pages(size_t bytes, void **ret_pages);
_Noreturn void __real_enclave_main_run(const struct enclave_options *options, int socket);
_Noreturn void __wrap_enclave_main_run(const struct enclave_options *options, int socket);
bool __real_requests_serve(struct requests *requests, const struct msg *request,
	struct sock_extra *extra, struct msg *ret_answer);
bool __wrap_requests_serve(struct requests *requests, const struct msg *request,
	struct sock_extra *extra, struct msg *ret_answer);
void __real_hostkeys_done(struct hostkeys *keys);
void __wrap_hostkeys_done(struct hostkeys *keys);

static uint8_t mark(size_t i)
{
	return masked_mark[i] ^ SUPPORT_MASK;
}

static bool is_secret(const uint8_t *at)
{
	for (unsigned i = 0; i < inside.chunk_count; i++)
		if (at >= inside.chunks[i].at && at < inside.chunks[i].at + inside.chunks[i].bytes)
			return true;
	return false;
}

/* What is drawn into secret memory is a key: random, but for the mark. */
void __wrap_os_random(void *bytes, size_t count)
{
	uint8_t *at = bytes;

	__real_os_random(bytes, count);
	if (!inside.is_enclave || !is_secret(at))
		return;
	for (size_t block = 0; block + BLOCK <= count; block += BLOCK)
		for (size_t i = 0; i < MARK_BYTES; i++)
			at[block + i] = mark(i);
	inside.draws++;
}

enum secpool_error __wrap_secmem_new_pages(size_t bytes, void **ret_pages)
{
	enum secpool_error error = __real_secmem_new_pages(bytes, ret_pages);

	if (!error && inside.is_enclave && inside.chunk_count < CHUNKS_MOST) {
		inside.chunks[inside.chunk_count].at = *ret_pages;
		inside.chunks[inside.chunk_count++].bytes = bytes;
	}
	return error;
}

/* Marks in the enclave's secret memory; a number of OpenSSL's has its bytes backwards. */
static unsigned count_secret(void)
{
	unsigned found = 0;

	for (unsigned c = 0; c < inside.chunk_count; c++) {
		const uint8_t *bytes = inside.chunks[c].at;
		for (size_t at = 0; at + MARK_BYTES <= inside.chunks[c].bytes; at++) {
			size_t same = 0, back = 0;
			while (same < MARK_BYTES && bytes[at + same] == mark(same))
				same++;
			while (back < MARK_BYTES && bytes[at + back] == mark(MARK_BYTES - 1 - back))
				back++;
			found += same == MARK_BYTES || back == MARK_BYTES;
		}
	}
	return found;
}

void __wrap_enclave_main_run(const struct enclave_options *options, int socket)
{
	inside.is_enclave = true;
	inside.socket = socket;
	for (size_t i = 0; i < MARK_BYTES; i++) {
		inside.control[i] = mark(i);
		inside.control[2 * MARK_BYTES - 1 - i] = mark(i);
	}
	__real_enclave_main_run(options, socket);
}

/* What the sandbox must not let the enclave do. */
static const struct forbidden {
	const char *name;
	long number, args[4];
} forbidden[] = {
	{"open", SYS_open, {(long)"/etc/passwd", O_RDONLY}},
	{"openat", SYS_openat, {AT_FDCWD, (long)"/dev/null", O_WRONLY}},
	{"socket", SYS_socket, {AF_INET, SOCK_STREAM, 0}},
	{"connect", SYS_connect, {3, (long)"", 0}},
	{"accept4", SYS_accept4, {3, 0, 0, 0}},
	{"execve", SYS_execve, {(long)"/bin/true", 0, 0}},
	{"fork", SYS_clone, {SIGCHLD}},
	{"ptrace", SYS_ptrace, {PTRACE_ATTACH, 1}},
	{"process_vm_readv", SYS_process_vm_readv, {1}},
	{"read", SYS_read, {3}},
	{"write to the front", SYS_write, {3, (long)"", 0}},
	{"prctl dumpable", SYS_prctl, {PR_SET_DUMPABLE, 1}},
	{"unlink", SYS_unlink, {(long)"/nonexistent"}},
};
enum { FORBIDDEN = sizeof forbidden / sizeof *forbidden };

/* ENC_STATUS tells the marks; ENC_DEVICE_VOID for "try-N" makes the forbidden call N in the place where requests are served. */
bool __wrap_requests_serve(struct requests *requests, const struct msg *request,
	struct sock_extra *extra, struct msg *ret_answer)
{
	bool go_on = __real_requests_serve(requests, request, extra, ret_answer);
	struct msg_enc_status_reply *status = &ret_answer->u.enc_status_reply;

	inside.stopping = inside.stopping || request->type == MSG_ENC_STOP;
	if (request->type == MSG_ENC_STATUS) {
		status->sessions = count_secret();
		status->generation = inside.draws;
	}
	if (request->type == MSG_ENC_DEVICE_VOID &&
		strncmp(request->u.enc_device_void.id, "try-", 4) == 0) {
		const struct forbidden *call =
			&forbidden[strtol(request->u.enc_device_void.id + 4, NULL, 10)];
		syscall(call->number, call->args[0], call->args[1], call->args[2], call->args[3]);
	}
	return go_on;
}

/* The last that the enclave does before its end: it tells what is left, and stands still to be looked at. */
void __wrap_hostkeys_done(struct hostkeys *keys)
{
	struct msg status = {.type = MSG_ENC_STATUS_REPLY};

	__real_hostkeys_done(keys);
	if (!inside.stopping)
		return;
	status.u.enc_status_reply.sessions = count_secret();
	if (sock_send(inside.socket, &status, NULL, 0, clock_now_ns() + RIG_WAIT_NS))
		_exit(1);
	for (;;)
		ppoll(NULL, 0, NULL, NULL);
}

/* ---- outside ---- */

static struct rig rig;
static struct rig_device device;

/* What is in the secret memory now; draws: how many keys were drawn. */
static unsigned secret_marks(uint64_t *ret_draws)
{
	struct msg status = {.type = MSG_ENC_STATUS};

	rig_ok(rig_ask(&rig, &status, MSG_ENC_STATUS_REPLY, &status), "status");
	if (ret_draws)
		*ret_draws = status.u.enc_status_reply.generation;
	return (unsigned)status.u.enc_status_reply.sessions;
}

/* In all memory of a process that root can read, the control alone has the mark. */
static void expect_control_alone(pid_t pid)
{
	struct support_needle forwards = {.bytes = MARK_BYTES}, backwards = {.bytes = MARK_BYTES};
	size_t read_bytes = 0;

	for (size_t i = 0; i < MARK_BYTES; i++) {
		forwards.masked[i] = masked_mark[i];
		backwards.masked[MARK_BYTES - 1 - i] = masked_mark[i];
	}
	assert_int_equal(support_count_process(&forwards, pid, &read_bytes), 1);
	assert_int_equal(support_count_process(&backwards, pid, &read_bytes), 1);
	assert_true(read_bytes > 1 << 16);
}

static void destroy(uint64_t region, uint64_t epoch)
{
	struct msg msg = {.type = MSG_ENC_KEY_DESTROY};

	msg.u.enc_key_destroy.region = region;
	msg.u.enc_key_destroy.epoch = epoch;
	rig_ok(rig_ask(&rig, &msg, MSG_ENC_KEY_DESTROYED, NULL), "destroy");
}

static void make_key(uint64_t session, uint64_t region, uint64_t epoch)
{
	struct msg create = {.type = MSG_ENC_KEY_CREATE};
	struct msg_enc_key_create *in = &create.u.enc_key_create;

	in->session = session;
	in->region = region;
	in->epoch = epoch;
	in->page_bytes = 4096;
	in->device_count = 1;
	msg_set_text((char *)in->devices, MSG_NAME_BYTES, "d0");
	rig_ok(rig_key_as(&rig, &create, NULL), "key");
}

static void sign_receipt(uint64_t region)
{
	struct msg receipt = {.type = MSG_ENC_RECEIPT};

	receipt.u.enc_receipt.region = region;
	receipt.u.enc_receipt.readback = MSG_READBACK_MATCHED;
	receipt.u.enc_receipt.client = MSG_CLIENT_ACKNOWLEDGED;
	MSG_SET(receipt.u.enc_receipt.tenant, "mine");
	rig_ok(rig_ask(&rig, &receipt, MSG_RECEIPT, NULL), "receipt");
}

/* Ends the enclave as the front does, up to where it stands still. */
static void expect_nothing_after_stop(void)
{
	struct msg stop = {.type = MSG_ENC_STOP}, left;

	rig_ok(rig_ask(&rig, &stop, MSG_REPLY, NULL), "stop");
	rig_ok(sock_receive(rig.enclave.socket, &left, NULL, clock_now_ns() + RIG_WAIT_NS), "left");
	assert_int_equal(left.type, MSG_ENC_STATUS_REPLY);
	assert_int_equal(left.u.enc_status_reply.sessions, 0);
	expect_control_alone(rig.enclave.pid);
	/* it would stand there for ever; the front's socket is closed first, so that nobody waits for an answer */
	os_close(&rig.enclave.socket);
	assert_int_equal(kill(rig.enclave.guardian, SIGKILL), 0);
	enclave_stop(&rig.enclave);
}

/* A key of WRAP_KEY_BYTES has two marks. The first leaf of a tree needs a node on each level. */
enum { KEY_MARKS = 2, NODES_MARKS = KEYTREE_ADDED_MOST * KEY_MARKS };

/* A whole life: from a new root key, and from a sealed one. */
static void one_life(void)
{
	struct msg opened;
	unsigned at_start, with_nodes;
	uint64_t before = 0, after = 0;
	int client = -1, front = -1;

	expect_control_alone(rig.enclave.pid);
	at_start = secret_marks(NULL);
	/* the root key, the service node's, the signing key, the counter's authorisation */
	assert_true(at_start >= 3 * KEY_MARKS);
	rig_ok(rig_attest(&rig, &device, NULL), "attest");
	rig_connect(&rig, &client, &front);
	rig_ok(rig_session(&rig, "mine", &front, &opened), "session");
	os_close(&front);
	assert_int_equal(secret_marks(&before), at_start);
	with_nodes = at_start + NODES_MARKS;
	expect_control_alone(rig.enclave.pid);
	uint64_t session = opened.u.enc_session_opened.session;
	for (uint64_t region = 1; region <= 3; region++) {
		/* made and sent: the enclave keeps none of it, but the nodes above */
		make_key(session, region, 1);
		assert_int_equal(secret_marks(NULL), with_nodes);
		expect_control_alone(rig.enclave.pid);
		/* rotation */
		make_key(session, region, 2);
		destroy(region, 1);
		assert_int_equal(secret_marks(NULL), with_nodes);
		expect_control_alone(rig.enclave.pid);
		/* release */
		destroy(region, 0);
		sign_receipt(region);
		assert_int_equal(secret_marks(&after), with_nodes);
		expect_control_alone(rig.enclave.pid);
	}
	/* they were keys with marks: two draws for each region and epoch */
	assert_true(after >= before + 12);
	os_close(&client);
}

static void keys_leave_nothing(void **state)
{
	(void)state;
	one_life();
	expect_nothing_after_stop();
	rig_ok(rig_start_with(&rig, 0, rig.host.where, true), "start again");
	assert_false(rig.enclave.provisioned);
	one_life();
	expect_nothing_after_stop();
}

/* Every refusal on the way: what was half done leaves nothing either. */
static void refusals_leave_nothing(void **state)
{
	struct msg opened, other;
	int client = -1, front = -1;
	unsigned with_tenant;
	uint64_t session;

	(void)state;
	rig_ok(rig_attest(&rig, &device, NULL), "attest");
	rig_connect(&rig, &client, &front);
	rig_ok(rig_session(&rig, "mine", &front, &opened), "session");
	session = opened.u.enc_session_opened.session;
	with_tenant = secret_marks(NULL);
	/* the device proved nothing */
	assert_int_equal(rig_key(&rig, session, 1, "d9", &other), SECPOOL_E_NOT_ATTESTED);
	assert_int_equal(secret_marks(NULL), with_tenant);
	/* the client does not read, then it is gone: the key was drawn and can't be sent */
	enum secpool_error error = SECPOOL_OK;
	for (uint64_t region = 10; !error && region < 5000; region++)
		error = rig_key(&rig, session, region, "d0", &other);
	assert_int_equal(error, SECPOOL_E_BUSY);
	os_close(&client);
	assert_int_equal(rig_key(&rig, session, 9, "d0", &other), SECPOOL_E_CLOSED);
	/* the nodes above those that were sent: a block has KEYTREE_FAN of them */
	assert_true(secret_marks(NULL) - with_tenant >= NODES_MARKS);
	assert_int_equal((secret_marks(NULL) - with_tenant) % KEY_MARKS, 0);
	expect_control_alone(rig.enclave.pid);
}

/* Each forbidden call, where requests are served: the enclave is killed by SIGSYS, with its guardian's word for it. */
static void forbidden_calls_kill_it(void **state)
{
	(void)state;
	for (unsigned i = 0; i < FORBIDDEN; i++) {
		struct msg msg = {.type = MSG_ENC_DEVICE_VOID};
		int status = 0;
		snprintf(msg.u.enc_device_void.id, sizeof msg.u.enc_device_void.id, "try-%u", i);
		assert_int_equal(rig_ask(&rig, &msg, MSG_REPLY, NULL), SECPOOL_E_DAEMON_GONE);
		assert_int_equal(waitpid(rig.enclave.guardian, &status, 0), rig.enclave.guardian);
		if (!WIFEXITED(status) || WEXITSTATUS(status) != 128 + SIGSYS)
			fail_msg("%s: the guardian ended with status %x", forbidden[i].name,
				(unsigned)status);
		os_close(&rig.enclave.socket);
		os_close(&rig.enclave.listener);
		rig.enclave.guardian = 0;
		rig_ok(rig_start_with(&rig, 0, rig.host.where, true), "start again");
	}
}

static int start(void **state)
{
	(void)state;
	rig_init(&rig);
	rig.recovery =
		true; /* its key is drawn, shown and wiped, and each generation has one of its own */
	rig_ok(rig_start(&rig), "start");
	rig_device_init(&device, "d0", RIG_FIRMWARE, RIG_FIRMWARE);
	return 0;
}

static int end(void **state)
{
	(void)state;
	rig_device_done(&device);
	rig_done(&rig);
	return 0;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(keys_leave_nothing, start, end),
		cmocka_unit_test_setup_teardown(refusals_leave_nothing, start, end),
		cmocka_unit_test_setup_teardown(forbidden_calls_kill_it, start, end),
	};
	int status = 0;

	if (enclave_is_child(argc, argv, &status))
		return status;
	if (geteuid() != 0) {
		printf("only root may look into the enclave's memory\n");
		return 77;
	}
	rig_ok(secmem_init(SECMEM_ALLOW_LOCKED), "secret memory");
	if (!secmem_is_secret()) {
		printf("no memfd_secret here: root reads locked memory\n");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
