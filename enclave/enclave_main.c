/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/enclave_main.h"

#include <malloc.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "enclave/guardian.h"
#include "enclave/pagecipher.h"
#include "enclave/primitives.h"
#include "enclave/recover.h"
#include "enclave/requests.h"
#include "enclave/sandbox.h"
#include "enclave/secmem.h"
#include "enclave/selftest.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/base/os.h"

#define FOREVER_NS UINT64_MAX
/* How long the front may take to have a record on disk. */
#define KEPT_NS (60 * CLOCK_NS_PER_S)
/* How long the front may take to read an answer. */
#define ANSWER_NS (10 * CLOCK_NS_PER_S)

/* M_PERTURB, mallopt(3): freed memory is overwritten. tpm2-tss unseals into an ordinary block. */
enum { FREED_BYTE = 0xa5 };
/* Descriptors beside the sessions': stderr, the sockets, keys that are held, a message's. */
enum { OTHER_FDS = 32 + MSG_KEYS_MAX };

/* ---- start ---- */

/* Before anything is read: no debugger, no dump, and the guardian's hold is checked. */
static enum secpool_error shut_out(void)
{
	enum secpool_error error = sandbox_harden();

	if (!error)
		error = guardian_check();
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
	/* a sanitizer brings an allocator of its own, with an option of its own: enclave.c */
	if (!error && mallopt(M_PERTURB, FREED_BYTE) != 1)
		error = err_set(SECPOOL_E_SYSTEM, "mallopt: freed memory can't be overwritten");
#endif
	return error;
}

/* The policy and its text; the caller frees the text. */
static enum secpool_error read_policy(const struct enclave_options *options, char **ret_text,
	size_t *ret_bytes, struct policy **ret_policy)
{
	enum secpool_error error;
	int fd = options->policy_fd;

	if (lseek(fd, 0, SEEK_SET) < 0)
		error = os_error("%s: can't be read from its start", options->policy_name);
	else
		error = os_read_fd(
			fd, options->policy_name, POLICY_FILE_BYTES_MOST, ret_text, ret_bytes);
	if (!error)
		error = policy_load_text(*ret_text, *ret_bytes, options->policy_name, ret_policy);
	os_close(&fd);
	return error;
}

/* The policy first, because it looks user names up; then the verifier, because it must not inherit a key. */
static enum secpool_error load(
	struct requests *requests, const struct enclave_options *options, unsigned *ret_fds)
{
	const struct policy_settings *settings;
	struct policy *policy = NULL;
	enum secpool_error error;
	char *text = NULL;
	size_t bytes = 0;

	error = sandbox_raise_limits(SESSIONS_MOST + OTHER_FDS, ret_fds);
	if (!error && *ret_fds <= OTHER_FDS)
		error = err_set(
			SECPOOL_E_LIMIT, "only %u descriptors: raise RLIMIT_NOFILE", *ret_fds);
	if (!error)
		error = read_policy(options, &text, &bytes, &policy);
	if (error)
		goto out;
	requests->policy = policy;
	settings = policy_settings(policy);
	error = verifier_start(policy, &requests->verifier);
	if (!error)
		error = secmem_init(
			settings->allow_memfd_without_secret ? SECMEM_ALLOW_LOCKED : SECMEM_REFUSE);
	if (settings->demand_openssl)
		pagecipher_demand_openssl();
	if (!error)
		error = selftest_run();
	/* the very bytes that were taken; no digest before there is secret memory for OpenSSL */
	if (!error)
		error = primitives_sha256(text, bytes, requests->policy_sha256);
out:
	free(text);
	return error;
}

/* One signature before the sandbox: OpenSSL sets up random numbers and tables at its first. */
static enum secpool_error warm_up(const struct requests *requests)
{
	static struct msg_enc_receipt facts = {.region = 1,
		.tenant = "warm-up",
		.readback = MSG_READBACK_UNREACHABLE,
		.client = MSG_CLIENT_DEAD};
	static char document[MSG_RECEIPT_BYTES];
	size_t bytes = 0;

	return receipt_sign(&requests->keys.signer, &facts, 0, 0, document, &bytes);
}

static enum secpool_error enter_sandbox(const struct requests *requests)
{
	enum secpool_error error = warm_up(requests);

	if (!error)
		error = sandbox_drop_capabilities();
	if (!error)
		error = sandbox_enter(SANDBOX_ENCLAVE, requests->verifier.pid,
			tpm_descriptor(requests->keys.anchor.tpm), requests->keys.anchor.wraps_fd);
	return error;
}

/* The audit goes on from its file, which must have what the last generation sealed of it, unless the operator begins a new one: then the front has a generation made at once. */
static enum secpool_error open_audit(
	struct requests *requests, const struct enclave_options *options)
{
	const struct anchor *anchor = &requests->keys.anchor;
	enum secpool_error error;

	audit_init(&requests->audit, &requests->keys.signer);
	error = audit_resume(
		&requests->audit, options->state_dir, !options->store_exists || options->new_audit);
	if (!error && !options->new_audit)
		error = audit_check_sealed(&requests->audit, options->state_dir, anchor->audit_head,
			anchor->audit_count, anchor->audit_bytes);
	return error;
}

/* By the operator's word and recovery key the store becomes this TPM's, before it is opened as ever. */
static enum secpool_error recover(struct requests *requests, const struct enclave_options *options,
	const struct anchor_options *anchor)
{
	const struct enclave_recover *asked = options->recover;
	struct recover_claim claim = {
		.key_fd = asked->key_fd, .generation = asked->generation, .next = asked->next};
	enum secpool_error error;
	size_t bytes = 0;

	if (OPENSSL_hexstr2buf_ex(claim.audit_head, sizeof claim.audit_head, &bytes,
		    asked->audit_head, '\0') == 1 &&
		bytes == sizeof claim.audit_head)
		error = recover_run(anchor, &claim, &requests->tree);
	else
		error = err_set(SECPOOL_E_INVALID,
			"'%.80s' is no audit's head: expected 64 hexadecimal digits",
			asked->audit_head);
	os_close(&claim.key_fd);
	return error;
}

static enum secpool_error open_keys(
	struct requests *requests, const struct enclave_options *options)
{
	const struct policy_settings *settings = policy_settings(requests->policy);
	const struct anchor_options anchor = {.tpm = options->tpm,
		.state_dir = options->state_dir,
		.pcrs = settings->host_pcrs,
		.may_provision = !options->store_exists,
		.recovery = settings->recovery_key,
		.recovery_fd = options->recovery_fd};
	int shown = options->recovery_fd > 0 ? options->recovery_fd : -1;
	enum secpool_error error =
		options->recover ? recover(requests, options, &anchor) : SECPOOL_OK;

	if (!error)
		error = hostkeys_open(&anchor, &requests->tree, &requests->keys);
	os_close(&shown);
	return error;
}

/* All of the start; *ret_listener is the clients' socket. */
static enum secpool_error start(
	struct requests *requests, const struct enclave_options *options, int *ret_listener)
{
	unsigned fds = 0;
	enum secpool_error error = shut_out();

	if (!error)
		error = load(requests, options, &fds);
	if (!error)
		error = open_keys(requests, options);
	if (error)
		return error;
	requests->keys.anchor.skipped_most = policy_settings(requests->policy)->anchor_skipped_most;
	error = open_audit(requests, options);
	if (error)
		return error;
	vault_init(&requests->vault, &requests->tree);
	if (policy_settings(requests->policy)->demand_openssl)
		requests->vault.engine = KEYPAGE_OPENSSL;
	sessions_init(&requests->sessions, fds - OTHER_FDS);
	error = sock_listen(options->socket_path, 0666, ret_listener);
	if (!error)
		error = enter_sandbox(requests);
	if (!error)
		requests->state = REQUESTS_SERVING;
	return error;
}

/* ---- the audit ---- */

/*
 * As audit_sink: by way of the front, which has the file. arg: the socket to it. Without an answer nobody knows whether the record is there: the enclave ends, and the next one takes the chain's end
 * from the file.
 */
static enum secpool_error send_record(void *arg, const char *line, bool wait)
{
	static struct msg record, kept;
	const int *socket = arg;
	enum secpool_error error;

	record.type = MSG_ENC_AUDIT;
	record.number++;
	record.u.enc_audit.wait = wait;
	MSG_SET(record.u.enc_audit.line, line);
	error = sock_send(*socket, &record, NULL, 0, clock_now_ns() + ANSWER_NS);
	if (!error)
		error = sock_receive(*socket, &kept, NULL, clock_now_ns() + KEPT_NS);
	if (!error && (kept.type != MSG_ENC_AUDIT_KEPT || kept.number != record.number))
		error = err_set(SECPOOL_E_PROTOCOL, "a record of the audit was answered by %s",
			msg_name(kept.type));
	if (error) {
		log_error("audit-not-answered", error);
		_exit(1);
	}
	error = err_from_number(kept.u.enc_audit_kept.error);
	return error ? err_set(error, "%s", kept.u.enc_audit_kept.detail) : SECPOOL_OK;
}

/* The first record of this run; without it nothing is served. */
static enum secpool_error begin_audit(
	struct requests *requests, const struct enclave_options *options, int *socket)
{
	const struct anchor *anchor = &requests->keys.anchor;
	char detail[ERR_DETAIL_BYTES], asserted[64] = "";
	const struct audit_entry entry = {.kind = requests->keys.provisioned	? AUDIT_PROVISIONED
						  : anchor_is_recovered(anchor) ? AUDIT_RECOVERED
										: AUDIT_UNSEALED,
		.generation = anchor->generation,
		.sha256 = requests->policy_sha256,
		.detail = detail};

	if (anchor->asserted > 0)
		snprintf(asserted, sizeof asserted, "; freshness: asserted, at generation %llu",
			(unsigned long long)anchor->asserted);
	snprintf(detail, sizeof detail, "%s%s%s", requests->keys.tpm, asserted,
		options->new_audit && requests->audit.count == 0
			? "; the operator began a new audit (--new-audit)"
			: "");
	requests->audit.sink = send_record;
	requests->audit.sink_arg = socket;
	return audit_keep(&requests->audit, &entry);
}

static enum secpool_error say_ready(const struct requests *requests, int socket, int listener)
{
	struct msg ready = {.type = MSG_ENC_READY};

	ready.u.enc_ready.pid = (uint32_t)getpid();
	ready.u.enc_ready.provisioned = requests->keys.provisioned;
	ready.u.enc_ready.recovered = anchor_is_recovered(&requests->keys.anchor);
	ready.u.enc_ready.secret_memory = secmem_is_secret();
	ready.u.enc_ready.generation = requests->keys.anchor.generation;
	return sock_send(socket, &ready, &listener, 1, clock_now_ns() + ANSWER_NS);
}

/* ---- service ---- */

/* Until the front stops it or is gone (SECPOOL_OK), or does what it may not. */
static enum secpool_error serve(struct requests *requests, int socket)
{
	static struct msg request, answer;
	struct sock_extra extra;
	enum secpool_error error;

	for (;;) {
		extra.fd_count = 0;
		error = sock_receive(socket, &request, &extra, FOREVER_NS);
		if (error == SECPOOL_E_DAEMON_GONE)
			return SECPOOL_OK;
		if (error)
			return error;
		bool go_on = requests_serve(requests, &request, &extra, &answer);
		error = sock_send(socket, &answer, NULL, 0, clock_now_ns() + ANSWER_NS);
		if (!error && !go_on && requests->state != REQUESTS_STOPPING)
			_exit(1); /* the answer has said why */
		if (error || !go_on)
			return error;
	}
}

_Noreturn void enclave_main_run(const struct enclave_options *options, int socket)
{
	static struct requests requests;
	enum secpool_error error;
	int listener = -1;

	log_init("secpool-enclave", LOG_LEVEL_INFO);
	requests.verifier.socket = -1;
	/* /proc/self/exe would be shown as "exe"; a failure changes only that */
	if (prctl(PR_SET_NAME, "secpool-enclave", 0, 0, 0) != 0)
		log_event(LOG_LEVEL_WARNING, "no-process-name", "role=enclave");
	error = start(&requests, options, &listener);
	if (!error)
		error = begin_audit(&requests, options, &socket);
	if (!error)
		error = say_ready(&requests, socket, listener);
	os_close(&listener);
	if (!error)
		error = serve(&requests, socket);
	if (error) {
		log_error("enclave-ends", error);
		if (sock_reply(socket, 0, error, clock_now_ns() + ANSWER_NS))
			log_event(LOG_LEVEL_WARNING, "front-gone", "untold=%s", err_name(error));
	}
	verifier_stop(&requests.verifier);
	requests_drop_held(&requests);
	sessions_done(&requests.sessions);
	vault_done(&requests.vault);
	keytree_done(&requests.tree);
	hostkeys_done(&requests.keys);
	/* no exit handlers: there is nothing to flush, and they call what the sandbox refuses */
	_exit(error ? 1 : 0);
}
