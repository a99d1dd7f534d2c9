/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/enclave.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "enclave/ekcert.h"
#include "enclave/enclave_main.h"
#include "enclave/guardian.h"
#include "lib/base/clock.h"
#include "lib/base/os.h"
#include "lib/wire/sock.h"

#define READY_NS (60 * CLOCK_NS_PER_S)
/* A recovery key is typed meanwhile, letter by letter. */
#define TYPED_NS      (600 * CLOCK_NS_PER_S)
#define STOP_NS	      (2 * CLOCK_NS_PER_S)
#define STOP_CHECK_NS (2ull * CLOCK_NS_PER_MS)

/* The arguments of the guardian and the enclave: secpool's own, no part of a command line. */
enum child_arg {
	ARG_NAME,
	ARG_MARK,
	ARG_STARTER,
	ARG_SOCKET,
	ARG_POLICY_FD,
	ARG_POLICY_NAME,
	ARG_TPM,
	ARG_STATE_DIR,
	ARG_SOCKET_PATH,
	ARG_STORE_EXISTS,
	ARG_NEW_AUDIT,
	ARG_RECOVERY_FD,
	ARG_KEY_FD,
	ARG_RECOVER_GENERATION,
	ARG_RECOVER_HEAD,
	ARG_RECOVER_NEXT,
	ARGS,
};
enum { NUMBER_BYTES = 24 };

#define GUARDIAN_NAME "secpool-guardian"
#define ENCLAVE_NAME  "secpool-enclave"
#define MARK	      "--started-by-secpool"

/*
 * The whole environment of both: nothing of the caller's reaches them. tpm2-tss would write a
 * sealed key in hex to its log (TSS2_LOG=trace). The leak checker of a sanitizer build can't run
 * in a process that is traced.
 */
static char *const child_environment[] = {
	(char[]){"TSS2_LOG=all+none"},
#ifdef __SANITIZE_ADDRESS__
	(char[]){"ASAN_OPTIONS=detect_leaks=0:max_free_fill_size=1000000000:free_fill_byte=90"},
#endif
	NULL,
};

/* ---- in the guardian and the enclave ---- */

static int number_of(const char *text)
{
	char *end = NULL;
	long value = strtol(text, &end, 10);

	return *text == '\0' || *end != '\0' || value < 0 || value > INT_MAX ? -1 : (int)value;
}

bool enclave_is_child(int argc, char **argv, int *ret_status)
{
	bool guardian = argc == ARGS && strcmp(argv[ARG_NAME], GUARDIAN_NAME) == 0;
	bool enclave = argc == ARGS && strcmp(argv[ARG_NAME], ENCLAVE_NAME) == 0;
	char *enclave_argv[ARGS + 1] = {NULL};
	int socket;

	if ((!guardian && !enclave) || strcmp(argv[ARG_MARK], MARK) != 0)
		return false;
	*ret_status = 2;
	socket = number_of(argv[ARG_SOCKET]);
	if (socket < 0 || number_of(argv[ARG_STARTER]) < 0 || number_of(argv[ARG_POLICY_FD]) < 0)
		return true;
	if (guardian) {
		/* a failure changes only the name that ps shows */
		if (prctl(PR_SET_NAME, "secpool-guard", 0, 0, 0) != 0)
			return true;
		memcpy(enclave_argv, argv, sizeof(char *) * ARGS);
		enclave_argv[ARG_NAME] = (char[]){ENCLAVE_NAME};
		guardian_run(number_of(argv[ARG_STARTER]), socket, enclave_argv, child_environment);
	}
	const struct enclave_recover recover = {
		.key_fd = number_of(argv[ARG_KEY_FD]),
		.generation = strtoull(argv[ARG_RECOVER_GENERATION], NULL, 10),
		.audit_head = argv[ARG_RECOVER_HEAD],
		.next = strtoull(argv[ARG_RECOVER_NEXT], NULL, 10),
	};
	const struct enclave_options options = {
		.policy_fd = number_of(argv[ARG_POLICY_FD]),
		.policy_name = argv[ARG_POLICY_NAME],
		.tpm = argv[ARG_TPM],
		.state_dir = argv[ARG_STATE_DIR],
		.socket_path = argv[ARG_SOCKET_PATH],
		.store_exists = strcmp(argv[ARG_STORE_EXISTS], "0") != 0,
		.new_audit = strcmp(argv[ARG_NEW_AUDIT], "0") != 0,
		.recovery_fd = number_of(argv[ARG_RECOVERY_FD]),
		.recover = recover.key_fd > 0 ? &recover : NULL,
	};
	enclave_main_run(&options, socket);
}

/* ---- in the starter ---- */

/* The arguments that are numbers; a descriptor among them goes along. False when that can't be. */
static bool put_numbers(const struct enclave_options *options, int socket,
	char texts[ARGS][NUMBER_BYTES], char *argv[ARGS + 1])
{
	const struct enclave_recover none = {.key_fd = 0};
	const struct enclave_recover *recover = options->recover ? options->recover : &none;
	const struct {
		enum child_arg place;
		bool passed;
		uint64_t value;
	} numbers[] = {
		{ARG_SOCKET, true, (uint64_t)socket},
		{ARG_POLICY_FD, true, (uint64_t)options->policy_fd},
		{ARG_RECOVERY_FD, options->recovery_fd > 0, (uint64_t)options->recovery_fd},
		{ARG_KEY_FD, recover->key_fd > 0, (uint64_t)recover->key_fd},
		{ARG_RECOVER_GENERATION, false, recover->generation},
		{ARG_RECOVER_NEXT, false, recover->next},
	};

	for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
		char *text = texts[numbers[i].place];

		snprintf(text, NUMBER_BYTES, "%llu", (unsigned long long)numbers[i].value);
		argv[numbers[i].place] = text;
		if (numbers[i].passed && fcntl((int)numbers[i].value, F_SETFD, 0) != 0)
			return false;
	}
	return true;
}

/* In the forked child: keeps stderr and the descriptors that it passes on, and executes this program anew as the guardian. */
static _Noreturn void become_guardian(
	const struct enclave_options *options, int socket, const char *starter)
{
	char texts[ARGS][NUMBER_BYTES];
	char *argv[ARGS + 1] = {NULL};
	int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	argv[ARG_NAME] = (char[]){GUARDIAN_NAME};
	argv[ARG_MARK] = (char[]){MARK};
	argv[ARG_STARTER] = (char *)starter;
	argv[ARG_POLICY_NAME] = (char *)options->policy_name;
	argv[ARG_TPM] = (char *)options->tpm;
	argv[ARG_STATE_DIR] = (char *)options->state_dir;
	argv[ARG_SOCKET_PATH] = (char *)options->socket_path;
	argv[ARG_STORE_EXISTS] = (char *)(options->store_exists ? "1" : "0");
	argv[ARG_NEW_AUDIT] = (char *)(options->new_audit ? "1" : "0");
	argv[ARG_RECOVER_HEAD] = (char *)(options->recover ? options->recover->audit_head : "");
	if (null_fd < 0 || dup2(null_fd, STDIN_FILENO) < 0 || dup2(null_fd, STDOUT_FILENO) < 0)
		_exit(127);
	if (close_range(STDERR_FILENO + 1, UINT_MAX, CLOSE_RANGE_CLOEXEC) != 0 ||
		!put_numbers(options, socket, texts, argv))
		_exit(127);
	execve("/proc/self/exe", argv, child_environment);
	_exit(127);
}

/* Ends whatever of it is running; its exit status, as of wait, or -1. */
static int end_guardian(pid_t guardian, uint64_t deadline_ns)
{
	int status = -1;
	pid_t got;

	while ((got = waitpid(guardian, &status, WNOHANG)) == 0 && clock_now_ns() < deadline_ns)
		clock_sleep_ns(STOP_CHECK_NS);
	if (got == guardian)
		return status;
	kill(guardian, SIGKILL); /* PTRACE_O_EXITKILL: the enclave and the verifier too */
	while (waitpid(guardian, &status, 0) < 0 && os_interrupted())
		;
	return status;
}

/* Appends one record, and says whether that was done. */
static enum secpool_error keep_record(
	int socket, const struct enclave_audit *audit, const struct msg *msg)
{
	const struct msg_enc_audit *record = &msg->u.enc_audit;
	struct msg kept = {.type = MSG_ENC_AUDIT_KEPT, .number = msg->number};
	enum secpool_error error = err_set(SECPOOL_E_INTERNAL, "no audit is kept here");

	if (audit->keep)
		error = audit->keep(audit->arg, record->line, record->wait != 0);
	kept.u.enc_audit_kept.error = (uint32_t)error;
	MSG_SET(kept.u.enc_audit_kept.detail, error ? err_detail() : "");
	return sock_send(socket, &kept, NULL, 0, clock_now_ns() + STOP_NS);
}

/* The next message that is no record. */
static enum secpool_error receive_answer(int socket, const struct enclave_audit *audit,
	struct msg *ret_msg, struct sock_extra *ret_extra, uint64_t wait_ns)
{
	enum secpool_error error;

	do {
		error = sock_receive(socket, ret_msg, ret_extra, clock_now_ns() + wait_ns);
		if (!error && ret_msg->type == MSG_ENC_AUDIT) {
			sock_close_fds(ret_extra);
			error = keep_record(socket, audit, ret_msg);
		}
	} while (!error && ret_msg->type == MSG_ENC_AUDIT);
	return error;
}

enum secpool_error enclave_exchange(int socket, const struct enclave_audit *audit,
	struct msg *request, const int *fds, unsigned fd_count, uint32_t want,
	struct msg *ret_answer, uint64_t wait_ns)
{
	static uint32_t last_number;
	struct sock_extra extra = {.fd_count = 0};
	enum secpool_error error;
	struct msg answer;

	request->number = ++last_number;
	error = sock_send(socket, request, fds, fd_count, clock_now_ns() + wait_ns);
	if (!error)
		error = receive_answer(socket, audit, &answer, &extra, wait_ns);
	if (error)
		return error;
	sock_close_fds(&extra); /* an answer has none */
	error = sock_check_answer(request, want, &answer);
	if (!error)
		*ret_answer = answer;
	return error;
}

static enum secpool_error wait_ready(struct enclave *enclave, uint64_t wait_ns)
{
	struct sock_extra extra = {.fd_count = 0};
	enum secpool_error error;
	struct msg msg;

	error = receive_answer(enclave->socket, &enclave->audit, &msg, &extra, wait_ns);
	if (error == SECPOOL_E_TIMEOUT)
		return err_set(error,
			"the enclave was not ready within %llu s: is the TPM working?",
			(unsigned long long)(wait_ns / CLOCK_NS_PER_S));
	if (error)
		return err_set(SECPOOL_E_SYSTEM, "the enclave ended while it started: /proc, "
						 "ptrace and seccomp must be available, "
						 "its log may say more");
	if (msg.type == MSG_REPLY && msg.u.reply.error != SECPOOL_OK) {
		error = err_from_number(msg.u.reply.error);
		err_set(error, "%s", msg.u.reply.detail);
	} else if (msg.type != MSG_ENC_READY || extra.fd_count != 1) {
		error = err_set(SECPOOL_E_PROTOCOL, "the enclave said %s before it was ready",
			msg_name(msg.type));
	} else {
		enclave->listener = sock_take_fd(&extra, 0);
		enclave->pid = (pid_t)msg.u.enc_ready.pid;
		enclave->provisioned = msg.u.enc_ready.provisioned != 0;
		enclave->recovered = msg.u.enc_ready.recovered != 0;
		enclave->generation = msg.u.enc_ready.generation;
	}
	sock_close_fds(&extra);
	return error;
}

enum secpool_error enclave_start(const struct enclave_options *options, struct enclave *ret_enclave)
{
	struct enclave enclave = {.socket = -1, .listener = -1, .audit = options->audit};
	char starter[NUMBER_BYTES];
	enum secpool_error error;
	int ends[2];

	/* below 3 they would be taken for stdin, stdout or stderr */
	if (options->policy_fd <= STDERR_FILENO)
		return err_set(SECPOOL_E_INVALID,
			"the policy's descriptor is %d: stdin, stdout and "
			"stderr must be open",
			options->policy_fd);
	error = sock_pair(ends);
	if (error)
		return error;
	snprintf(starter, sizeof starter, "%d", (int)getpid());
	enclave.guardian = fork();
	if (enclave.guardian == 0)
		become_guardian(options, ends[1], starter);
	if (enclave.guardian < 0)
		error = os_error("fork the guardian");
	os_close(&ends[1]);
	enclave.socket = ends[0];
	if (!error) {
		error = wait_ready(&enclave, options->recover ? READY_NS + TYPED_NS : READY_NS);
		if (error)
			end_guardian(enclave.guardian, 0);
	}
	if (error) {
		os_close(&enclave.socket);
		os_close(&enclave.listener);
		return error;
	}
	*ret_enclave = enclave;
	return SECPOOL_OK;
}

enum secpool_error enclave_check_policy(const struct policy *policy)
{
	struct ekcert_cas *cas = NULL;
	enum secpool_error error = ekcert_load(policy, &cas);

	ekcert_free(cas);
	return error;
}

void enclave_stop(struct enclave *enclave)
{
	struct msg stop = {.type = MSG_ENC_STOP}, answer;
	uint64_t deadline_ns = clock_now_ns() + STOP_NS;

	if (enclave->guardian <= 0)
		return;
	/* whether it answers or not, it is gone afterwards */
	if (enclave_exchange(
		    enclave->socket, &enclave->audit, &stop, NULL, 0, MSG_REPLY, &answer, STOP_NS))
		deadline_ns = 0;
	os_close(&enclave->socket);
	os_close(&enclave->listener);
	end_guardian(enclave->guardian, deadline_ns);
	enclave->guardian = 0;
	enclave->pid = 0;
}
