/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/verifier.h"

#include <openssl/crypto.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "enclave/ekcert.h"
#include "enclave/eventlog.h"
#include "enclave/quote_verify.h"
#include "enclave/sandbox.h"
#include "enclave/secmem.h"
#include "lib/base/log.h"
#include "lib/base/os.h"
#include "lib/wire/sock.h"

#define FOREVER_NS UINT64_MAX
/* How long its start may take, on a machine that is busy with other things. */
#define BEGIN_NS (20 * CLOCK_NS_PER_S)

_Static_assert(sizeof((struct msg_verify_begin *)0)->ek == TPM_PUBLIC_BYTES, "EK");
_Static_assert(sizeof((struct msg_verify_credential *)0)->credential == TPM_PUBLIC_BYTES, "ID");
_Static_assert(sizeof((struct msg_verify_credential *)0)->secret == TPM_PUBLIC_BYTES, "seed");
_Static_assert(sizeof((struct msg_verify_begin *)0)->secret == QUOTE_SECRET_BYTES, "secret");
_Static_assert(sizeof((struct msg_verify_evidence *)0)->attest == TPM_ATTEST_BYTES, "attest");
_Static_assert(sizeof((struct msg_verify_evidence *)0)->nonce == QUOTE_NONCE_BYTES, "nonce");
_Static_assert(sizeof((struct msg_verify_evidence *)0)->pcr_values == TPM_PCRS_MOST * TPM_PCR_BYTES,
	"PCR values");
_Static_assert(
	sizeof((struct msg_verify_begin *)0)->certificate == EKCERT_BYTES_MOST, "certificate");
_Static_assert(sizeof((struct msg_verify_evidence *)0)->log == EVENTLOG_BYTES_MOST, "log");
_Static_assert(sizeof((struct msg_verify_facts *)0)->firmware == EVENTLOG_TEXT_BYTES, "texts");

/* ---- in the verifier process ---- */

/* Whether a certificate is needed is the policy's to say, so a bad one is no error here. */
static void look_at_certificate(const struct ekcert_cas *cas, const struct msg_verify_begin *in,
	struct msg_verify_credential *out)
{
	enum secpool_error error = ekcert_verify(cas, in->certificate, in->certificate_bytes,
		in->ek, in->ek_bytes, (int64_t)(clock_calendar_ns() / CLOCK_NS_PER_S));

	out->certified = error == SECPOOL_OK;
	MSG_SET(out->uncertified, error ? err_detail() : "");
}

static enum secpool_error serve_begin(
	const struct ekcert_cas *cas, const struct msg_verify_begin *in, struct msg *answer)
{
	struct msg_verify_credential *out = &answer->u.verify_credential;
	size_t credential_bytes = 0, secret_bytes = 0;
	enum secpool_error error;

	if (in->ek_bytes > sizeof in->ek || in->ak_bytes > sizeof in->ak ||
		in->certificate_bytes > sizeof in->certificate)
		return err_set(SECPOOL_E_ATTESTATION, "a key or its certificate is too long");
	error = quote_public_name(in->ek, in->ek_bytes, out->ek_name);
	if (!error)
		error = quote_make_credential(in->ek, in->ek_bytes, in->ak, in->ak_bytes,
			in->secret, out->credential, &credential_bytes, out->secret, &secret_bytes);
	out->credential_bytes = (uint32_t)credential_bytes;
	out->secret_bytes = (uint32_t)secret_bytes;
	if (!error)
		look_at_certificate(cas, in, out);
	answer->type = MSG_VERIFY_CREDENTIAL;
	return error;
}

static enum secpool_error serve_evidence(const struct msg_verify_evidence *in, struct msg *answer)
{
	struct msg_verify_facts *out = &answer->u.verify_facts;
	struct eventlog_facts told = {.bytes = 0};
	struct quote_facts facts = {0};
	enum secpool_error error;

	if (in->ek_bytes > sizeof in->ek || in->ak_bytes > sizeof in->ak ||
		in->attest_bytes > sizeof in->attest ||
		in->signature_bytes > sizeof in->signature || in->pcr_count > TPM_PCRS_MOST ||
		in->log_bytes > sizeof in->log)
		return err_set(SECPOOL_E_ATTESTATION, "a part of the evidence is too long");
	error = quote_verify(in->ek, in->ek_bytes, in->ak, in->ak_bytes, in->attest,
		in->attest_bytes, in->signature, in->signature_bytes, in->nonce, sizeof in->nonce,
		in->pcrs, in->pcr_values, in->pcr_count, &facts);
	/* the log last: the values that it must replay to are then what a TPM signed */
	if (!error)
		error = eventlog_replay(in->log, in->log_bytes, in->pcrs, in->pcr_values, &told);
	answer->type = MSG_VERIFY_FACTS;
	out->reset_count = facts.reset_count;
	out->restart_count = facts.restart_count;
	MSG_SET(out->firmware, told.firmware);
	MSG_SET(out->id, told.id);
	MSG_SET(out->serial, told.serial);
	out->bytes = told.bytes;
	return error;
}

/* Answers requests until the enclave closes its end; anything that is not a request ends it too. */
static void serve(int socket, const struct ekcert_cas *cas)
{
	static struct msg request, answer;
	enum secpool_error error;

	for (;;) {
		if (sock_receive(socket, &request, NULL, FOREVER_NS) != SECPOOL_OK)
			return;
		memset(&answer, 0, sizeof answer);
		err_clear();
		if (request.type == MSG_VERIFY_BEGIN)
			error = serve_begin(cas, &request.u.verify_begin, &answer);
		else if (request.type == MSG_VERIFY_EVIDENCE)
			error = serve_evidence(&request.u.verify_evidence, &answer);
		else
			return;
		answer.number = request.number;
		secmem_wipe(&request, sizeof request);
		/* whatever its reason, a refusal is a verdict; other codes would say that this process failed */
		if (error)
			error = sock_reply(
				socket, answer.number, SECPOOL_E_ATTESTATION, FOREVER_NS);
		else
			error = sock_send(socket, &answer, NULL, 0, FOREVER_NS);
		if (error)
			return;
	}
}

static _Noreturn void run(int socket, const struct policy *policy)
{
	struct ekcert_cas *cas = NULL;
	enum secpool_error error = SECPOOL_OK;

	/* no configuration file: nothing outside decides which code runs here */
	if (OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL) != 1)
		error = err_set(SECPOOL_E_CRYPTO, "OpenSSL does not start in the verifier");
	tzset(); /* the C library reads its file at the first gmtime, of a certificate's dates */
	if (!error && policy)
		error = ekcert_load(policy, &cas);
	if (sock_reply(socket, 0, error, clock_now_ns() + VERIFIER_DEADLINE_NS) || error ||
		sandbox_drop_capabilities() || sandbox_close_all_but(socket) ||
		sandbox_enter(SANDBOX_VERIFIER, 0, -1, -1))
		_exit(1);
	serve(socket, cas);
	_exit(0);
}

/* ---- in the enclave ---- */

/* What it says first: whether it can begin. */
static enum secpool_error wait_begun(int socket)
{
	struct msg msg;
	enum secpool_error error = sock_receive(socket, &msg, NULL, clock_now_ns() + BEGIN_NS);

	if (error)
		return err_set(SECPOOL_E_SYSTEM, "the verifier process did not begin");
	if (msg.type != MSG_REPLY)
		return err_set(SECPOOL_E_PROTOCOL, "the verifier process began with %s",
			msg_name(msg.type));
	error = err_from_number(msg.u.reply.error);
	return error ? err_set(error, "%s", msg.u.reply.detail) : SECPOOL_OK;
}

enum secpool_error verifier_start(const struct policy *policy, struct verifier *ret_verifier)
{
	int ends[2];
	enum secpool_error error = sock_pair(ends);
	pid_t pid;

	if (error)
		return error;
	pid = fork();
	if (pid < 0) {
		error = os_error("fork the verifier");
		os_close(&ends[0]);
		os_close(&ends[1]);
		return error;
	}
	if (pid == 0)
		run(ends[1], policy);
	os_close(&ends[1]);
	error = wait_begun(ends[0]);
	if (error) {
		os_close(&ends[0]); /* it ends with it */
		return error;
	}
	*ret_verifier = (struct verifier){.socket = ends[0], .pid = pid};
	return SECPOOL_OK;
}

void verifier_stop(struct verifier *verifier)
{
	if (verifier->socket < 0)
		return;
	os_close(&verifier->socket);
	/* nobody waits for it, so that its id stays its own until the enclave ends */
	if (kill(verifier->pid, SIGKILL) != 0)
		log_event(LOG_LEVEL_WARNING, "verifier-gone", "pid=%d", (int)verifier->pid);
}

static enum secpool_error ask(
	struct verifier *verifier, struct msg *request, uint32_t want, struct msg *answer)
{
	enum secpool_error error;

	if (verifier->socket < 0)
		return err_set(SECPOOL_E_ATTESTATION,
			"the verifier process has failed: no device is "
			"attested until secpool-keymgrd is restarted");
	err_clear();
	error = sock_call(verifier->socket, request, NULL, 0, want, answer, NULL,
		clock_now_ns() + VERIFIER_DEADLINE_NS);
	/* an ATTESTATION error is its verdict; anything else says that the process itself failed */
	if (!error || error == SECPOOL_E_ATTESTATION)
		return error;
	log_error("verifier-failed", error);
	verifier_stop(verifier);
	return err_set(SECPOOL_E_ATTESTATION,
		"the verifier process failed on this evidence (%s): no device is attested until "
		"secpool-keymgrd is restarted",
		err_name(error));
}

enum secpool_error verifier_make_credential(struct verifier *verifier,
	const struct msg_verify_begin *request, struct msg_verify_credential *ret_credential)
{
	static struct msg question, answer;
	enum secpool_error error;

	memset(&question, 0, sizeof question);
	question.type = MSG_VERIFY_BEGIN;
	question.u.verify_begin = *request;
	error = ask(verifier, &question, MSG_VERIFY_CREDENTIAL, &answer);
	secmem_wipe(&question, sizeof question);
	if (error)
		return error;
	if (answer.u.verify_credential.credential_bytes > TPM_PUBLIC_BYTES ||
		answer.u.verify_credential.secret_bytes > TPM_PUBLIC_BYTES)
		return err_set(SECPOOL_E_ATTESTATION, "the verifier gave a credential too long");
	*ret_credential = answer.u.verify_credential;
	return SECPOOL_OK;
}

enum secpool_error verifier_check_quote(struct verifier *verifier,
	const struct msg_verify_evidence *request, struct msg_verify_facts *ret_facts)
{
	static struct msg question, answer;
	enum secpool_error error;

	memset(&question, 0, sizeof question);
	question.type = MSG_VERIFY_EVIDENCE;
	question.u.verify_evidence = *request;
	error = ask(verifier, &question, MSG_VERIFY_FACTS, &answer);
	if (!error)
		*ret_facts = answer.u.verify_facts;
	return error;
}
