/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/drain.h"

#include "keymgr/devices.h"
#include "keymgr/devwork.h"
#include "keymgr/events.h"
#include "keymgr/extents.h"
#include "keymgr/rebalance.h"
#include "keymgr/releases.h"
#include "keymgr/revocation.h"
#include "keymgr/session.h"

static enum secpool_error find_device(
	struct daemon *daemon, uint64_t slot, struct devices_row **ret_device)
{
	*ret_device = devices_at(daemon->devices, slot);
	return *ret_device ? SECPOOL_OK
			   : err_set(SECPOOL_E_NOT_FOUND, "there is no device %llu",
				     (unsigned long long)slot);
}

/* rebalances: the device is not drained, so they must be better places than those there. */
static enum secpool_error take_targets(
	struct daemon *daemon, const struct regions_row *region, uint64_t slot, bool rebalances)
{
	static struct extents_device usable[DEVICES_MOST];
	size_t count = 0;
	enum secpool_error error = devices_usable(daemon, usable, &count);

	if (!error && rebalances)
		error = rebalance_narrow(daemon, slot, usable, &count);
	if (!error)
		error = directory_begin(daemon->directory);
	if (error)
		return error;
	return directory_finish(daemon->directory,
		extents_move(daemon->directory, region->id, slot, usable, count));
}

enum secpool_error drain_handle_move(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra)
{
	const struct msg_region_move *move = &msg->u.region_move;
	struct devices_row *device = NULL;
	struct regions_row region;
	bool rebalances;
	enum secpool_error error = find_device(connection->daemon, move->slot, &device);

	(void)extra;
	if (!error)
		error = session_region(connection, move->region, &region);
	rebalances =
		device && device->state == MSG_DEVICE_ONLINE &&
		rebalance_is_under_way(connection->daemon->rebalance, move->region, move->slot);
	if (!error && device->state != MSG_DEVICE_DRAINING && !rebalances)
		error = err_set(SECPOOL_E_BUSY, "device %s is %s: nothing is moved", device->id,
			msg_device_state_name(device->state));
	if (!error)
		error = revocation_may_move(connection->daemon, device, &region);
	if (!error)
		error = take_targets(connection->daemon, &region, move->slot, rebalances);
	if (!error)
		server_reply(connection, msg->number, SECPOOL_OK);
	return error;
}

enum secpool_error drain_handle_moved(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra)
{
	const struct msg_region_moved *moved = &msg->u.region_moved;
	struct daemon *daemon = connection->daemon;
	struct events_about about = {.tenant = connection->session->tenant};
	struct devices_row *device = NULL;
	struct regions_row region;
	enum secpool_error error = find_device(daemon, moved->slot, &device);

	(void)extra;
	if (!error)
		error = session_region(connection, moved->region, &region);
	if (!error)
		error = directory_begin(daemon->directory);
	if (error)
		return error;
	error = directory_finish(
		daemon->directory, extents_moved(daemon->directory, region.id, moved->slot));
	if (error)
		return error;
	about.device = device->id;
	about.region = region.id;
	events_record(daemon, "region-moved", &about, "what it had there is on other devices");
	error = devwork_look(daemon, device, NULL);
	if (error)
		return error;
	server_reply(connection, msg->number, SECPOOL_OK);
	releases_kick(daemon);
	return SECPOOL_OK;
}

enum secpool_error drain_handle_scrub(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra)
{
	struct daemon *daemon = connection->daemon;
	struct devices_row *device = devices_find(daemon->devices, msg->u.device_scrub.id);
	struct events_about about = {.device = msg->u.device_scrub.id};
	enum secpool_error error = SECPOOL_OK;

	(void)extra;
	if (!device || device->slot == 0)
		return err_set(SECPOOL_E_NOT_FOUND,
			"device %.63s never was online: nothing of it is in use or free",
			msg->u.device_scrub.id);
	if (devices_look(daemon, device))
		return err_set(SECPOOL_E_BUSY,
			"device %s is %s: only one that is online or draining is overwritten",
			device->id, msg_device_state_name(device->state));
	error = directory_begin(daemon->directory);
	if (error)
		return error;
	error = directory_finish(
		daemon->directory, extents_scrub_again(daemon->directory, device->slot));
	if (error)
		return error;
	events_record(
		daemon, "device-scrub", &about, "all that no region uses is overwritten again");
	error = devwork_scrub_begin(daemon, device);
	if (error)
		return error;
	server_reply(connection, msg->number, SECPOOL_OK);
	releases_kick(daemon);
	return SECPOOL_OK;
}

void drain_tell_drained(struct daemon *daemon, const char *id)
{
	struct msg msg = {.type = MSG_DEVICE_DRAINED};

	MSG_SET(msg.u.device_drained.id, id);
	server_send(daemon->devices->hotplug, &msg, -1);
}

void drain_look(struct daemon *daemon)
{
	for (size_t i = 0; i < daemon->devices->count; i++) {
		const struct devices_row *device = daemon->devices->rows[i];
		bool drained = false;
		enum secpool_error error;

		if (device->state != MSG_DEVICE_DRAINING || !daemon->devices->hotplug)
			continue;
		error = extents_drained(daemon->directory, device->slot, &drained);
		if (error)
			log_error("drain-not-seen", error);
		if (!error && drained)
			drain_tell_drained(daemon, device->id);
	}
}
