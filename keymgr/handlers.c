/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/handlers.h"

#include <string.h>

#include "keymgr/devices.h"
#include "keymgr/directory.h"
#include "keymgr/events.h"
#include "keymgr/hotplug.h"
#include "keymgr/owners.h"
#include "keymgr/regionkeys.h"
#include "keymgr/regions.h"
#include "keymgr/releases.h"
#include "keymgr/rotate.h"
#include "keymgr/session.h"
#include "keymgr/wraps.h"

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

/* The wrapped key is on the disk before the region is live. */
static enum secpool_error keep_key(
	struct daemon *daemon, uint64_t region, const struct msg_enc_key_wrapped *wrapped)
{
	enum secpool_error error = regionkeys_keep(daemon, wrapped);

	if (error)
		return error;
	error = regions_set_live(daemon->directory, region, wrapped->slot);
	if (error && wraps_erase(daemon->wraps, wrapped->slot) != SECPOOL_OK)
		daemon_fail(daemon, "key-not-erased", SECPOOL_E_STORE);
	return error;
}

/* The enclave makes the key and hands it to the client; the wrapped key is stored before the client hears that all is well. */
static enum secpool_error make_key(
	struct server_connection *connection, const struct regions_row *row)
{
	struct msg_enc_key_wrapped wrapped;
	enum secpool_error error = regionkeys_make(connection, row, row->epoch, &wrapped);

	return error ? error : keep_key(connection->daemon, row->id, &wrapped);
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

/* One that never was live leaves no trace; one that is live already (its places could not be read) is released as any other. */
static void end_failed(struct daemon *daemon, const struct regions_row *row)
{
	struct regions_row now;
	enum secpool_error error = regions_find(daemon->directory, row->id, &now);

	if (error)
		daemon_fail(daemon, "create-not-undone", error);
	else if (now.state == REGIONS_CREATING)
		releases_undo(daemon, row->id);
	else
		releases_begin(daemon, &now, MSG_CLIENT_ACKNOWLEDGED, NULL, 0);
}

enum secpool_error handlers_create(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra)
{
	static struct extents_device usable[DEVICES_MOST];
	const struct msg_region_create *create = &msg->u.region_create;
	const struct session *session = connection->session;
	struct daemon *daemon = connection->daemon;
	const struct policy_settings *settings = policy_settings(daemon->policy);
	struct events_about about = {.tenant = session->tenant, .bytes = create->bytes};
	struct regions_row row = {.bytes = create->bytes,
		.page_bytes = create->page_bytes,
		.data = create->data,
		.lanes = create->lanes,
		.on_loss = create->on_loss,
		.signal = create->signal,
		.uid = connection->peer.uid,
		.process = session->process};
	char reason[ERR_DETAIL_BYTES], redundancy[MSG_REDUNDANCY_BYTES];
	struct extents_row none;
	uint64_t total = 0;
	size_t count = 0;
	enum secpool_error error;

	(void)extra;
	error = check_create(connection, create);
	if (!error)
		error = devices_usable(daemon, usable, &count);
	if (error)
		return error;
	MSG_SET(row.tenant, session->tenant);
	MSG_SET(row.name, create->name);
	error = regions_create(daemon->directory, &row, settings->window_base,
		settings->window_bytes, usable, count);
	if (error)
		return error;
	error = make_key(connection, &row);
	if (!error)
		error = extents_list(daemon->directory, row.id, 0, &none, 0, &count, &total);
	if (error) {
		msg_set_text(reason, sizeof reason, err_detail());
		end_failed(daemon, &row);
		return err_set(error, "%s", reason);
	}
	about.region = row.id;
	events_record(daemon, "created", &about, "%s, for process %d",
		msg_redundancy_name(row.data, row.lanes, redundancy), row.process.pid);
	send_created(connection, msg->number, &row, total);
	return SECPOOL_OK;
}

enum secpool_error handlers_extents(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra)
{
	struct extents_row rows[MSG_EXTENTS_MAX];
	struct msg answer = {.type = MSG_EXTENTS, .number = msg->number};
	struct msg_extents *out = &answer.u.extents;
	struct regions_row region;
	uint64_t total = 0;
	size_t count = 0;
	enum secpool_error error;

	(void)extra;
	error = session_region(connection, msg->u.extents_get.region, &region);
	if (!error)
		error = extents_list(connection->daemon->directory, region.id,
			msg->u.extents_get.first, rows, MSG_EXTENTS_MAX, &count, &total);
	if (error)
		return error;
	out->region = region.id;
	out->total = (uint32_t)total;
	out->first = msg->u.extents_get.first;
	out->count = (uint32_t)count;
	for (size_t i = 0; i < count; i++) {
		out->lane[i] =
			rows[i].lane | (rows[i].state == EXTENTS_TARGET ? MSG_LANE_TARGET : 0);
		out->slot[i] = rows[i].slot;
		out->region_offset[i] = rows[i].region_offset;
		out->offset[i] = rows[i].offset;
		out->bytes[i] = rows[i].bytes;
	}
	server_send(connection, &answer, -1);
	return SECPOOL_OK;
}

/* Places that work are not given up: their space would be held twice. */
static enum secpool_error check_given_up(
	struct daemon *daemon, const struct regions_row *region, struct devices_row *device)
{
	uint64_t in_use = 0;
	enum secpool_error error;

	if (device->state != MSG_DEVICE_ONLINE || devices_look(daemon, device))
		return SECPOOL_OK;
	error = directory_number(daemon->directory,
		"SELECT COUNT(*) FROM extents WHERE region = ?1 AND slot = ?2 AND state = ?3",
		DIRECTORY_VALUES(DIRECTORY_N(region->id), DIRECTORY_N(device->slot),
			DIRECTORY_N(EXTENTS_IN_USE)),
		&in_use);
	if (!error && in_use > 0)
		error = err_set(SECPOOL_E_BUSY,
			"device %s is online and whole: nothing is replaced", device->id);
	return error;
}

/* Nothing is in the new space yet: the region is not shown as whole before its client says that it is. */
static void await_rebuild(struct server_connection *connection, const struct regions_row *region)
{
	enum secpool_error error = session_note_walk(
		connection->session, region->id, MSG_PROGRESS_REBUILD, 0, region->bytes);

	if (error) /* it is not shown; the space is given all the same */
		log_error("rebuild-not-shown", error);
}

/* Space for what has none; slot 0: nothing is given up before. What was found is kept, also when it is not enough. */
static enum secpool_error place_again(
	struct server_connection *connection, const struct regions_row *region, uint64_t slot)
{
	static struct extents_device usable[DEVICES_MOST];
	struct daemon *daemon = connection->daemon;
	size_t count = 0;
	enum secpool_error error = devices_usable(daemon, usable, &count), placed = SECPOOL_OK;
	char reason[ERR_DETAIL_BYTES] = "";

	if (!error)
		error = directory_begin(daemon->directory);
	if (error)
		return error;
	if (slot != 0)
		error = extents_set_aside(daemon->directory, region->id, slot);
	if (!error)
		placed = extents_fill(daemon->directory, region->id, region->lanes,
			regions_lane_bytes(region), usable, count);
	if (placed == SECPOOL_E_NO_SPACE)
		msg_set_text(reason, sizeof reason, err_detail());
	else if (!error)
		error = placed;
	error = directory_finish(daemon->directory, error);
	if (!error && placed)
		error = err_set(placed, "%s", reason);
	if (!error)
		await_rebuild(connection, region);
	return error;
}

enum secpool_error handlers_replace(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra)
{
	struct daemon *daemon = connection->daemon;
	uint64_t slot = msg->u.region_replace.slot;
	struct devices_row *device = devices_at(daemon->devices, slot);
	struct events_about about = {.tenant = connection->session->tenant};
	char reason[ERR_DETAIL_BYTES] = "";
	struct regions_row region;
	enum secpool_error error;

	(void)extra;
	if (!device)
		return err_set(
			SECPOOL_E_NOT_FOUND, "there is no device %llu", (unsigned long long)slot);
	error = session_region(connection, msg->u.region_replace.region, &region);
	if (!error)
		error = check_given_up(daemon, &region, device);
	if (error)
		return error;
	error = place_again(connection, &region, slot);
	msg_set_text(reason, sizeof reason, error ? err_detail() : "new space on other devices");
	about.device = device->id;
	about.region = region.id;
	events_record(daemon, error ? "not-replaced" : "replaced", &about, "%s", reason);
	if (error)
		return err_set(error, "%s", reason);
	server_reply(connection, msg->number, SECPOOL_OK);
	return SECPOOL_OK;
}

enum secpool_error handlers_fill(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra)
{
	struct regions_row region;
	enum secpool_error error = session_region(connection, msg->u.region_fill.region, &region);

	(void)extra;
	if (!error)
		error = place_again(connection, &region, 0);
	if (!error)
		server_reply(connection, msg->number, SECPOOL_OK);
	return error;
}

enum secpool_error handlers_release(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra)
{
	struct regions_row region;
	enum secpool_error error =
		session_region(connection, msg->u.region_release.region, &region);

	(void)extra;
	if (!error)
		releases_begin(connection->daemon, &region, MSG_CLIENT_ACKNOWLEDGED, connection,
			msg->number);
	return error;
}

enum secpool_error handlers_resume(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra)
{
	struct regions_row region;
	enum secpool_error error = session_region(connection, msg->u.region_resume.region, &region);

	(void)extra;
	if (!error)
		error = owners_may_resume(connection->daemon, &connection->session->process);
	if (error)
		return error;
	server_reply(connection, msg->number, SECPOOL_OK);
	if (region.rotate) /* it may not have been told */
		rotate_tell(connection->daemon, &region, 1);
	return SECPOOL_OK;
}
