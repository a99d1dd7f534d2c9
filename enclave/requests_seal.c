/* SPDX-License-Identifier: Apache-2.0 */
/* What the enclave answers about sealed regions (docs/sealed.md); the table is in requests.c. Who asks is the session's tenant, by its own socket; what its owner wants is proved by the owner's key. */
#include <string.h>

#include "enclave/requests.h"
#include "lib/base/clock.h"
#include "lib/base/os.h"

static enum secpool_error begin(
	struct requests *requests, uint64_t handle, const struct session **ret_session)
{
	enum secpool_error error = requests_check_resting(requests);

	return error ? error
		     : sessions_get(&requests->sessions, handle, clock_now_ns(), ret_session);
}

static struct audit_entry entry_of(enum audit_kind kind, const struct session *session,
	uint64_t handle, const struct pagecipher_binding *binding)
{
	return (struct audit_entry){.kind = kind,
		.has_peer = true,
		.uid = session->uid,
		.pid = (uint32_t)session->pid,
		.tenant = session->tenant,
		.session = handle,
		.region = binding->region,
		.epoch = binding->epoch};
}

static enum secpool_error send(const struct session *session, uint64_t handle,
	const struct pagecipher_binding *binding, int fd)
{
	const struct requests_held key = {
		handle, binding->region, binding->epoch, binding->page_bytes, fd};
	enum secpool_error error = requests_send_key(session, &key);

	return error ? err_set(error, "process %d does not take its key", session->pid) : error;
}

enum secpool_error requests_key_seal(struct requests *requests, const struct msg *request,
	struct sock_extra *extra, struct msg *answer)
{
	const struct msg_enc_key_seal *in = &request->u.enc_key_seal;
	const struct pagecipher_binding binding = {in->region, in->epoch, in->page_bytes};
	const struct session *session = NULL;
	struct keytree_added leaf;
	struct audit_entry entry;
	int fd = -1;
	enum secpool_error error = begin(requests, in->session, &session);

	(void)extra;
	if (!error)
		error = vault_seal_region(&requests->vault, session->tenant, &binding, in->root,
			in->proof, &fd, &leaf);
	if (error)
		return error;
	entry = entry_of(AUDIT_KEY_SEALED, session, in->session, &binding);
	entry.sha256 = in->root;
	error = audit_keep(&requests->audit, &entry);
	/* the owner learns from the enclave itself what was sealed: an old proof that the front kept would show */
	if (!error)
		error = send(session, in->session, &binding, fd);
	os_close(&fd);
	if (error) { /* the front never hears of the nodes that were made for it */
		keytree_take_back(&requests->tree, &leaf);
		return error;
	}
	vault_end_unsealed(&requests->vault, &binding);
	requests_put_leaf(&binding, &leaf, answer);
	return SECPOOL_OK;
}

enum secpool_error requests_key_grant(struct requests *requests, const struct msg *request,
	struct sock_extra *extra, struct msg *answer)
{
	const struct msg_enc_key_grant *in = &request->u.enc_key_grant;
	const struct pagecipher_binding binding = {in->region, in->epoch, in->page_bytes};
	const struct session *session = NULL;
	struct keytree_added leaf;
	struct audit_entry entry;
	enum secpool_error error = begin(requests, in->session, &session);

	(void)extra;
	if (!error)
		error = policy_may_share(requests->policy, session->tenant, in->tenant);
	if (!error)
		error = vault_grant_region(
			&requests->vault, session->tenant, &binding, in->tenant, in->proof, &leaf);
	if (error)
		return error;
	entry = entry_of(AUDIT_KEY_GRANTED, session, in->session, &binding);
	entry.detail = in->tenant;
	error = audit_keep(&requests->audit, &entry);
	if (error)
		keytree_take_back(&requests->tree, &leaf);
	else
		requests_put_leaf(&binding, &leaf, answer);
	return error;
}

enum secpool_error requests_key_revoke(struct requests *requests, const struct msg *request,
	struct sock_extra *extra, struct msg *answer)
{
	const struct msg_enc_key_revoke *in = &request->u.enc_key_revoke;
	const struct pagecipher_binding binding = {.region = in->region, .epoch = in->epoch};
	const struct session *session = NULL;
	struct audit_entry entry;
	enum secpool_error error = begin(requests, in->session, &session);

	(void)extra;
	(void)answer;
	if (!error)
		error = vault_revoke_region(
			&requests->vault, session->tenant, &binding, in->tenant);
	if (error)
		return error;
	/* taking back is never refused for want of a record: one that was not kept is counted */
	entry = entry_of(AUDIT_KEY_REVOKED, session, in->session, &binding);
	entry.detail = in->tenant;
	entry.generation = requests->keys.anchor.generation + 1;
	audit_tell(&requests->audit, &entry);
	return SECPOOL_OK;
}

enum secpool_error requests_key_attach(struct requests *requests, const struct msg *request,
	struct sock_extra *extra, struct msg *answer)
{
	const struct msg_enc_key_attach *in = &request->u.enc_key_attach;
	const struct pagecipher_binding binding = {in->region, in->epoch, in->page_bytes};
	const struct session *session = NULL;
	const char *owner = vault_owner(&requests->vault, &binding);
	struct audit_entry entry;
	enum secpool_error error = begin(requests, in->session, &session);
	int fd = -1;

	(void)extra;
	(void)answer;
	if (!error && !owner)
		error = err_set(SECPOOL_E_NOT_FOUND, "region %llu is not sealed",
			(unsigned long long)in->region);
	/* a grant of before a new policy counts no more than that one allows */
	if (!error)
		error = policy_may_share(requests->policy, owner, session->tenant);
	if (!error)
		error = requests_check_devices(requests, in->devices, in->device_count);
	if (!error)
		error = vault_attach_region(&requests->vault, session->tenant, &binding, &fd);
	if (error)
		return error;
	entry = entry_of(AUDIT_KEY_ATTACHED, session, in->session, &binding);
	error = audit_keep(&requests->audit, &entry);
	if (!error)
		error = send(session, in->session, &binding, fd);
	os_close(&fd);
	return error;
}
