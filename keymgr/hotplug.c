/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/hotplug.h"

#include <string.h>

#include "keymgr/devclaims.h"
#include "keymgr/devwork.h"
#include "keymgr/drain.h"
#include "keymgr/events.h"
#include "keymgr/missing.h"
#include "keymgr/revocation.h"
#include "policy/policy.h"
#include "lib/base/os.h"

_Static_assert((int)POLICY_HEALTH_MAINTENANCE == MSG_HEALTH_MAINTENANCE &&
		       (int)POLICY_HEALTH_DEGRADED == MSG_HEALTH_DEGRADED &&
		       (int)POLICY_HEALTH_REPLACE == MSG_HEALTH_REPLACE &&
		       (int)POLICY_HEALTH_MEDIA == MSG_HEALTH_MEDIA,
	"policy and wire name the same flags");

/* A policy does not change under a connection: with another one keymgrd is another process. */
static void send_limits(struct server_connection *connection)
{
	const struct policy_settings *settings = policy_settings(connection->daemon->policy);
	struct msg msg = {.type = MSG_DEVICE_LIMITS};

	msg.u.device_limits.suspect_tenants = settings->suspect_tenants;
	msg.u.device_limits.suspect_faults = settings->suspect_faults;
	msg.u.device_limits.suspect_poison = settings->suspect_poison;
	msg.u.device_limits.suspect_health = settings->suspect_health;
	server_send(connection, &msg, -1);
}

void hotplug_began(struct server_connection *connection)
{
	struct devices *devices = connection->daemon->devices;
	struct server_connection *before = devices->hotplug;

	devices->hotplug = connection;
	send_limits(connection);
	missing_begin(connection->daemon);
	if (before)
		server_close(before);
	log_event(LOG_LEVEL_INFO, "hotplugd-connected", "pid=%d", connection->peer.pid);
}

void hotplug_ended(struct server_connection *connection)
{
	struct devices *devices = connection->daemon->devices;

	if (devices->hotplug != connection)
		return;
	devices->hotplug = NULL;
	log_event(LOG_LEVEL_WARNING, "hotplugd-gone", "pid=%d", connection->peer.pid);
}

/* Passes a message to the enclave and its answer back. */
static enum secpool_error relay(struct server_connection *connection, struct msg *msg,
	uint32_t want, struct msg *ret_answer)
{
	struct msg request = *msg, answer;
	enum secpool_error error = daemon_ask(connection->daemon, &request, -1, want, &answer);

	if (error)
		return error;
	answer.number = msg->number;
	*ret_answer = answer;
	return SECPOOL_OK;
}

enum secpool_error hotplug_handle_begin(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra)
{
	struct events_about about = {.device = msg->u.attest_begin.id};
	struct msg answer;
	enum secpool_error error;

	(void)extra;
	if (!devices_word(msg->u.attest_begin.id))
		return err_set(SECPOOL_E_PROTOCOL, "hotplugd names a device that is not valid");
	error = relay(connection, msg, MSG_ATTEST_CHALLENGE, &answer);
	if (error == SECPOOL_E_ATTESTATION)
		events_record(
			connection->daemon, "attestation-refused", &about, "%s", err_detail());
	if (error)
		return error;
	devclaims_made(
		connection->daemon->devices, msg->u.attest_begin.id, msg->u.attest_begin.bytes);
	server_send(connection, &answer, -1);
	return SECPOOL_OK;
}

enum secpool_error hotplug_handle_evidence(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra)
{
	static const uint8_t none[DEVICES_EK_BYTES];
	struct daemon *daemon = connection->daemon;
	struct events_about about = {.device = msg->u.attest_evidence.id};
	struct devices_row *row;
	const uint8_t *ek;
	struct msg answer;
	bool proved;
	enum secpool_error error;

	(void)extra;
	error = relay(connection, msg, MSG_ATTEST_VERDICT, &answer);
	devices_doubt(daemon->devices); /* whatever was said: two devices may be doubtful now */
	if (error)
		return error;
	row = devices_find(daemon->devices, about.device);
	ek = answer.u.attest_verdict.ek_name;
	proved = memcmp(ek, none, sizeof none) != 0; /* lint: memcmp of public bytes */
	if (answer.u.attest_verdict.error) {
		events_record(daemon, "attestation-refused", &about, "%s",
			answer.u.attest_verdict.reason);
		if (proved)
			devclaims_doubt(daemon, about.device, ek);
	} else if (proved) {
		if (!row)
			error = devices_expect(daemon->devices, about.device, &row);
		if (!error)
			error = devclaims_remember(daemon, row, &answer.u.attest_verdict);
		if (error)
			return error;
		devclaims_proved(daemon->devices, row);
	}
	server_send(connection, &answer, -1);
	return SECPOOL_OK;
}

/* A device that never was online has no row; that it was refused is told all the same. */
static void refused_before_online(struct daemon *daemon, const struct msg_device_state *state)
{
	struct events_about about = {.device = state->id};

	if (state->state == MSG_DEVICE_QUARANTINED)
		events_record(daemon, "device-quarantined", &about, "%s", state->cause);
	if (state->state == MSG_DEVICE_DRAINING) /* it has nothing */
		drain_tell_drained(daemon, state->id);
}

/* A step of hotplugd's table that is not `online`. media_fd: of a device that is draining; taken over where it is needed. */
static void take_step(struct daemon *daemon, const struct msg_device_state *state, int *media_fd)
{
	struct devices_row *row = devices_find(daemon->devices, state->id);
	bool same = row && (state->media == 0 || state->media == row->media);

	if (!row) {
		refused_before_online(daemon, state);
		return;
	}
	/* a restarted hotplugd attests again what is in use: as long as the media stay, so does the device */
	if ((state->state == MSG_DEVICE_DISCOVERED || state->state == MSG_DEVICE_ATTESTING) &&
		row->media_fd >= 0 && same && !devices_look(daemon, row))
		return;
	/* keymgrd was restarted, or the device was suspect before: what is moved away is overwritten by this */
	if (state->state == MSG_DEVICE_DRAINING && row->media_fd < 0 && same) {
		row->media_fd = *media_fd;
		*media_fd = -1;
	}
	devices_leave(daemon, row, state->state, state->cause);
	if (row->state == MSG_DEVICE_DRAINING && devwork_look(daemon, row, NULL) != SECPOOL_OK)
		log_error("drain-not-seen", SECPOOL_E_STORE);
	if (state->state == MSG_DEVICE_LOST || state->state == MSG_DEVICE_ABSENT ||
		state->state == MSG_DEVICE_OFFLINE)
		revocation_end(daemon, row);
	else
		revocation_told(daemon, row, state->why, same);
}

enum secpool_error hotplug_handle_state(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra)
{
	struct daemon *daemon = connection->daemon;
	const struct msg_device_state *state = &msg->u.device_state;
	struct devices_row *row;
	enum secpool_error error;
	int fd;

	if (state->state >= MSG_DEVICE_STATES || !devices_word(state->id))
		return err_set(
			SECPOOL_E_PROTOCOL, "hotplugd names a device or state that is not valid");
	fd = sock_take_fd(extra, 0);
	row = devices_find(daemon->devices, state->id);
	if (row)
		missing_spoken(row);
	if (state->state != MSG_DEVICE_ONLINE) {
		take_step(daemon, state, &fd);
		os_close(&fd);
		return SECPOOL_OK;
	}
	error = devices_online(daemon, state, &fd);
	if (!error)
		return SECPOOL_OK;
	log_error("device-not-online", error);
	row = devices_find(daemon->devices, state->id);
	if (row)
		devices_leave(daemon, row,
			error == SECPOOL_E_DEVICE_GONE ? MSG_DEVICE_LOST : MSG_DEVICE_QUARANTINED,
			err_detail());
	return error;
}

void hotplug_check(
	struct daemon *daemon, struct devices_row *device, uint32_t cause, uint32_t tenants)
{
	struct msg msg = {.type = MSG_DEVICE_CHECK};

	if (!daemon->devices->hotplug || !log_allowed(&device->checks))
		return;
	msg.u.device_check.cause = cause;
	msg.u.device_check.tenants = tenants;
	msg.u.device_check.answer_ms = policy_settings(daemon->policy)->gone_after_ms;
	MSG_SET(msg.u.device_check.id, device->id);
	server_send(daemon->devices->hotplug, &msg, -1);
}
