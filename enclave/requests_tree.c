/* SPDX-License-Identifier: Apache-2.0 */
/* What the enclave answers about region keys and the key tree; the table is in requests.c. */
#include <string.h>
#include <sys/mman.h>

#include "enclave/requests.h"
#include "lib/base/clock.h"
#include "lib/base/os.h"

_Static_assert(sizeof((struct msg_enc_key_wrapped *)0)->wrapped == WRAP_BLOB_BYTES_MOST, "");
_Static_assert(
	sizeof((struct msg_enc_key_wrapped *)0)->records == KEYTREE_ADDED_MOST * KEYFILE_NODE_BYTES,
	"");

enum secpool_error requests_check_resting(const struct requests *requests)
{
	if (requests->keys.anchor.pending)
		return err_set(SECPOOL_E_BUSY, "a new generation of the key tree is under way");
	return SECPOOL_OK;
}

void requests_put_leaf(const struct pagecipher_binding *binding, const struct keytree_added *leaf,
	struct msg *answer)
{
	struct msg_enc_key_wrapped *out = &answer->u.enc_key_wrapped;

	answer->type = MSG_ENC_KEY_WRAPPED;
	out->region = binding->region;
	out->epoch = binding->epoch;
	out->slot = (uint64_t)leaf->slot + 1;
	out->node_count = leaf->node_count;
	for (uint32_t i = 0; i < leaf->node_count; i++)
		out->nodes[i] = leaf->nodes[i];
	memcpy(out->records, leaf->records, leaf->node_count * (size_t)KEYFILE_NODE_BYTES);
	out->wrapped_bytes = (uint32_t)leaf->blob_bytes;
	memcpy(out->wrapped, leaf->blob, leaf->blob_bytes);
}

enum secpool_error requests_check_devices(
	const struct requests *requests, const uint8_t *devices, uint32_t count)
{
	struct verdicts_device device;
	char id[MSG_NAME_BYTES];
	enum secpool_error error = SECPOOL_OK;

	if (count == 0 || count > MSG_LANES_MAX)
		return err_set(SECPOOL_E_INVALID, "a region on %u devices", count);
	for (uint32_t i = 0; i < count && !error; i++) {
		memcpy(id, devices + i * sizeof id, sizeof id);
		id[sizeof id - 1] = '\0';
		error = verdicts_fresh(&requests->verdicts, id, clock_now_ns(), &device);
	}
	return error;
}

/* ---- keys that are on their way to a client ---- */

static struct requests_held *find_held(struct requests *requests, uint64_t region, uint64_t epoch)
{
	for (size_t i = 0; i < requests->held_count; i++)
		if (requests->held[i].region == region &&
			(epoch == 0 || requests->held[i].epoch == epoch))
			return &requests->held[i];
	return NULL;
}

/* The last one takes its place. */
static void drop_held(struct requests *requests, struct requests_held *held)
{
	os_close(&held->fd);
	*held = requests->held[--requests->held_count];
}

void requests_drop_held(struct requests *requests)
{
	while (requests->held_count > 0)
		drop_held(requests, requests->held);
}

enum secpool_error requests_send_key(
	const struct session *session, const struct requests_held *held)
{
	struct msg msg = {.type = MSG_REGION_KEY};
	enum secpool_error error;

	msg.u.region_key.region = held->region;
	msg.u.region_key.epoch = held->epoch;
	msg.u.region_key.page_bytes = held->page_bytes;
	msg.u.region_key.protection = MSG_PROTECTION_XTS_GMAC;
	error = sock_send(session->socket, &msg, &held->fd, 1, 0);
	/* codes that say whose fault it is: the client's, not the enclave's or the front's */
	if (error == SECPOOL_E_TIMEOUT)
		return SECPOOL_E_BUSY;
	if (error == SECPOOL_E_DAEMON_GONE)
		return SECPOOL_E_CLOSED;
	return error;
}

static enum secpool_error send_held(struct requests *requests, uint64_t region, uint64_t epoch)
{
	struct requests_held *held = epoch ? find_held(requests, region, epoch) : NULL;
	const struct session *session = NULL;
	enum secpool_error error;

	if (!held)
		return err_set(SECPOOL_E_INVALID, "no key of region %llu, epoch %llu is held",
			(unsigned long long)region, (unsigned long long)epoch);
	error = sessions_get(&requests->sessions, held->session, clock_now_ns(), &session);
	if (!error)
		error = requests_send_key(session, held);
	if (!error)
		drop_held(requests, held);
	return error;
}

enum secpool_error requests_keys_send(struct requests *requests, const struct msg *request,
	struct sock_extra *extra, struct msg *answer)
{
	const struct msg_enc_keys_send *in = &request->u.enc_keys_send;
	enum secpool_error error = requests_check_resting(requests);

	(void)extra;
	if (!error && in->count > MSG_KEYS_MAX)
		error = err_set(SECPOOL_E_INVALID, "%u keys in one message", in->count);
	/* one wait for all of their records */
	if (!error)
		error = audit_sync(&requests->audit);
	if (error)
		return error;
	answer->type = MSG_ENC_KEYS_SENT;
	for (uint32_t i = 0; i < in->count; i++)
		answer->u.enc_keys_sent.errors[i] =
			send_held(requests, in->regions[i], in->epochs[i]);
	return SECPOOL_OK;
}

/* The record of it, which is on disk before it is sent. */
static enum secpool_error add_created(struct requests *requests, const struct session *session,
	const struct msg_enc_key_create *in)
{
	const struct audit_entry entry = {.kind = AUDIT_KEY_CREATED,
		.has_peer = true,
		.uid = session->uid,
		.pid = (uint32_t)session->pid,
		.tenant = session->tenant,
		.session = in->session,
		.region = in->region,
		.epoch = in->epoch};

	return audit_add(&requests->audit, &entry);
}

enum secpool_error requests_key_create(struct requests *requests, const struct msg *request,
	struct sock_extra *extra, struct msg *answer)
{
	const struct msg_enc_key_create *in = &request->u.enc_key_create;
	const struct pagecipher_binding binding = {in->region, in->epoch, in->page_bytes};
	const struct session *session = NULL;
	enum secpool_error error;
	struct keytree_added leaf;
	int fd = -1;

	(void)extra;
	error = requests_check_resting(requests);
	if (!error && requests->held_count == MSG_KEYS_MAX)
		error = err_set(SECPOOL_E_LIMIT, "%d keys are held, and not sent", MSG_KEYS_MAX);
	if (!error)
		error = sessions_get(&requests->sessions, in->session, clock_now_ns(), &session);
	if (!error)
		error = requests_check_devices(requests, in->devices, in->device_count);
	if (!error)
		error = vault_make_region(&requests->vault, session->tenant, &binding,
			MSG_PROTECTION_XTS_GMAC, &fd, &leaf);
	if (error)
		return error;
	error = add_created(requests, session, in);
	if (error) {
		os_close(&fd);
		/* the front never hears of the nodes that were made for it */
		vault_take_back(&requests->vault, &binding, &leaf);
		return error;
	}
	requests->held[requests->held_count++] =
		(struct requests_held){in->session, in->region, in->epoch, in->page_bytes, fd};
	requests_put_leaf(&binding, &leaf, answer);
	return SECPOOL_OK;
}

/* Keys of the region that nobody has: their end can't be refused. Whether there were any. */
static bool end_held(struct requests *requests, uint64_t region, uint64_t epoch)
{
	struct audit_entry entry = {.kind = AUDIT_KEY_DESTROYED,
		.region = region,
		.generation = requests->keys.anchor.generation + 1,
		.detail = "it was not handed out"};
	struct requests_held *held;
	bool any = false;

	while ((held = find_held(requests, region, epoch)) != NULL) {
		entry.epoch = held->epoch;
		drop_held(requests, held);
		audit_tell(&requests->audit, &entry);
		vault_destroy_region(&requests->vault, region, entry.epoch);
		any = true;
	}
	return any;
}

enum secpool_error requests_key_destroy(struct requests *requests, const struct msg *request,
	struct sock_extra *extra, struct msg *answer)
{
	struct msg_enc_key_destroyed *out = &answer->u.enc_key_destroyed;
	const struct msg_enc_key_destroy *in = &request->u.enc_key_destroy;
	/* durable with the next generation */
	const struct audit_entry entry = {.kind = AUDIT_KEY_DESTROYED,
		.region = in->region,
		.epoch = in->epoch,
		.generation = requests->keys.anchor.generation + 1};
	enum secpool_error error;

	(void)extra;
	if (in->region == 0)
		return err_set(SECPOOL_E_INVALID, "a region without a number");
	error = requests_check_resting(requests);
	if (error)
		return error;
	/* the record first; what was held has had its own */
	if (!end_held(requests, in->region, in->epoch) ||
		(in->epoch == 0 && vault_has_region(&requests->vault, in->region)))
		error = audit_add(&requests->audit, &entry);
	if (error)
		return error;
	vault_destroy_region(&requests->vault, in->region, in->epoch);
	answer->type = MSG_ENC_KEY_DESTROYED;
	out->region = in->region;
	out->generation = entry.generation;
	out->destroyed_ns = clock_calendar_ns();
	return SECPOOL_OK;
}

/* A stored key went: nothing that could be refused. */
static void tell_dropped(struct requests *requests, const char *tenant, uint64_t region,
	uint64_t epoch, const char *detail)
{
	const struct audit_entry entry = {.kind = AUDIT_STORED_KEY_DESTROYED,
		.tenant = tenant,
		.region = region,
		.epoch = epoch,
		.generation = requests->keys.anchor.generation + 1,
		.detail = detail};

	audit_tell(&requests->audit, &entry);
}

static void tell_unclaimed(void *arg, const char *tenant, uint64_t region, uint64_t epoch)
{
	tell_dropped(arg, tenant, region, epoch, "no region has it: left by a crash");
}

static void tell_unwanted(void *arg, const char *tenant, uint64_t region, uint64_t epoch)
{
	tell_dropped(arg, tenant, region, epoch, "its program may go on with the key");
}

/* Slots are numbered from 1 on outside. */
enum secpool_error requests_leaf_claim(struct requests *requests, const struct msg *request,
	struct sock_extra *extra, struct msg *answer)
{
	const struct msg_enc_leaf_claim *in = &request->u.enc_leaf_claim;
	enum secpool_error error = requests_check_resting(requests);

	(void)extra;
	if (!error && in->count > MSG_LEAVES_MAX)
		error = err_set(SECPOOL_E_INVALID, "%u leaves in one message", in->count);
	for (uint32_t i = 0; i < in->count && !error; i++)
		error = keytree_claim(
			&requests->tree, in->slots[i] - 1, in->regions[i], in->epochs[i]);
	if (error)
		return error;
	answer->type = MSG_ENC_LEAVES;
	if (in->all)
		answer->u.enc_leaves.dropped =
			keytree_claimed(&requests->tree, tell_unclaimed, requests);
	answer->u.enc_leaves.dirty = keytree_dirty(&requests->tree);
	return SECPOOL_OK;
}

enum secpool_error requests_leaf_drop(struct requests *requests, const struct msg *request,
	struct sock_extra *extra, struct msg *answer)
{
	const struct msg_enc_leaf_drop *in = &request->u.enc_leaf_drop;
	enum secpool_error error = requests_check_resting(requests);

	(void)extra;
	(void)answer;
	if (!error && in->count > MSG_LEAVES_MAX)
		error = err_set(SECPOOL_E_INVALID, "%u leaves in one message", in->count);
	for (uint32_t i = 0; i < in->count && !error; i++)
		error = keytree_drop_slot(
			&requests->tree, in->slots[i] - 1, tell_unwanted, requests);
	return error;
}

/* The front gives memory for it: its descriptor is mapped, and what is written there is all wrapped. */
enum secpool_error requests_anchor_seal(struct requests *requests, const struct msg *request,
	struct sock_extra *extra, struct msg *answer)
{
	struct buf_writer writer = {.capacity = KEYFILE_ROOT_BYTES_MOST};
	void *memory = mmap(NULL, KEYFILE_ROOT_BYTES_MOST, PROT_READ | PROT_WRITE, MAP_SHARED,
		extra->fds[0], 0);
	enum secpool_error error;

	if (memory == MAP_FAILED)
		return os_error("map the memory for a new generation");
	writer.bytes = memory;
	anchor_set_audit(&requests->keys.anchor, requests->audit.head, requests->audit.count,
		requests->audit.bytes);
	error = anchor_seal(
		&requests->keys.anchor, &requests->tree, request->u.enc_anchor_seal.last, &writer);
	munmap(memory, KEYFILE_ROOT_BYTES_MOST);
	if (error)
		return error;
	answer->type = MSG_ENC_ANCHOR_SEALED;
	answer->u.enc_anchor_sealed.bytes = writer.used;
	return SECPOOL_OK;
}

enum secpool_error requests_anchor_end(struct requests *requests, const struct msg *request,
	struct sock_extra *extra, struct msg *answer)
{
	struct anchor *anchor = &requests->keys.anchor;
	uint64_t erased = requests->tree.dropped;
	enum secpool_error error = SECPOOL_OK;

	(void)extra;
	if (!request->u.enc_anchor_end.commit && anchor->counted != anchor->generation)
		return err_set(
			SECPOOL_E_INVALID, "the TPM has begun to count: there is no way back");
	if (!request->u.enc_anchor_end.commit) {
		anchor_give_up(anchor, &requests->tree);
		return SECPOOL_OK;
	}
	error = anchor_commit(anchor, &requests->tree);
	if (error)
		return error;
	answer->type = MSG_ENC_ANCHORED;
	answer->u.enc_anchored.generation = anchor->counted;
	answer->u.enc_anchored.erased = anchor->pending ? 0 : erased;
	return SECPOOL_OK;
}
