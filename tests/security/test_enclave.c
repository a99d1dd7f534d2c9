/* SPDX-License-Identifier: Apache-2.0 */
/* The enclave seen from outside, by a root who may do anything: debuggers, memory, its guardian, what it starts from, and what a front asks. timeout: 120 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sys/ptrace.h>

#include "enclave/keypage.h"
#include "enclave/secmem.h"
#include "tests/security/enclave_rig.h"
#include "tests/support/support.h"

static struct rig rig;

static int start(void **state)
{
	(void)state;
	rig_init(&rig);
	rig_ok(rig_start(&rig), "start");
	return 0;
}

static int prepare(void **state)
{
	(void)state;
	rig_init(&rig);
	return 0;
}

static int end(void **state)
{
	(void)state;
	rig_done(&rig);
	return 0;
}

/* A line of /proc/PID/status as a number in this base. */
static long long status_of(pid_t pid, const char *name, int base)
{
	char path[64], *text = NULL;
	size_t bytes = 0;
	long long value = -1;

	snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
	if (os_read_file(path, 1 << 16, &text, &bytes))
		return -1;
	const char *line = strstr(text, name);
	if (line)
		value = strtoll(line + strlen(name), NULL, base);
	free(text);
	return value;
}

/* The verifier: the enclave's only child. */
static pid_t verifier_of(pid_t enclave)
{
	char path[64], *text = NULL;
	size_t bytes = 0;
	pid_t pid;

	snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)enclave, (int)enclave);
	rig_ok(os_read_file(path, 4096, &text, &bytes), "children");
	pid = (pid_t)strtol(text, NULL, 10);
	free(text);
	return pid;
}

static void wait_gone(pid_t pid)
{
	struct os_process process;

	for (unsigned i = 0; i < 5000; i++) {
		if (os_process_find(pid, &process) || !os_process_alive(&process))
			return;
		clock_sleep_ns(CLOCK_NS_PER_MS);
	}
	fail_msg("process %d is still there", (int)pid);
}

/* ---- from outside ---- */

static void debuggers_are_refused(void **state)
{
	char pid[16], output[8192] = "";
	const pid_t held[] = {rig.enclave.pid, verifier_of(rig.enclave.pid)};

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(ptrace(PTRACE_ATTACH, held[i], NULL, NULL), -1);
		assert_int_equal(errno, EPERM);
		assert_int_equal(ptrace(PTRACE_SEIZE, held[i], NULL, NULL), -1);
		assert_int_equal(errno, EPERM);
		assert_int_equal(status_of(held[i], "TracerPid:", 10), rig.enclave.guardian);
	}
	snprintf(pid, sizeof pid, "%d", (int)rig.enclave.pid);
	if (access("/usr/bin/gdb", X_OK) != 0)
		return;
	char *const argv[] = {"/usr/bin/gdb", "-nx", "-batch", "-p", pid, NULL};
	support_run(output, sizeof output, argv);
	assert_non_null(strstr(output, "ptrace: Operation not permitted"));
}

static void all_roles_are_sandboxed(void **state)
{
	const pid_t pids[] = {rig.enclave.pid, verifier_of(rig.enclave.pid), rig.enclave.guardian};
	struct msg status = {.type = MSG_ENC_STATUS};

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(status_of(pids[i], "\nSeccomp:", 10), 2);
		assert_int_equal(status_of(pids[i], "\nNoNewPrivs:", 10), 1);
		assert_int_equal(status_of(pids[i], "\nCapEff:", 16), 0);
		assert_int_equal(status_of(pids[i], "\nCapPrm:", 16), 0);
		assert_int_equal(status_of(pids[i], "\nThreads:", 10), 1);
	}
	rig_ok(rig_ask(&rig, &status, MSG_ENC_STATUS_REPLY, &status), "status");
	assert_int_equal(status.u.enc_status_reply.sandboxed, 1);
	assert_int_not_equal(status.u.enc_status_reply.tpm[0], '\0');
}

static unsigned count_fds(pid_t pid)
{
	char path[64], output[4096] = "";
	unsigned count = 0;

	snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
	char *const argv[] = {"/bin/ls", path, NULL};
	assert_int_equal(support_run(output, sizeof output, argv), 0);
	for (const char *at = output; *at; at++)
		count += *at == '\n';
	return count;
}

static void helpers_hold_no_descriptors(void **state)
{
	(void)state;
	if (geteuid() != 0) /* /proc shows others nothing of a process that is not dumpable */
		skip();
	assert_int_equal(count_fds(rig.enclave.guardian), 0);
	assert_int_equal(count_fds(verifier_of(rig.enclave.pid)), 1);
	/* stdin, stdout, stderr, the front's socket, the verifier's, the TPM's, the wrapped keys' file (docs/keys.md) */
	assert_int_equal(count_fds(rig.enclave.pid), 7);
}

static void killed_guardian_ends_the_enclave(void **state)
{
	pid_t verifier = verifier_of(rig.enclave.pid);

	(void)state;
	assert_int_equal(kill(rig.enclave.guardian, SIGKILL), 0);
	wait_gone(rig.enclave.pid);
	wait_gone(verifier);
}

static void stop_ends_all(void **state)
{
	pid_t enclave = rig.enclave.pid, guardian = rig.enclave.guardian;
	pid_t verifier = verifier_of(enclave);
	struct enclave copy = rig.enclave;

	(void)state;
	enclave_stop(&rig.enclave);
	wait_gone(enclave);
	wait_gone(verifier);
	assert_int_equal(kill(guardian, 0), -1);
	assert_int_equal(rig.enclave.socket, -1);
	assert_int_not_equal(copy.socket, -1);
}

/* A front that is killed takes everything with it, also while the enclave has work. */
static void killed_front_ends_all(void **state)
{
	pid_t pids[3] = {0}, front;
	int ends[2], status = 0;

	(void)state;
	assert_int_equal(pipe(ends), 0);
	front = fork();
	if (front == 0) {
		rig_ok(rig_start(&rig), "start");
		pids[0] = rig.enclave.pid;
		pids[1] = rig.enclave.guardian;
		pids[2] = verifier_of(rig.enclave.pid);
		rig_ok(os_write_all(ends[1], pids, sizeof pids), "pipe");
		pause();
	}
	assert_int_equal(read(ends[0], pids, sizeof pids), sizeof pids);
	close(ends[0]);
	close(ends[1]);
	assert_int_equal(kill(front, SIGKILL), 0);
	assert_int_equal(waitpid(front, &status, 0), front);
	for (unsigned i = 0; i < 3; i++)
		wait_gone(pids[i]);
}

/* ---- keys ---- */

/* Receives the key's message at the client; the page, mapped, and its descriptor closed. */
static const void *take_key(int client)
{
	struct sock_extra extra = {.fd_count = 0};
	const void *page = NULL;
	struct msg msg;
	int fd;

	rig_ok(sock_receive(client, &msg, &extra, clock_now_ns() + RIG_WAIT_NS), "key");
	assert_int_equal(msg.type, MSG_REGION_KEY);
	assert_true(extra.has_sender);
	assert_int_equal(extra.sender.pid, rig.enclave.pid);
	assert_int_equal(extra.fd_count, 1);
	fd = sock_take_fd(&extra, 0);
	rig_ok(secmem_map_shared(fd, &page), "map the key");
	os_close(&fd);
	return page;
}

/* That the search finds what is there: the enclave has its socket's path on its stack. */
static void expect_search_works(pid_t pid)
{
	struct support_needle needle = {.bytes = strlen(rig.socket_path)};
	size_t read_bytes = 0;

	for (size_t i = 0; i < needle.bytes; i++)
		needle.masked[i] = (uint8_t)rig.socket_path[i] ^ SUPPORT_MASK;
	assert_true(support_count_process(&needle, pid, &read_bytes) > 0);
}

static void key_is_in_no_other_memory(void **state)
{
	const struct pagecipher_binding binding = {7, 1, 4096};
	struct support_needle needle = {.bytes = 16};
	struct region_keys *keys = secmem_new(sizeof *keys);
	const pid_t pids[] = {rig.enclave.pid, verifier_of(rig.enclave.pid), rig.enclave.guardian,
		rig.host.pid, getpid()};
	struct rig_device device;
	struct sock_peer listener;
	struct msg opened, wrapped;
	int client = -1, front = -1;

	(void)state;
	if (geteuid() != 0) /* nobody else may look at all */
		skip();
	rig_device_init(&device, "d0", RIG_FIRMWARE, RIG_FIRMWARE);
	rig_ok(rig_attest(&rig, &device, NULL), "attest");
	rig_connect(&rig, &client, &front);
	rig_ok(sock_peer(client, &listener), "peer");
	assert_int_equal(listener.pid, rig.enclave.pid);
	rig_ok(rig_session(&rig, "mine", &front, &opened), "session");
	rig_ok(rig_key(&rig, opened.u.enc_session_opened.session, 7, "d0", &wrapped), "key");
	const void *page = take_key(client);
	rig_ok(keypage_get(page, &binding, keys), "key page");
	const uint8_t *bytes = (const uint8_t *)keys;
	expect_search_works(rig.enclave.pid);
	/* what is secret of it: a root is a digest, and zeros here */
	for (size_t part = 0; part + needle.bytes <= offsetof(struct region_keys, root);
		part += needle.bytes) {
		for (size_t i = 0; i < needle.bytes; i++)
			needle.masked[i] = bytes[part + i] ^ SUPPORT_MASK;
		for (unsigned i = 0; i < sizeof pids / sizeof *pids; i++) {
			size_t read_bytes = 0;
			assert_int_equal(support_count_process(&needle, pids[i], &read_bytes), 0);
			/* root was let in and did look */
			assert_true(read_bytes > 4096);
		}
		assert_int_equal(support_count_bytes(&needle, wrapped.u.enc_key_wrapped.wrapped,
					 wrapped.u.enc_key_wrapped.wrapped_bytes),
			0);
	}
	secmem_unmap_shared(page);
	secmem_free(keys);
	os_close(&client);
	rig_device_done(&device);
}

/* ---- sessions ---- */

static void tenants_are_checked(void **state)
{
	struct msg opened;
	int client = -1, front = -1;

	(void)state;
	rig_connect(&rig, &client, &front);
	assert_int_equal(
		rig_session(&rig, "nobody-knows", &front, &opened), SECPOOL_E_UNKNOWN_TENANT);
	assert_non_null(strstr(err_detail(), "nobody-knows"));
	os_close(&client);
	rig_connect(&rig, &client, &front);
	assert_int_equal(rig_session(&rig, "theirs", &front, &opened), SECPOOL_E_DENIED);
	assert_non_null(strstr(err_detail(), "theirs"));
	os_close(&client);
}

/* A client of another user: the enclave sees it on the socket, whatever the front says. */
static void other_user_is_refused(void **state)
{
	struct msg opened;
	int front = -1, status = 0;
	pid_t child;

	(void)state;
	if (geteuid() != 0)
		skip();
	child = fork();
	if (child == 0) {
		int client = -1;
		if (setgid(65533) != 0 || setuid(65533) != 0 ||
			sock_connect(rig.socket_path, &client))
			_exit(1);
		pause();
		_exit(0);
	}
	for (unsigned i = 0; i < 5000 && front < 0; i++) {
		if (sock_accept(rig.enclave.listener, &front))
			clock_sleep_ns(CLOCK_NS_PER_MS);
	}
	int again = dup(front);
	assert_int_equal(rig_session(&rig, "mine", &front, &opened), SECPOOL_E_DENIED);
	assert_int_equal(rig_session(&rig, "theirs", &again, &opened), SECPOOL_OK);
	assert_int_equal(opened.u.enc_session_opened.uid, 65533);
	assert_int_equal(opened.u.enc_session_opened.pid, child);
	kill(child, SIGKILL);
	waitpid(child, &status, 0);
}

static void expired_session_gets_no_key(void **state)
{
	struct rig_device device;
	struct msg opened, wrapped, close_it = {.type = MSG_ENC_SESSION_CLOSE};
	int client = -1, front = -1;

	(void)state;
	rig_ok(rig_start_with(&rig, 1, rig.host.where, false), "start");
	rig_device_init(&device, "d0", RIG_FIRMWARE, RIG_FIRMWARE);
	rig_ok(rig_attest(&rig, &device, NULL), "attest");
	rig_connect(&rig, &client, &front);
	rig_ok(rig_session(&rig, "mine", &front, &opened), "session");
	uint64_t session = opened.u.enc_session_opened.session;
	rig_ok(rig_key(&rig, session, 1, "d0", &wrapped), "key");
	clock_sleep_ns(CLOCK_NS_PER_S + 50ull * CLOCK_NS_PER_MS);
	assert_int_equal(rig_key(&rig, session, 2, "d0", &wrapped), SECPOOL_E_SESSION_EXPIRED);
	assert_non_null(strstr(err_detail(), "time is over"));
	close_it.u.enc_session_close.session = session;
	assert_int_equal(rig_ask(&rig, &close_it, MSG_REPLY, NULL), SECPOOL_OK);
	assert_int_equal(rig_ask(&rig, &close_it, MSG_REPLY, NULL), SECPOOL_E_SESSION_EXPIRED);
	os_close(&client);
	rig_device_done(&device);
}

/* What the front may not ask ends the enclave. */
static void wrong_request_ends_it(void **state)
{
	struct msg hello = {.type = MSG_HELLO};
	pid_t pid = rig.enclave.pid;

	(void)state;
	assert_int_equal(rig_ask(&rig, &hello, MSG_HELLO, NULL), SECPOOL_E_PROTOCOL);
	assert_non_null(strstr(err_detail(), "HELLO"));
	wait_gone(pid);
}

static void malformed_message_ends_it(void **state)
{
	struct msg answer;
	pid_t pid = rig.enclave.pid;

	(void)state;
	assert_int_equal(send(rig.enclave.socket, "garbage", 7, 0), 7);
	rig_ok(sock_receive(rig.enclave.socket, &answer, NULL, clock_now_ns() + RIG_WAIT_NS),
		"reply");
	assert_int_equal(answer.type, MSG_REPLY);
	assert_int_equal(answer.u.reply.error, SECPOOL_E_PROTOCOL);
	wait_gone(pid);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(debuggers_are_refused, start, end),
		cmocka_unit_test_setup_teardown(all_roles_are_sandboxed, start, end),
		cmocka_unit_test_setup_teardown(helpers_hold_no_descriptors, start, end),
		cmocka_unit_test_setup_teardown(killed_guardian_ends_the_enclave, start, end),
		cmocka_unit_test_setup_teardown(stop_ends_all, start, end),
		cmocka_unit_test_setup_teardown(killed_front_ends_all, prepare, end),
		cmocka_unit_test_setup_teardown(key_is_in_no_other_memory, start, end),
		cmocka_unit_test_setup_teardown(tenants_are_checked, start, end),
		cmocka_unit_test_setup_teardown(other_user_is_refused, start, end),
		cmocka_unit_test_setup_teardown(expired_session_gets_no_key, prepare, end),
		cmocka_unit_test_setup_teardown(wrong_request_ends_it, start, end),
		cmocka_unit_test_setup_teardown(malformed_message_ends_it, start, end),
	};
	int status = 0;

	if (enclave_is_child(argc, argv, &status))
		return status;
	rig_ok(secmem_init(SECMEM_ALLOW_LOCKED), "secret memory");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
