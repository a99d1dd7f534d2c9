/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/reports.h"

#include <signal.h>
#include <string.h>

#include "keymgr/devices.h"
#include "keymgr/events.h"
#include "keymgr/hotplug.h"
#include "keymgr/owners.h"
#include "keymgr/regions.h"
#include "keymgr/session.h"

/* Whether the report is about what the session's own regions have there: who has nothing on a device has no word on it. */
static enum secpool_error report_counts(const struct server_connection *connection,
	const struct msg_device_report *report, bool *ret_counts)
{
	const struct session *session = connection->session;
	struct regions_row owner = {.process = session->process, .uid = connection->peer.uid};
	uint64_t bytes = 0;

	MSG_SET(owner.tenant, session->tenant);
	if (report->cause == MSG_CAUSE_TAG) {
		owner.id = report->region;
		bytes = report->bytes > 0 ? report->bytes : 1;
		if (owner.id == 0) {
			*ret_counts = false;
			return SECPOOL_OK;
		}
	}
	return regions_touch(connection->daemon->directory, &owner, report->slot, report->offset,
		bytes, ret_counts);
}

/* Tenants that reported bad bytes on these media since the device came; repeats of one count once. */
static uint32_t count_votes(struct devices_row *device, const char *tenant)
{
	struct devices_votes *votes = &device->votes;

	if (votes->since_ns != device->since_ns)
		*votes = (struct devices_votes){.since_ns = device->since_ns};
	for (uint32_t i = 0; i < votes->count; i++)
		if (strcmp(votes->tenants[i], tenant) == 0)
			return votes->count;
	if (votes->count < DEVICES_VOTES_MOST)
		MSG_SET(votes->tenants[votes->count++], tenant);
	return votes->count;
}

enum secpool_error reports_device(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra)
{
	const struct msg_device_report *report = &msg->u.device_report;
	struct daemon *daemon = connection->daemon;
	struct devices_row *device = devices_at(daemon->devices, report->slot);
	bool counts = false;
	uint32_t tenants = 1;
	enum secpool_error error;

	(void)extra;
	if (!device)
		return err_set(SECPOOL_E_NOT_FOUND, "there is no device %llu",
			(unsigned long long)report->slot);
	/* a report on media that are gone is no news; that they are gone keymgrd sees itself, whoever says so */
	if (report->media != device->media || devices_look(daemon, device))
		return SECPOOL_OK;
	if (!log_allowed(&connection->session->caused))
		return SECPOOL_OK;
	error = report_counts(connection, report, &counts);
	if (error || !counts)
		return error;
	if (report->cause == MSG_CAUSE_TAG)
		tenants = count_votes(device, connection->session->tenant);
	hotplug_check(daemon, device, report->cause, tenants);
	return SECPOOL_OK;
}

enum secpool_error reports_lost(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra)
{
	const struct msg_region_lost *lost = &msg->u.region_lost;
	struct daemon *daemon = connection->daemon;
	const struct devices_row *device = devices_at(daemon->devices, lost->slot);
	struct events_about about = {.device = device ? device->id : NULL,
		.tenant = connection->session->tenant,
		.region = lost->region,
		.offset = lost->offset,
		.bytes = lost->bytes};
	struct regions_row region;
	enum secpool_error error = session_region(connection, lost->region, &region);

	(void)extra;
	if (error)
		return error;
	if (lost->bytes == 0 || lost->offset >= region.bytes ||
		lost->bytes > region.bytes - lost->offset)
		return err_set(SECPOOL_E_INVALID, "the lost range is not in region %llu",
			(unsigned long long)lost->region);
	/* what one client tells must not fill the history */
	if (!log_allowed(&connection->session->caused))
		return SECPOOL_OK;
	events_record(daemon, "range-lost", &about, "cause: %s", msg_cause_name(lost->cause));
	if (region.on_loss == MSG_ON_LOSS_SIGNAL)
		owners_signal(daemon, &region.process, (int)region.signal, region.id);
	else if (region.on_loss == MSG_ON_LOSS_KILL)
		owners_signal(daemon, &region.process, SIGKILL, region.id);
	return SECPOOL_OK;
}
