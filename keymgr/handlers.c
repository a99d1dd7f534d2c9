/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/handlers.h"

#include <string.h>

#include "keymgr/devices.h"
#include "keymgr/directory.h"
#include "keymgr/events.h"
#include "keymgr/hotplug.h"
#include "keymgr/owners.h"
#include "keymgr/regions.h"
#include "keymgr/releases.h"
#include "keymgr/rotate.h"
#include "keymgr/seals.h"
#include "keymgr/session.h"

/* A live region of this process, or a sealed one that its tenant may attach. */
static enum secpool_error readable(
	const struct server_connection *connection, uint64_t region, struct regions_row *ret_row)
{
	return seals_readable(connection, region, ret_row) == SECPOOL_OK
		       ? SECPOOL_OK
		       : session_region(connection, region, ret_row);
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
	error = readable(connection, msg->u.extents_get.region, &region);
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
	enum secpool_error error = readable(connection, msg->u.region_release.region, &region);
	bool sealed = !error && region.state == MSG_REGION_SEALED;

	(void)extra;
	if (sealed && strcmp(region.tenant, connection->session->tenant) != 0)
		error = err_set(SECPOOL_E_DENIED, "only its owner ends a sealed region");
	if (error)
		return error;
	releases_begin(connection->daemon, &region,
		sealed ? MSG_CLIENT_READERS : MSG_CLIENT_ACKNOWLEDGED, connection, msg->number);
	return SECPOOL_OK;
}

enum secpool_error handlers_resume(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra)
{
	struct regions_row region;
	enum secpool_error error = readable(connection, msg->u.region_resume.region, &region);

	(void)extra;
	if (!error && region.state == MSG_REGION_LIVE)
		error = owners_may_resume(connection->daemon, &connection->session->process);
	else if (!error)
		error = session_attach(connection, &region);
	if (error)
		return error;
	server_reply(connection, msg->number, SECPOOL_OK);
	if (region.rotate) /* it may not have been told */
		rotate_tell(connection->daemon, &region, 1);
	return SECPOOL_OK;
}
