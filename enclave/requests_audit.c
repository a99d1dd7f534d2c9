/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/requests.h"

#include <stdio.h>

/* What the front may have recorded by its word: nothing that the enclave itself decides. */
static bool note_kind(uint32_t note, enum audit_kind *ret_kind)
{
	static const enum audit_kind kinds[MSG_NOTES] = {
		[MSG_NOTE_REFUSED] = AUDIT_REFUSED,
		[MSG_NOTE_ROTATION_ASKED] = AUDIT_ROTATION_ASKED,
		[MSG_NOTE_POLICY_LOADED] = AUDIT_POLICY_LOADED,
		[MSG_NOTE_POLICY_REFUSED] = AUDIT_POLICY_REFUSED,
		[MSG_NOTE_REVOKED] = AUDIT_REVOKED,
		[MSG_NOTE_STOPPING] = AUDIT_STOPPING,
	};

	if (note == 0 || note >= MSG_NOTES)
		return false;
	*ret_kind = kinds[note];
	return true;
}

enum secpool_error requests_audit_note(struct requests *requests, const struct msg *request,
	struct sock_extra *extra, struct msg *answer)
{
	const struct msg_enc_audit_note *note = &request->u.enc_audit_note;
	struct audit_entry entry = {.by_front = true,
		.has_peer = note->peer != 0,
		.uid = note->uid,
		.pid = note->pid,
		.tenant = note->tenant,
		.region = note->region,
		.detail = note->detail};

	(void)extra;
	(void)answer;
	if (!note_kind(note->kind, &entry.kind))
		return err_set(SECPOOL_E_INVALID, "there is no note %u", note->kind);
	requests->audit.missed += note->missed;
	if (note->error)
		entry.error = err_from_number(note->error);
	if (entry.kind == AUDIT_REFUSED || entry.kind == AUDIT_POLICY_REFUSED) {
		audit_tell(&requests->audit, &entry);
		return SECPOOL_OK;
	}
	return audit_keep(&requests->audit, &entry);
}

enum secpool_error requests_audit_anchor(struct requests *requests, const struct msg *request,
	struct sock_extra *extra, struct msg *answer)
{
	char text[AUDIT_ANCHOR_BYTES];
	enum secpool_error error = audit_anchor(&requests->audit, text);

	(void)request;
	(void)extra;
	if (error)
		return error;
	answer->type = MSG_ENC_AUDIT_ANCHORED;
	MSG_SET(answer->u.enc_audit_anchored.text, text);
	return SECPOOL_OK;
}

void requests_tell_refusal(
	struct requests *requests, const struct msg *request, enum secpool_error error)
{
	struct audit_entry entry = {.kind = AUDIT_REFUSED, .error = error};
	char detail[ERR_DETAIL_BYTES + 40];

	snprintf(detail, sizeof detail, "%s: %s", msg_name(request->type), err_detail());
	entry.detail = detail;
	switch (request->type) {
	case MSG_ENC_SESSION_OPEN:
		entry.tenant = request->u.enc_session_open.tenant;
		break;
	case MSG_ENC_KEY_CREATE:
		entry.session = request->u.enc_key_create.session;
		entry.region = request->u.enc_key_create.region;
		entry.epoch = request->u.enc_key_create.epoch;
		break;
	case MSG_ATTEST_BEGIN:
		entry.kind = AUDIT_NOT_ATTESTED;
		entry.device = request->u.attest_begin.id;
		break;
	case MSG_ENC_DEVICE_ENROL:
		entry.device = request->u.enc_device_enrol.id;
		break;
	default:
		break;
	}
	audit_tell(&requests->audit, &entry);
}
