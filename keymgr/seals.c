/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/seals.h"

#include <stdlib.h>
#include <string.h>

#include "keymgr/devices.h"
#include "keymgr/dispatch.h"
#include "keymgr/events.h"
#include "keymgr/manifests.h"
#include "keymgr/regionkeys.h"
#include "keymgr/sealed.h"
#include "keymgr/session.h"
#include "keymgr/turns.h"
#include "lib/base/log.h"
#include "policy/policy.h"

/* A region that is to be sealed, while its manifest is copied. */
struct sealing {
	struct sealing *next;
	struct server_connection *connection; /* NULL: it has ended */
	uint32_t number;
	struct msg_region_seal asked;
	uint64_t bytes;
	int fd; /* the manifest as it came; -1 once it is copied */
};

struct seals {
	struct daemon *daemon;
	struct manifests *manifests;
	sd_event_source *source;
	struct sealing *first, **last;
	struct manifests_copy copy; /* of the first */
};

/* ---- checks ---- */

/* A name without a slash, which parts it from its tenant's (secpool_region_attach). */
static enum secpool_error check_name(const char *name)
{
	if (name[0] == '\0' || strchr(name, '/'))
		return err_set(SECPOOL_E_INVALID,
			"a sealed region needs a name without a slash, not '%s'", name);
	return SECPOOL_OK;
}

static enum secpool_error check_free(struct daemon *daemon, const char *tenant, const char *name)
{
	struct regions_row other;
	enum secpool_error error = sealed_find(daemon->directory, tenant, name, &other);

	if (!error)
		return err_set(SECPOOL_E_EXISTS, "tenant %s has a sealed region '%s' already",
			tenant, name);
	return error == SECPOOL_E_NOT_FOUND ? SECPOOL_OK : error;
}

/* A live region that can be sealed now. */
static enum secpool_error check_seal(const struct server_connection *connection,
	const struct msg_region_seal *asked, struct regions_row *ret_row)
{
	enum secpool_error error = session_region(connection, asked->region, ret_row);

	if (!error)
		error = check_name(asked->name);
	if (!error && ret_row->data > 1)
		error = err_set(SECPOOL_E_UNSUPPORTED,
			"an erasure-coded region can't be sealed: use a mirror");
	if (!error && (asked->epoch != ret_row->epoch || ret_row->next_epoch != 0 ||
			      ret_row->rotate || ret_row->wrap == 0))
		error = err_set(SECPOOL_E_BUSY, "region %llu gets a new key: try again",
			(unsigned long long)asked->region);
	if (!error)
		error = check_free(connection->daemon, ret_row->tenant, asked->name);
	return error;
}

static bool is_attached(const struct session *session, uint64_t region)
{
	const struct session_attached *at = session->attached;

	while (at && at->region != region)
		at = at->next;
	return at != NULL;
}

enum secpool_error seals_readable(
	const struct server_connection *connection, uint64_t region, struct regions_row *ret_row)
{
	const char *tenant = connection->session->tenant;
	struct regions_row row;
	uint64_t wrap = 0;
	enum secpool_error error = regions_find(connection->daemon->directory, region, &row);

	if (!error && row.state == MSG_REGION_SEALED && strcmp(row.tenant, tenant) != 0 &&
		!is_attached(connection->session, region))
		error = sealed_granted(connection->daemon->directory, region, tenant, &wrap);
	if (error == SECPOOL_E_NOT_FOUND || (!error && row.state != MSG_REGION_SEALED))
		error = err_set(
			SECPOOL_E_NOT_FOUND, "there is no region %llu", (unsigned long long)region);
	if (!error)
		*ret_row = row;
	return error;
}

/* The session's tenant's own. */
static enum secpool_error owned(
	const struct server_connection *connection, uint64_t region, struct regions_row *ret_row)
{
	enum secpool_error error = seals_readable(connection, region, ret_row);

	if (!error && strcmp(ret_row->tenant, connection->session->tenant) != 0)
		error = err_set(SECPOOL_E_DENIED, "region %llu is not this tenant's",
			(unsigned long long)region);
	return error;
}

/* ---- keys ---- */

/* The devices that a region's places are on and that are online. Errors: SECPOOL_E_NOT_ATTESTED while one of them is on its way back, SECPOOL_E_DEVICE_GONE where there is none. */
static enum secpool_error name_devices(
	struct daemon *daemon, uint64_t region, struct msg_enc_key_attach *attach)
{
	for (size_t i = 0; i < daemon->devices->count; i++) {
		const struct devices_row *device = daemon->devices->rows[i];
		uint64_t extents = 0;
		enum secpool_error error = directory_number(daemon->directory,
			"SELECT COUNT(*) FROM extents WHERE region = ?1 AND slot = ?2 AND state = "
			"?3",
			DIRECTORY_VALUES(DIRECTORY_N(region), DIRECTORY_N(device->slot),
				DIRECTORY_N(EXTENTS_IN_USE)),
			&extents);

		if (error)
			return error;
		if (extents == 0 || attach->device_count == MSG_LANES_MAX)
			continue;
		if (!device->seen || device->state == MSG_DEVICE_DISCOVERED ||
			device->state == MSG_DEVICE_ATTESTING)
			return err_set(SECPOOL_E_NOT_ATTESTED,
				"device %s is not back yet: try again", device->id);
		if (device->state == MSG_DEVICE_ONLINE)
			memcpy(attach->devices + MSG_NAME_BYTES * attach->device_count++,
				device->id, MSG_NAME_BYTES);
	}
	if (attach->device_count == 0)
		return err_set(SECPOOL_E_DEVICE_GONE, "no device of region %llu is online",
			(unsigned long long)region);
	return SECPOOL_OK;
}

/* The enclave sends the key to the client of the connection, if its tenant may have it. */
static enum secpool_error hand_out(
	struct server_connection *connection, const struct regions_row *region)
{
	struct msg request = {.type = MSG_ENC_KEY_ATTACH};
	struct msg_enc_key_attach *attach = &request.u.enc_key_attach;
	enum secpool_error error = name_devices(connection->daemon, region->id, attach);

	attach->session = connection->session->id;
	attach->region = region->id;
	attach->epoch = region->epoch;
	attach->page_bytes = region->page_bytes;
	return error ? error : daemon_ask(connection->daemon, &request, -1, MSG_REPLY, NULL);
}

/* It was checked, and its manifest is kept: the enclave wraps its root with the keys, that is stored, and the row says so. What fails after the enclave's answer ends the daemon: the next start has the region as it was. */
static enum secpool_error seal_now(struct server_connection *connection,
	const struct msg_region_seal *asked, const struct regions_row *region)
{
	struct daemon *daemon = connection->daemon;
	struct msg request = {.type = MSG_ENC_KEY_SEAL}, answer;
	struct msg_enc_key_seal *seal = &request.u.enc_key_seal;
	const struct msg_enc_key_wrapped *wrapped = &answer.u.enc_key_wrapped;
	enum secpool_error error;

	seal->session = connection->session->id;
	seal->region = region->id;
	seal->epoch = region->epoch;
	seal->page_bytes = region->page_bytes;
	memcpy(seal->root, asked->root, sizeof seal->root);
	memcpy(seal->proof, asked->proof, sizeof seal->proof);
	error = daemon_ask(daemon, &request, -1, MSG_ENC_KEY_WRAPPED, &answer);
	if (error) {
		/* after this the row may be sealed, and only a start that has read it removes the manifest */
		manifests_remove(daemon->seals->manifests, region->id);
		return error;
	}
	error = regionkeys_keep(daemon, &wrapped, 1);
	if (!error)
		error = sealed_set(
			daemon->directory, region->id, asked->name, asked->root, wrapped->slot);
	if (!error)
		error = regionkeys_erase(daemon, &region->wrap, 1);
	if (error)
		daemon_fail(daemon, "not-sealed", error);
	return error;
}

/* ---- sealing ---- */

/* Whether that very region was sealed with that root before: an answer may have been lost. */
static bool is_again(const struct server_connection *connection,
	const struct msg_region_seal *asked, struct regions_row *ret_row)
{
	uint8_t root[SEALED_ROOT_BYTES];

	return owned(connection, asked->region, ret_row) == SECPOOL_OK &&
	       strcmp(ret_row->name, asked->name) == 0 && ret_row->epoch == asked->epoch &&
	       sealed_root(connection->daemon->directory, asked->region, root) == SECPOOL_OK &&
	       memcmp(root, asked->root, sizeof root) == 0; /* lint: memcmp of public bytes */
}

static void end_first(struct seals *seals, enum secpool_error error)
{
	struct sealing *sealing = seals->first;
	struct server_connection *connection = sealing->connection;

	manifests_end(seals->manifests, &seals->copy);
	seals->copy = (struct manifests_copy){.from = -1, .to = -1};
	if (connection && error)
		dispatch_refuse(connection, sealing->number, error);
	else if (connection)
		server_reply(connection, sealing->number, SECPOOL_OK);
	if (connection)
		server_resume(connection);
	seals->first = sealing->next;
	if (!seals->first)
		seals->last = &seals->first;
	os_close(&sealing->fd);
	free(sealing);
}

static enum secpool_error finish_first(struct seals *seals)
{
	const struct sealing *sealing = seals->first;
	struct regions_row region = {.id = 0};
	/* while it was copied another connection may have sealed the region: what is kept then is that one's manifest */
	enum secpool_error error = check_seal(sealing->connection, &sealing->asked, &region);
	struct events_about about = {
		.tenant = region.tenant, .region = region.id, .bytes = region.bytes};

	if (error)
		return error;
	error = manifests_keep(seals->manifests, &seals->copy);
	if (!error)
		error = seal_now(sealing->connection, &sealing->asked, &region);
	if (error)
		return error;
	error = session_attach(sealing->connection, &region);
	if (error)
		log_error("attached-not-noted", error); /* it is not told of an end by another */
	events_record(seals->daemon, "sealed", &about, "as %s, by process %d", sealing->asked.name,
		sealing->connection->peer.pid);
	return SECPOOL_OK;
}

/* A piece of the first one's manifest, or what comes behind the last piece. */
static int on_turn(sd_event_source *source, void *arg)
{
	struct seals *seals = arg;
	struct sealing *sealing = seals->first;
	enum secpool_error error = SECPOOL_OK;
	bool done = false;

	if (!sealing->connection)
		error = SECPOOL_E_CLOSED;
	if (!error && sealing->fd >= 0)
		error = manifests_begin(seals->manifests, sealing->asked.region, sealing->bytes,
			&sealing->fd, &seals->copy);
	if (!error)
		error = manifests_go_on(&seals->copy, &done);
	if (!error && done)
		error = finish_first(seals);
	if (error || done)
		end_first(seals, error);
	if (seals->first)
		sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
	return 0;
}

enum secpool_error seals_handle_seal(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra)
{
	struct seals *seals = connection->daemon->seals;
	const struct msg_region_seal *asked = &msg->u.region_seal;
	struct sealing *sealing;
	struct regions_row region;
	enum secpool_error error;
	uint64_t bytes;

	if (is_again(connection, asked, &region)) {
		error = hand_out(connection, &region);
		if (!error)
			server_reply(connection, msg->number, SECPOOL_OK);
		return error;
	}
	if (extra->fd_count != 1)
		return err_set(SECPOOL_E_PROTOCOL, "a region is sealed with its manifest");
	error = check_seal(connection, asked, &region);
	if (error)
		return error;
	bytes = msg_manifest_bytes(region.bytes, region.page_bytes);
	error = manifests_check(extra->fds[0], bytes);
	if (error)
		return error;
	sealing = calloc(1, sizeof *sealing);
	if (!sealing)
		return err_set(SECPOOL_E_NO_MEMORY, "seals: out of memory");
	*sealing = (struct sealing){.connection = connection,
		.number = msg->number,
		.asked = *asked,
		.bytes = bytes,
		.fd = sock_take_fd(extra, 0)};
	*seals->last = sealing;
	seals->last = &sealing->next;
	server_hold(connection);
	sd_event_source_set_enabled(seals->source, SD_EVENT_ONESHOT);
	return SECPOOL_OK;
}

/* ---- grants ---- */

static enum secpool_error grant(struct server_connection *connection,
	const struct msg_region_grant *asked, const struct regions_row *region)
{
	struct daemon *daemon = connection->daemon;
	struct msg request = {.type = MSG_ENC_KEY_GRANT}, answer;
	struct msg_enc_key_grant *out = &request.u.enc_key_grant;
	const struct msg_enc_key_wrapped *wrapped = &answer.u.enc_key_wrapped;
	uint64_t slots[SEALED_GRANTS_MOST], wrap = 0;
	size_t count = 0;
	enum secpool_error error = policy_may_share(daemon->policy, region->tenant, asked->tenant);

	if (!error && strcmp(region->tenant, asked->tenant) == 0)
		error = err_set(SECPOOL_E_EXISTS, "tenant %s has it already", asked->tenant);
	if (!error &&
		sealed_granted(daemon->directory, region->id, asked->tenant, &wrap) == SECPOOL_OK)
		return SECPOOL_OK; /* told twice is no error */
	if (!error)
		error = sealed_grants(daemon->directory, region->id, slots, &count);
	if (!error && count == SEALED_GRANTS_MOST)
		error = err_set(SECPOOL_E_LIMIT, "a region is granted to %d tenants at most",
			(int)SEALED_GRANTS_MOST);
	if (error)
		return error;
	out->session = connection->session->id;
	out->region = region->id;
	out->epoch = region->epoch;
	out->page_bytes = region->page_bytes;
	MSG_SET(out->tenant, asked->tenant);
	memcpy(out->proof, asked->proof, sizeof out->proof);
	error = daemon_ask(daemon, &request, -1, MSG_ENC_KEY_WRAPPED, &answer);
	if (error)
		return error;
	error = regionkeys_keep(daemon, &wrapped, 1);
	if (!error)
		error = sealed_grant(daemon->directory, region->id, asked->tenant, wrapped->slot);
	if (error) /* the enclave believes in it */
		daemon_fail(daemon, "not-granted", error);
	return error;
}

/* The row first: after a crash the leaf is one that no row names, and ends. */
static enum secpool_error revoke_grant(struct server_connection *connection,
	const struct msg_region_grant *asked, const struct regions_row *region)
{
	struct daemon *daemon = connection->daemon;
	struct msg request = {.type = MSG_ENC_KEY_REVOKE};
	struct msg_enc_key_revoke *out = &request.u.enc_key_revoke;
	uint64_t wrap = 0;
	enum secpool_error error =
		sealed_granted(daemon->directory, region->id, asked->tenant, &wrap);

	if (!error)
		error = sealed_ungrant(daemon->directory, region->id, asked->tenant);
	if (error)
		return error;
	out->session = connection->session->id;
	out->region = region->id;
	out->epoch = region->epoch;
	MSG_SET(out->tenant, asked->tenant);
	/* for its record: whatever it says (the session may be too old), the leaf ends */
	(void)!daemon_ask(daemon, &request, -1, MSG_REPLY, NULL);
	error = regionkeys_erase(daemon, &wrap, 1);
	if (error)
		daemon_fail(daemon, "not-revoked", error);
	return error;
}

enum secpool_error seals_handle_grant(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra)
{
	const struct msg_region_grant *asked = &msg->u.region_grant;
	struct regions_row region;
	enum secpool_error error = owned(connection, asked->region, &region);
	struct events_about about = {.tenant = region.tenant, .region = asked->region};

	(void)extra;
	if (!error)
		error = asked->revoke ? revoke_grant(connection, asked, &region)
				      : grant(connection, asked, &region);
	if (error)
		return error;
	events_record(connection->daemon, asked->revoke ? "grant-revoked" : "granted", &about,
		"%s tenant %s", asked->revoke ? "from" : "to", asked->tenant);
	server_reply(connection, msg->number, SECPOOL_OK);
	return SECPOOL_OK;
}

/* ---- attaching ---- */

enum secpool_error seals_handle_attach(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra)
{
	const struct msg_region_attach *asked = &msg->u.region_attach;
	struct daemon *daemon = connection->daemon;
	struct msg answer = {.type = MSG_REGION_ATTACHED, .number = msg->number};
	struct msg_region_attached *out = &answer.u.region_attached;
	struct regions_row region, found;
	int fd = -1;
	enum secpool_error error =
		sealed_find(daemon->directory, asked->owner, asked->name, &found);

	(void)extra;
	if (!error && seals_readable(connection, found.id, &region) != SECPOOL_OK)
		error = err_set(SECPOOL_E_NOT_FOUND,
			"tenant %s has no sealed region '%s', or it is not granted", asked->owner,
			asked->name);
	if (!error)
		error = manifests_get(daemon->seals->manifests, region.id, &fd);
	if (!error)
		error = session_attach(connection, &region);
	if (!error)
		error = hand_out(connection, &region);
	if (!error) {
		out->region = region.id;
		out->epoch = region.epoch;
		out->address = region.address;
		out->bytes = region.bytes;
		out->page_bytes = region.page_bytes;
		out->lanes = region.lanes;
		out->manifest_bytes = msg_manifest_bytes(region.bytes, region.page_bytes);
		server_send(connection, &answer, fd);
	}
	os_close(&fd);
	return error;
}

/* ---- ends ---- */

/* To all that have attached it. */
static void tell_end(struct daemon *daemon, uint64_t region)
{
	struct msg msg = {.type = MSG_REGION_ENDED};
	struct server_connection *connection = server_first(daemon->server);

	msg.u.region_ended.region = region;
	for (; connection; connection = connection->next)
		if (connection->session && !connection->closing &&
			session_detach(connection->session, region))
			server_send(connection, &msg, -1);
}

enum secpool_error seals_ended(struct daemon *daemon, uint64_t region)
{
	uint64_t slots[SEALED_GRANTS_MOST];
	size_t count = 0;
	enum secpool_error error = sealed_grants(daemon->directory, region, slots, &count);

	if (!error)
		error = regionkeys_erase(daemon, slots, count);
	manifests_remove(daemon->seals->manifests, region);
	tell_end(daemon, region);
	return error;
}

void seals_forget(struct daemon *daemon, const struct server_connection *connection)
{
	for (struct sealing *s = daemon->seals ? daemon->seals->first : NULL; s; s = s->next)
		if (s->connection == connection)
			s->connection = NULL;
}

enum secpool_error seals_new(struct daemon *daemon, const char *state_dir, struct seals **ret_seals)
{
	struct seals *seals = calloc(1, sizeof *seals);
	enum secpool_error error;

	if (!seals)
		return err_set(SECPOOL_E_NO_MEMORY, "seals: out of memory");
	seals->daemon = daemon;
	seals->last = &seals->first;
	seals->copy = (struct manifests_copy){.from = -1, .to = -1};
	error = manifests_open(state_dir, daemon->directory, &seals->manifests);
	/* as turns, so that they take turns with it */
	if (!error && (sd_event_add_defer(daemon->loop, &seals->source, on_turn, seals) < 0 ||
			      sd_event_source_set_priority(seals->source, TURNS_PRIORITY) < 0 ||
			      sd_event_source_set_enabled(seals->source, SD_EVENT_OFF) < 0))
		error = err_set(SECPOOL_E_SYSTEM, "seals: the loop refused a source");
	if (error)
		seals_free(seals);
	else
		*ret_seals = seals;
	return error;
}

void seals_free(struct seals *seals)
{
	if (!seals)
		return;
	while (seals->first) {
		struct sealing *sealing = seals->first;

		seals->first = sealing->next;
		os_close(&sealing->fd);
		free(sealing);
	}
	manifests_end(seals->manifests, &seals->copy);
	sd_event_source_disable_unref(seals->source);
	manifests_close(seals->manifests);
	free(seals);
}
