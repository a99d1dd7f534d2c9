/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/creates.h"

#include <stdlib.h>
#include <string.h>

#include "keymgr/auditlog.h"
#include "keymgr/devices.h"
#include "keymgr/directory.h"
#include "keymgr/dispatch.h"
#include "keymgr/events.h"
#include "keymgr/owners.h"
#include "keymgr/regionkeys.h"
#include "keymgr/regions.h"
#include "keymgr/releases.h"
#include "keymgr/session.h"
#include "keymgr/wraps.h"
#include "lib/base/log.h"

struct create {
	struct server_connection *connection; /* NULL: it has ended */
	uint32_t number;
	struct msg_region_create asked;
	struct regions_row row; /* id 0: nothing in the directory */
	struct msg_enc_key_wrapped wrapped;
	uint64_t wrap, extents;
	enum secpool_error error;
	char reason[ERR_DETAIL_BYTES];
};

/* Those of the next batch; while it is done no message is read, so that none comes in. */
struct creates {
	struct daemon *daemon;
	sd_event_source *source;
	size_t count;
	struct create rows[CREATES_BATCH];
};

/* The error of this thread's sentence, for the answer. */
static void fail(struct create *create, enum secpool_error error)
{
	create->error = error;
	msg_set_text(create->reason, sizeof create->reason, err_detail());
}

static void fail_all(struct creates *creates, enum secpool_error error)
{
	for (size_t i = 0; i < creates->count; i++)
		if (!creates->rows[i].error)
			fail(&creates->rows[i], error);
}

/* Nobody is there to be answered. */
static bool is_left(struct create *create)
{
	if (!create->error && !create->connection)
		fail(create, err_set(SECPOOL_E_CLOSED, "the client has ended its connection"));
	return !create->error;
}

/* Page sizes (DESIGN.md section 4), and the most pages a region has: the nonce's page number has 36 bits. */
enum { PAGE_BYTES_LEAST = 4096, PAGE_BYTES_MOST = 2 << 20 };
#define PAGES_MOST (1ull << 36)

static enum secpool_error check_shape(const struct msg_region_create *create)
{
	uint64_t page = create->page_bytes;

	if (page < PAGE_BYTES_LEAST || page > PAGE_BYTES_MOST || (page & (page - 1)) != 0)
		return err_set(SECPOOL_E_INVALID,
			"a page has 4 KiB to 2 MiB and is a power of two, not %llu bytes",
			(unsigned long long)page);
	if (create->bytes == 0 || create->bytes % page != 0 || create->bytes / page > PAGES_MOST)
		return err_set(SECPOOL_E_INVALID,
			"a region has 1 to 2^36 whole pages, not %llu bytes",
			(unsigned long long)create->bytes);
	if (!msg_redundancy_valid(create->data, create->lanes))
		return err_set(SECPOOL_E_INVALID,
			"a region has 1 to %d copies, or 2 or more data lanes and 1 to %d of "
			"parity, "
			"%d in all; not %u of data and %u in all",
			MSG_COPIES_MAX, MSG_PARITY_MAX, MSG_LANES_MAX, create->data, create->lanes);
	if (create->data > 1 && page > MSG_CODED_PAGE_BYTES_MAX)
		return err_set(SECPOOL_E_INVALID,
			"an erasure-coded region has pages of at most %d KiB",
			MSG_CODED_PAGE_BYTES_MAX >> 10);
	if (create->on_loss < MSG_ON_LOSS_SIGBUS || create->on_loss > MSG_ON_LOSS_REFILL)
		return err_set(SECPOOL_E_UNSUPPORTED, "there is no loss mode %u", create->on_loss);
	if (create->on_loss == MSG_ON_LOSS_SIGNAL ? !msg_signal_valid(create->signal)
						  : create->signal != 0)
		return err_set(SECPOOL_E_INVALID, "signal %u can't tell of a loss", create->signal);
	if (create->on_loss == MSG_ON_LOSS_FAILOVER && create->lanes < 2)
		return err_set(SECPOOL_E_INVALID, "failover needs redundancy");
	return SECPOOL_OK;
}

static enum secpool_error check_create(
	const struct server_connection *connection, const struct msg_region_create *create)
{
	const struct session *session = connection->session;
	struct regions_use use = {0};
	uint64_t bytes = regions_quota_bytes(create->bytes);
	enum secpool_error error = check_shape(create);

	if (!error && session->read_only)
		error = err_set(SECPOOL_E_DENIED, "this session was opened for reading alone");
	if (!error)
		error = policy_may_create(connection->daemon->policy, session->tenant,
			create->bytes, create->data, create->lanes, create->on_loss);
	if (!error)
		error = regions_count_use(connection->daemon->directory, session->tenant, &use);
	if (error)
		return error;
	if (use.regions >= session->quota.regions)
		return err_set(SECPOOL_E_QUOTA,
			"tenant %s has its %llu regions already: release one or raise "
			"quota.regions",
			session->tenant, (unsigned long long)session->quota.regions);
	if (use.bytes > session->quota.bytes || bytes > session->quota.bytes - use.bytes)
		return err_set(SECPOOL_E_QUOTA,
			"tenant %s uses %llu of its %llu MiB (what is being released counts until "
			"it is scrubbed), %llu more don't fit: wait, or raise quota.bytes",
			session->tenant, (unsigned long long)(use.bytes >> 20),
			(unsigned long long)(session->quota.bytes >> 20),
			(unsigned long long)(bytes >> 20));
	return SECPOOL_OK;
}

/* ---- the steps ---- */

static enum secpool_error place_one(
	struct create *create, const struct extents_device *usable, size_t count)
{
	const struct server_connection *connection = create->connection;
	const struct session *session = connection->session;
	const struct msg_region_create *asked = &create->asked;
	const struct policy_settings *settings = policy_settings(connection->daemon->policy);
	enum secpool_error error = check_create(connection, asked);

	/* one that has ended would have a region whose end nobody sees */
	if (!error)
		error = owners_watch(connection->daemon, &session->process);
	if (error)
		return error;
	create->row = (struct regions_row){.bytes = asked->bytes,
		.page_bytes = asked->page_bytes,
		.data = asked->data,
		.lanes = asked->lanes,
		.on_loss = asked->on_loss,
		.signal = asked->signal,
		.uid = connection->peer.uid,
		.process = session->process};
	MSG_SET(create->row.tenant, session->tenant);
	MSG_SET(create->row.name, asked->name);
	return regions_create(connection->daemon->directory, &create->row, settings->window_base,
		settings->window_bytes, usable, count);
}

/* Each is charged to its tenant before the next is looked at: quotas are exact within a batch. */
static void place_all(struct creates *creates)
{
	static struct extents_device usable[DEVICES_MOST];
	struct directory *directory = creates->daemon->directory;
	size_t count = 0;
	enum secpool_error error = devices_usable(creates->daemon, usable, &count);

	if (!error)
		error = directory_begin(directory);
	if (error) {
		fail_all(creates, error);
		return;
	}
	for (size_t i = 0; i < creates->count && error != SECPOOL_E_STORE; i++) {
		struct create *create = &creates->rows[i];

		if (!is_left(create))
			continue;
		error = place_one(create, usable, count);
		if (error)
			fail(create, error);
	}
	error = directory_finish(directory, error == SECPOOL_E_STORE ? error : SECPOOL_OK);
	if (!error)
		return;
	fail_all(creates, error);
	for (size_t i = 0; i < creates->count; i++)
		creates->rows[i].row.id = 0;
}

/* The enclave makes the keys, and holds them. */
static void make_keys(struct creates *creates)
{
	for (size_t i = 0; i < creates->count; i++) {
		struct create *create = &creates->rows[i];
		enum secpool_error error;

		if (!is_left(create))
			continue;
		error = regionkeys_make(
			create->connection, &create->row, create->row.epoch, &create->wrapped);
		if (error)
			fail(create, error);
	}
}

/* The wrapped keys are on the disk before the regions are live; all that were made, for the nodes that came with one may be above others' leaves. */
static void store_keys(struct creates *creates)
{
	const struct msg_enc_key_wrapped *keys[CREATES_BATCH];
	size_t count = 0;
	enum secpool_error error;

	for (size_t i = 0; i < creates->count; i++)
		if (creates->rows[i].wrapped.slot != 0)
			keys[count++] = &creates->rows[i].wrapped;
	if (count == 0)
		return;
	error = regionkeys_keep(creates->daemon, keys, count);
	if (error) {
		fail_all(creates, error);
		return;
	}
	for (size_t i = 0; i < creates->count; i++)
		creates->rows[i].wrap = creates->rows[i].wrapped.slot;
}

/* Once their records are on the disk the enclave hands the keys to the clients. */
static void send_keys(struct creates *creates)
{
	struct regionkeys_sent keys[CREATES_BATCH];
	struct create *of[CREATES_BATCH];
	size_t count = 0;
	enum secpool_error error;

	for (size_t i = 0; i < creates->count; i++) {
		struct create *create = &creates->rows[i];

		if (!is_left(create))
			continue;
		keys[count] = (struct regionkeys_sent){
			.region = create->row.id, .epoch = create->row.epoch};
		of[count++] = create;
	}
	error = regionkeys_send(creates->daemon, keys, count);
	if (error)
		fail_all(creates, error);
	for (size_t i = 0; i < count && !error; i++)
		if (keys[i].error)
			fail(of[i], regionkeys_not_sent(keys[i].error, of[i]->row.process.pid));
}

static enum secpool_error make_live(struct creates *creates)
{
	struct directory *directory = creates->daemon->directory;
	enum secpool_error error = directory_begin(directory);

	if (error)
		return error;
	for (size_t i = 0; i < creates->count && !error; i++) {
		struct create *create = &creates->rows[i];
		struct extents_row none;
		size_t count = 0;

		if (create->error)
			continue;
		error = regions_set_live(directory, create->row.id, create->wrap);
		if (!error)
			error = extents_list(
				directory, create->row.id, 0, &none, 0, &count, &create->extents);
	}
	return directory_finish(directory, error);
}

/* Those that never were live leave no trace: their keys, if the enclave made any, are destroyed (one that it holds without a record that could be refused), their space is free. */
static void undo_failed(struct creates *creates)
{
	struct daemon *daemon = creates->daemon;
	uint64_t slots[CREATES_BATCH];
	enum secpool_error error = SECPOOL_OK;
	size_t count = 0;

	for (size_t i = 0; i < creates->count && !error; i++) {
		struct create *create = &creates->rows[i];

		if (!create->error || create->row.id == 0)
			continue;
		slots[count++] = create->wrap;
		if (create->wrapped.slot != 0) /* else there is no key */
			error = regionkeys_end_unsynced(daemon, create->row.id, 0, NULL);
	}
	if (count == 0)
		return;
	/* those that the enclave held need no record */
	if (!error && !auditlog_refuses(daemon->auditlog))
		error = auditlog_sync(daemon->auditlog);
	if (!error)
		error = wraps_erase_all(daemon->wraps, slots, count);
	if (!error)
		error = directory_begin(daemon->directory);
	if (!error) {
		for (size_t i = 0; i < creates->count && !error; i++)
			if (creates->rows[i].error && creates->rows[i].row.id != 0)
				error = regions_undo(daemon->directory, creates->rows[i].row.id);
		error = directory_finish(daemon->directory, error);
	}
	if (error)
		daemon_fail(daemon, "create-not-undone", error);
	releases_kick(daemon);
}

static void send_created(struct server_connection *connection, uint32_t number,
	const struct regions_row *row, uint64_t extents)
{
	struct msg msg = {.type = MSG_REGION_CREATED, .number = number};

	msg.u.region_created.region = row->id;
	msg.u.region_created.epoch = row->epoch;
	msg.u.region_created.address = row->address;
	msg.u.region_created.bytes = row->bytes;
	msg.u.region_created.extent_count = (uint32_t)extents;
	server_send(connection, &msg, -1);
}

static void answer(struct daemon *daemon, const struct create *create)
{
	struct server_connection *connection = create->connection;
	const struct regions_row *row = &create->row;
	char redundancy[MSG_REDUNDANCY_BYTES];
	struct events_about about = {.tenant = row->tenant, .bytes = row->bytes, .region = row->id};

	if (!create->error)
		events_record(daemon, "created", &about, "%s, for process %d",
			msg_redundancy_name(row->data, row->lanes, redundancy), row->process.pid);
	else if (connection)
		dispatch_refuse(
			connection, create->number, err_set(create->error, "%s", create->reason));
	if (!create->error && connection)
		send_created(connection, create->number, row, create->extents);
	if (connection)
		server_resume(connection);
}

static int on_batch(sd_event_source *source, void *arg)
{
	struct creates *creates = arg;
	enum secpool_error error;

	(void)source;
	place_all(creates);
	make_keys(creates);
	store_keys(creates);
	send_keys(creates);
	error = make_live(creates);
	if (error)
		fail_all(creates, error);
	undo_failed(creates);
	for (size_t i = 0; i < creates->count; i++)
		answer(creates->daemon, &creates->rows[i]);
	memset(creates->rows, 0,
		sizeof creates->rows); /* wrapped keys stay nowhere but in their file */
	creates->count = 0;
	return 0;
}

/* ---- service ---- */

enum secpool_error creates_handle(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra)
{
	struct creates *creates = connection->daemon->creates;

	(void)extra;
	/* a go of turns has no more messages than a batch has places, and a batch is done before the next go */
	if (creates->count == CREATES_BATCH)
		return err_set(SECPOOL_E_INTERNAL, "more regions are asked for than turns came");
	creates->rows[creates->count++] = (struct create){
		.connection = connection, .number = msg->number, .asked = msg->u.region_create};
	server_hold(connection);
	sd_event_source_set_enabled(creates->source, SD_EVENT_ONESHOT);
	return SECPOOL_OK;
}

void creates_forget(struct daemon *daemon, const struct server_connection *connection)
{
	struct creates *creates = daemon->creates;

	for (size_t i = 0; creates && i < creates->count; i++)
		if (creates->rows[i].connection == connection)
			creates->rows[i].connection = NULL;
}

enum secpool_error creates_new(struct daemon *daemon, struct creates **ret_creates)
{
	struct creates *creates = calloc(1, sizeof *creates);

	if (!creates)
		return err_set(SECPOOL_E_NO_MEMORY, "creates: out of memory");
	creates->daemon = daemon;
	if (sd_event_add_defer(daemon->loop, &creates->source, on_batch, creates) < 0) {
		free(creates);
		return err_set(SECPOOL_E_SYSTEM, "creates: the loop refused a source");
	}
	sd_event_source_set_enabled(creates->source, SD_EVENT_OFF);
	*ret_creates = creates;
	return SECPOOL_OK;
}

void creates_free(struct creates *creates)
{
	if (!creates)
		return;
	sd_event_source_disable_unref(creates->source);
	free(creates);
}
