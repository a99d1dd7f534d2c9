/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/requests.h"

#include <string.h>

#include "enclave/pagecipher.h"
#include "enclave/secmem.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/base/os.h"

/* The session is in the audit, or it is closed again; the front answers the client when the record is on disk. */
static enum secpool_error keep_session(struct requests *requests,
	const struct msg_enc_session_open *in, const struct session *session, uint64_t handle)
{
	const struct audit_entry entry = {.kind = AUDIT_SESSION_OPENED,
		.has_peer = true,
		.uid = session->uid,
		.pid = (uint32_t)session->pid,
		.tenant = in->tenant,
		.session = handle};
	enum secpool_error error = audit_add(&requests->audit, &entry);

	if (error && sessions_close(&requests->sessions, handle))
		error = err_set(SECPOOL_E_INTERNAL, "a session could not be closed again");
	return error;
}

static enum secpool_error session_open(struct requests *requests, const struct msg *request,
	struct sock_extra *extra, struct msg *answer)
{
	const struct msg_enc_session_open *in = &request->u.enc_session_open;
	struct msg_enc_session_opened *out = &answer->u.enc_session_opened;
	uint64_t life_ns = policy_settings(requests->policy)->session_ns;
	struct session session = {.expires_ns = life_ns == 0 ? 0 : clock_now_ns() + life_ns};
	struct policy_quota quota;
	struct sock_peer peer;
	uint64_t handle = 0;
	enum secpool_error error;

	/* the kernel's word, not the front's */
	error = sock_peer(extra->fds[0], &peer);
	if (!error)
		error = policy_may_be_tenant(
			requests->policy, in->tenant, peer.uid, peer.gid, &quota);
	if (error)
		return error;
	MSG_SET(session.tenant, in->tenant);
	session.uid = peer.uid;
	session.pid = peer.pid;
	error = sessions_open(&requests->sessions, &session, &extra->fds[0], &handle);
	if (!error)
		error = keep_session(requests, in, &session, handle);
	if (error)
		return error;
	answer->type = MSG_ENC_SESSION_OPENED;
	out->session = handle;
	out->uid = peer.uid;
	out->pid = (uint32_t)peer.pid;
	return SECPOOL_OK;
}

static enum secpool_error session_close(struct requests *requests, const struct msg *request,
	struct sock_extra *extra, struct msg *answer)
{
	const struct audit_entry entry = {
		.kind = AUDIT_SESSION_CLOSED, .session = request->u.enc_session_close.session};
	enum secpool_error error = sessions_close(&requests->sessions, entry.session);

	(void)extra;
	(void)answer;
	if (!error)
		audit_tell(&requests->audit, &entry);
	return error;
}

static enum secpool_error receipt(struct requests *requests, const struct msg *request,
	struct sock_extra *extra, struct msg *answer)
{
	const struct msg_enc_receipt *facts = &request->u.enc_receipt;
	const struct anchor *anchor = &requests->keys.anchor;
	uint8_t digest[RECEIPT_DIGEST_BYTES];
	const struct audit_entry entry = {.kind = AUDIT_RECEIPT,
		.tenant = facts->tenant,
		.region = facts->region,
		.epoch = facts->epoch,
		.generation = facts->generation,
		.bytes = facts->scrubbed_bytes,
		.receipt = facts->number,
		.sha256 = digest};
	char *document = answer->u.receipt.document;
	size_t bytes = 0;
	enum secpool_error error;

	(void)extra;
	/* the rest of it is the front's word; that a key has ended is not */
	if (vault_has_region(&requests->vault, facts->region))
		return err_set(SECPOOL_E_INVALID,
			"a receipt for region %llu, whose key was not destroyed",
			(unsigned long long)facts->region);
	answer->type = MSG_RECEIPT;
	error = receipt_sign(&requests->keys.signer, facts, anchor->generation, anchor->asserted,
		document, &bytes);
	if (!error)
		error = receipt_digest(document, bytes, digest);
	return error ? error : audit_add(&requests->audit, &entry);
}

static enum secpool_error status(struct requests *requests, const struct msg *request,
	struct sock_extra *extra, struct msg *answer)
{
	struct msg_enc_status_reply *out = &answer->u.enc_status_reply;

	(void)request;
	(void)extra;
	answer->type = MSG_ENC_STATUS_REPLY;
	out->sessions = requests->sessions.count;
	out->generation = requests->keys.anchor.generation;
	out->leaves = requests->tree.leaves;
	out->dropped = requests->tree.dropped;
	out->secret_memory = secmem_is_secret();
	out->sandboxed = 1; /* requests are served in the sandbox only: REQUESTS_SERVING */
	MSG_SET(out->tpm, requests->keys.tpm);
	MSG_SET(out->cipher, pagecipher_name());
	return SECPOOL_OK;
}

static enum secpool_error stop(struct requests *requests, const struct msg *request,
	struct sock_extra *extra, struct msg *answer)
{
	(void)request;
	(void)extra;
	(void)answer;
	requests->state = REQUESTS_STOPPING;
	return SECPOOL_OK;
}

#define IN(state) (1u << REQUESTS_##state)

static const struct row {
	uint32_t type;
	unsigned states; /* bits of enum requests_state */
	unsigned fds;	 /* descriptors that must come with it, neither more nor fewer */
	enum secpool_error (*handler)(
		struct requests *, const struct msg *, struct sock_extra *, struct msg *) MUST_USE;
} rows[] = {
	{MSG_ENC_SESSION_OPEN, IN(SERVING), 1, session_open},
	{MSG_ENC_SESSION_CLOSE, IN(SERVING), 0, session_close},
	{MSG_ENC_KEY_CREATE, IN(SERVING), 0, requests_key_create},
	{MSG_ENC_KEYS_SEND, IN(SERVING), 0, requests_keys_send},
	{MSG_ENC_KEY_DESTROY, IN(SERVING), 0, requests_key_destroy},
	{MSG_ENC_KEY_SEAL, IN(SERVING), 0, requests_key_seal},
	{MSG_ENC_KEY_GRANT, IN(SERVING), 0, requests_key_grant},
	{MSG_ENC_KEY_REVOKE, IN(SERVING), 0, requests_key_revoke},
	{MSG_ENC_KEY_ATTACH, IN(SERVING), 0, requests_key_attach},
	{MSG_ENC_LEAF_CLAIM, IN(SERVING), 0, requests_leaf_claim},
	{MSG_ENC_LEAF_DROP, IN(SERVING), 0, requests_leaf_drop},
	{MSG_ENC_ANCHOR_SEAL, IN(SERVING), 1, requests_anchor_seal},
	{MSG_ENC_ANCHOR_END, IN(SERVING), 0, requests_anchor_end},
	{MSG_ATTEST_BEGIN, IN(SERVING), 0, requests_attest_begin},
	{MSG_ATTEST_EVIDENCE, IN(SERVING), 0, requests_attest_evidence},
	{MSG_ENC_DEVICE_CHECK, IN(SERVING), 0, requests_device_check},
	{MSG_ENC_DEVICE_VOID, IN(SERVING), 0, requests_device_void},
	{MSG_ENC_DEVICE_ENROL, IN(SERVING), 0, requests_device_enrol},
	{MSG_ENC_DEVICE_KNOWN, IN(SERVING), 0, requests_device_known},
	{MSG_ENC_RECEIPT, IN(SERVING), 0, receipt},
	{MSG_ENC_AUDIT_NOTE, IN(SERVING), 0, requests_audit_note},
	{MSG_ENC_AUDIT_ANCHOR, IN(SERVING), 0, requests_audit_anchor},
	{MSG_ENC_STATUS, IN(SERVING), 0, status},
	{MSG_ENC_STOP, IN(SERVING), 0, stop},
};

static const struct row *find_row(uint32_t type)
{
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
		if (rows[i].type == type)
			return &rows[i];
	return NULL;
}

bool requests_allowed(uint32_t type, enum requests_state state)
{
	const struct row *row = find_row(type);

	return row && state < REQUESTS_STATES && (row->states & (1u << state)) != 0;
}

unsigned requests_fds(uint32_t type)
{
	const struct row *row = find_row(type);

	return row ? row->fds : 0;
}

void requests_refuse(struct msg *answer, enum secpool_error error)
{
	uint32_t number = answer->number;

	memset(answer, 0, sizeof *answer);
	answer->type = MSG_REPLY;
	answer->number = number;
	answer->u.reply.error = (uint32_t)error;
	MSG_SET(answer->u.reply.detail, error == SECPOOL_OK ? "" : err_detail());
}

bool requests_serve(struct requests *requests, const struct msg *request, struct sock_extra *extra,
	struct msg *ret_answer)
{
	const struct row *row = find_row(request->type);
	enum secpool_error error;
	bool go_on = true;

	memset(ret_answer, 0, sizeof *ret_answer);
	ret_answer->number = request->number;
	err_clear();
	if (!requests_allowed(request->type, requests->state) || extra->fd_count != row->fds) {
		error = err_set(SECPOOL_E_PROTOCOL,
			"the enclave does not take %s with %u descriptors in state %d",
			msg_name(request->type), extra->fd_count, (int)requests->state);
		log_error("request-not-allowed", error);
		go_on = false;
	} else {
		error = row->handler(requests, request, extra, ret_answer);
		if (error)
			requests_tell_refusal(requests, request, error);
		go_on = requests->state == REQUESTS_SERVING;
	}
	sock_close_fds(extra);
	if (error || ret_answer->type == 0)
		requests_refuse(ret_answer, error);
	return go_on;
}
