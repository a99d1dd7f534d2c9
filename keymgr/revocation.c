/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/revocation.h"

#include <stdio.h>

#include "keymgr/events.h"
#include "keymgr/lanes.h"
#include "keymgr/regions.h"
#include "keymgr/server.h"
#include "lib/base/clock.h"

enum { NS_PER_US = 1000 };

static bool is_running(const struct devices_row *device)
{
	return device->revoked_ns != 0 && !device->cut_off;
}

/* When what is left is given up; UINT64_MAX: never. By the calendar, as it goes on over restarts; a clock that was set back begins it anew. */
static uint64_t left_ns(const struct daemon *daemon, const struct devices_row *device)
{
	uint64_t bound = policy_settings(daemon->policy)->revoke_ns, now = clock_calendar_ns();
	uint64_t past = now > device->revoked_ns ? now - device->revoked_ns : 0;

	if (revocation_at_end(device->revocation, REVOCATION_SINGLE) != REVOCATION_DESTROY)
		return UINT64_MAX;
	return past < bound ? bound - past : 0;
}

static enum secpool_error situation_of(struct daemon *daemon, const struct devices_row *device,
	const struct regions_row *region, enum revocation_situation *ret_situation)
{
	uint32_t lanes = 0;
	enum secpool_error error = lanes_live(daemon, region->id, regions_lane_bytes(region),
		device->slot, LANES_PRESUMED, &lanes);

	if (!error)
		*ret_situation = device->foreign	 ? REVOCATION_FOREIGN
				 : lanes >= region->data ? REVOCATION_REDUNDANT
							 : REVOCATION_SINGLE;
	return error;
}

static enum policy_drains drains_of(const struct daemon *daemon)
{
	return policy_settings(daemon->policy)->revoke_drains;
}

/* What is to be done with all that is there. */
struct survey {
	bool moves, ends;
};

static void tell_tenant(struct daemon *daemon, const struct devices_row *device,
	const struct regions_row *region, enum revocation_situation situation)
{
	struct events_about about = {.device = device->id,
		.tenant = region->tenant,
		.region = region->id,
		.bytes = region->bytes};

	events_record(daemon, "region-revoked", &about,
		"device %s, data %s: now %s, then %s after %llu s",
		revocation_cause_name(device->revocation), revocation_situation_name(situation),
		revocation_action_name(
			revocation_now(device->revocation, situation, drains_of(daemon))),
		revocation_action_name(revocation_at_end(device->revocation, situation)),
		(unsigned long long)(policy_settings(daemon->policy)->revoke_ns / CLOCK_NS_PER_S));
}

/* Looks at each live region that has space there; tells: their tenants hear of it. */
static enum secpool_error survey_regions(struct daemon *daemon, const struct devices_row *device,
	bool tells, struct survey *ret_survey)
{
	static const char sql[] =
		"SELECT " REGIONS_COLUMNS " FROM regions WHERE state = ?1 AND id IN"
		" (SELECT region FROM extents WHERE slot = ?2 AND state IN (?3, ?4)) ORDER BY id";
	struct survey survey = {.moves = false};
	struct directory_rows *rows = NULL;
	enum secpool_error error = directory_query(daemon->directory, sql,
		DIRECTORY_VALUES(DIRECTORY_N(MSG_REGION_LIVE), DIRECTORY_N(device->slot),
			DIRECTORY_N(EXTENTS_IN_USE), DIRECTORY_N(EXTENTS_TARGET)),
		&rows);

	while (!error && directory_next(rows, &error)) {
		enum revocation_situation situation = REVOCATION_NOTHING;
		struct regions_row region;
		enum revocation_action now;

		regions_read_row(rows, &region);
		error = situation_of(daemon, device, &region, &situation);
		if (error)
			break;
		now = revocation_now(device->revocation, situation, drains_of(daemon));
		survey.moves = survey.moves || now == REVOCATION_MOVE;
		survey.ends =
			survey.ends || now == REVOCATION_DESTROY ||
			revocation_at_end(device->revocation, situation) == REVOCATION_DESTROY;
		if (tells)
			tell_tenant(daemon, device, &region, situation);
	}
	directory_done(rows);
	if (!error)
		*ret_survey = survey;
	return error;
}

static enum secpool_error store(struct daemon *daemon, const struct devices_row *device)
{
	return directory_run(daemon->directory,
		"UPDATE devices SET revoked_ns = ?2, revocation = ?3 WHERE slot = ?1",
		DIRECTORY_VALUES(DIRECTORY_N(device->slot), DIRECTORY_N(device->revoked_ns),
			DIRECTORY_N(device->revocation)));
}

static void failed(struct daemon *daemon, enum secpool_error error)
{
	daemon_fail(daemon, "revocation-failed", error);
}

void revocation_told(
	struct daemon *daemon, struct devices_row *device, uint32_t why, bool same_media)
{
	const uint8_t *ek = device->ek_known ? device->ek : NULL;
	enum revocation_cause cause = revocation_cause_of(
		device->state, why, policy_is_revoked(daemon->policy, device->id, ek));
	struct events_about about = {.device = device->id, .bytes = device->bytes};
	struct survey survey = {.moves = false};
	enum secpool_error error;

	device->drain_asked = false;
	device->by_operator = device->state == MSG_DEVICE_DRAINING && why == MSG_WHY_COMMAND;
	if (cause == REVOCATION_NONE || device->slot == 0)
		return;
	/* what takes nothing away from data does not call off what does */
	if (device->revoked_ns != 0 &&
		revocation_now(cause, REVOCATION_SINGLE, POLICY_DRAINS_READABLE) == REVOCATION_HOLD)
		return;
	device->revocation = cause;
	device->foreign = !same_media;
	error = survey_regions(daemon, device, device->revoked_ns == 0, &survey);
	if (!error && device->revoked_ns == 0 && (survey.moves || survey.ends)) {
		device->revoked_ns = clock_calendar_ns();
		events_record(daemon, "device-revoked", &about, "%s: %s",
			revocation_cause_name(cause),
			survey.moves ? "what is there moves to other devices"
				     : "what is there stays until its time is over");
	}
	if (!error && device->revoked_ns != 0)
		error = store(daemon, device);
	if (error)
		failed(daemon, error);
	else
		revocation_look(daemon);
}

void revocation_end(struct daemon *daemon, struct devices_row *device)
{
	enum secpool_error error = SECPOOL_OK;
	bool any = device->revoked_ns != 0;

	device->revocation = REVOCATION_NONE;
	device->revoked_ns = 0;
	device->cut_off = device->foreign = device->drain_asked = device->by_operator = false;
	if (any && device->slot != 0)
		error = store(daemon, device);
	if (error)
		failed(daemon, error);
}

enum secpool_error revocation_may_move(
	struct daemon *daemon, const struct devices_row *device, const struct regions_row *region)
{
	enum revocation_situation situation = REVOCATION_NOTHING;
	enum secpool_error error;

	if (device->revoked_ns == 0 || device->by_operator)
		return SECPOOL_OK;
	error = situation_of(daemon, device, region, &situation);
	if (!error &&
		revocation_now(device->revocation, situation, drains_of(daemon)) != REVOCATION_MOVE)
		error = err_set(SECPOOL_E_DENIED,
			"device %s is %s, and what is there is %s: the policy's revoke_drains "
			"keeps it there",
			device->id, revocation_cause_name(device->revocation),
			revocation_situation_name(situation));
	return error;
}

static void tell_hotplugd(struct daemon *daemon, const struct devices_row *device, bool cut_off)
{
	struct msg msg = {.type = MSG_DEVICE_DRAIN};

	if (!daemon->devices->hotplug)
		return;
	MSG_SET(msg.u.device_drain.id, device->id);
	msg.u.device_drain.cut_off = cut_off;
	MSG_SET(msg.u.device_drain.cause, revocation_cause_name(device->revocation));
	server_send(daemon->devices->hotplug, &msg, -1);
}

static bool has_room(const struct daemon *daemon)
{
	for (size_t i = 0; i < daemon->devices->count; i++)
		if (daemon->devices->rows[i]->state == MSG_DEVICE_ONLINE)
			return true;
	return false;
}

/* Given up as if it were gone: what regions have there gets other space, and they get other keys. */
static void cut_off(struct daemon *daemon, struct devices_row *device)
{
	char cause[ERR_DETAIL_BYTES];

	device->cut_off = true;
	snprintf(cause, sizeof cause, "%s, and its time is over: what was left there is given up",
		revocation_cause_name(device->revocation));
	devices_leave(daemon, device, MSG_DEVICE_LOST, cause);
	tell_hotplugd(daemon, device, true);
}

static enum secpool_error go_on(struct daemon *daemon, struct devices_row *device)
{
	struct survey survey = {.moves = false};
	enum secpool_error error;

	if (left_ns(daemon, device) == 0 ||
		revocation_now(device->revocation,
			device->foreign ? REVOCATION_FOREIGN : REVOCATION_SINGLE,
			drains_of(daemon)) == REVOCATION_DESTROY) {
		cut_off(daemon, device);
		return SECPOOL_OK;
	}
	if (device->drain_asked || device->state == MSG_DEVICE_DRAINING || !has_room(daemon))
		return SECPOOL_OK;
	error = survey_regions(daemon, device, false, &survey);
	if (!error && survey.moves) {
		tell_hotplugd(daemon, device, false);
		device->drain_asked = daemon->devices->hotplug != NULL;
	}
	return error;
}

static int on_time(sd_event_source *source, uint64_t usec, void *arg)
{
	(void)source;
	(void)usec;
	revocation_look(arg);
	return 0;
}

static enum secpool_error arm(struct daemon *daemon, uint64_t left)
{
	struct devices *devices = daemon->devices;

	devices->revocations = sd_event_source_disable_unref(devices->revocations);
	if (left != UINT64_MAX &&
		sd_event_add_time_relative(daemon->loop, &devices->revocations, CLOCK_MONOTONIC,
			left / NS_PER_US + 1, 0, on_time, daemon) < 0)
		return err_set(SECPOOL_E_SYSTEM, "revocation: the loop refused a timer");
	return SECPOOL_OK;
}

void revocation_look(struct daemon *daemon)
{
	uint64_t next = UINT64_MAX;
	enum secpool_error error = SECPOOL_OK;

	for (size_t i = 0; i < daemon->devices->count && !error; i++) {
		struct devices_row *device = daemon->devices->rows[i];
		uint64_t left;

		if (!is_running(device) || (device->state != MSG_DEVICE_QUARANTINED &&
						   device->state != MSG_DEVICE_SUSPECT &&
						   device->state != MSG_DEVICE_DRAINING))
			continue;
		error = go_on(daemon, device);
		left = device->cut_off ? UINT64_MAX : left_ns(daemon, device);
		next = left < next ? left : next;
	}
	if (!error)
		error = arm(daemon, next);
	if (error)
		failed(daemon, error);
}
