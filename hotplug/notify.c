/* SPDX-License-Identifier: Apache-2.0 */
#include "hotplug/notify.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hotplug/attest.h"
#include "hotplug/control.h"
#include "hotplug/peer.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/base/os.h"

/* Waits before another try to connect, and for keymgrd's hello. Milliseconds. */
enum { BACK_OFF_LEAST_MS = 50, BACK_OFF_MOST_MS = 1000, HELLO_MS = 5000, NS_PER_US = 1000 };

struct notify {
	struct hotplug *hotplug;
	char path[PATH_MAX];
	struct peer *peer; /* NULL: not connected */
	bool greeted;	   /* keymgrd said hello in our version */
	bool complained;   /* that nobody listens was logged already */
	uint32_t last_number;
	unsigned wait_ms;
	sd_event_source *timer; /* the next try, or the hello's deadline */
};

static void retry(struct notify *notify);

static int on_retry(sd_event_source *source, uint64_t usec, void *arg);

static void arm(struct notify *notify, unsigned ms)
{
	notify->timer = sd_event_source_disable_unref(notify->timer);
	if (sd_event_add_time_relative(notify->hotplug->loop, &notify->timer, CLOCK_MONOTONIC,
		    (uint64_t)ms * (CLOCK_NS_PER_MS / NS_PER_US), 1, on_retry, notify) < 0)
		log_event(LOG_LEVEL_ERROR, "keymgr-timer", "no timer to connect again");
}

static void retry_later(struct notify *notify)
{
	arm(notify, notify->wait_ms);
	notify->wait_ms =
		notify->wait_ms * 2 < BACK_OFF_MOST_MS ? notify->wait_ms * 2 : BACK_OFF_MOST_MS;
}

/* Only what is attested anew for this gets a new reason; a device that is lost stays so for the old
 * one. */
static void step_all(struct notify *notify, enum devstate_event event, const char *reason)
{
	for (struct device *d = notify->hotplug->devices; d; d = d->next) {
		bool anew = d->state == MSG_DEVICE_DISCOVERED || d->state == MSG_DEVICE_ATTESTING ||
			    d->state == MSG_DEVICE_ONLINE ||
			    (d->state == MSG_DEVICE_QUARANTINED && event == DEVSTATE_CONNECTED);

		/* one that is held off comes later; keymgrd is told of it all the same */
		if (event == DEVSTATE_CONNECTED && d->state == MSG_DEVICE_DISCOVERED &&
			device_held(d))
			notify_state(notify, d);
		else
			device_step(d, event, anew ? reason : d->reason);
	}
}

static void drop(struct notify *notify)
{
	bool greeted = notify->greeted;

	peer_free(notify->peer);
	notify->peer = NULL;
	notify->greeted = false;
	if (greeted)
		step_all(notify, DEVSTATE_DISCONNECTED, "no connection to keymgrd");
}

static int on_retry(sd_event_source *source, uint64_t usec, void *arg)
{
	struct notify *notify = arg;

	(void)source;
	(void)usec;
	notify->timer = sd_event_source_disable_unref(notify->timer);
	if (notify->peer) { /* connected, but no hello came */
		log_event(LOG_LEVEL_WARNING, "keymgr-silent", "path=%s", notify->path);
		drop(notify);
		retry_later(notify);
	} else {
		retry(notify);
	}
	return 0;
}

static void on_closed(struct peer *peer, enum secpool_error why, void *arg)
{
	struct notify *notify = arg;

	(void)peer;
	log_event(LOG_LEVEL_WARNING, "keymgr-disconnected", "error=%s detail=\"%s\"", err_name(why),
		err_detail());
	if (notify->greeted)
		notify->wait_ms = BACK_OFF_LEAST_MS;
	drop(notify);
	retry_later(notify);
}

static void take_hello(struct notify *notify, const struct msg *msg)
{
	if (msg->type == MSG_REPLY) {
		err_set(err_from_number(msg->u.reply.error), "keymgrd refused us: %.200s",
			msg->u.reply.detail);
		peer_refuse(notify->peer, 0, SECPOOL_E_DENIED);
		return;
	}
	if (msg->type != MSG_HELLO || msg->u.hello.version != MSG_VERSION) {
		peer_refuse(notify->peer, msg->number,
			err_set(SECPOOL_E_PROTOCOL,
				"keymgrd is of another version: install the same"));
		return;
	}
	notify->greeted = true;
	notify->complained = false;
	notify->wait_ms = BACK_OFF_LEAST_MS;
	notify->timer = sd_event_source_disable_unref(notify->timer);
	log_event(LOG_LEVEL_INFO, "keymgr-connected", "path=%s", notify->path);
	step_all(notify, DEVSTATE_CONNECTED, "a new connection to keymgrd");
}

static void take_check(struct notify *notify, const struct msg_device_check *check)
{
	struct device *device = device_find(notify->hotplug, check->id);

	if (device)
		device_check(device, check);
}

static void take_limits(struct notify *notify, const struct msg_device_limits *limits)
{
	notify->hotplug->limits = (struct health_limits){.tenants = limits->suspect_tenants,
		.faults = limits->suspect_faults,
		.poison = limits->suspect_poison,
		.flags = limits->suspect_health};
}

static void take_drain(struct notify *notify, const struct msg_device_drain *drain)
{
	struct device *device = device_find(notify->hotplug, drain->id);

	if (device)
		device_revoked(device, drain->cut_off, drain->cause);
}

/* It may have been told before, or by a keymgrd that is behind. */
static void take_drained(struct notify *notify, const struct msg_device_drained *drained)
{
	struct device *device = device_find(notify->hotplug, drained->id);

	if (device && device->state == MSG_DEVICE_DRAINING)
		device_step(device, DEVSTATE_DRAINED, "drained: nothing is left there");
}

static void on_message(struct peer *peer, const struct msg *msg, void *arg)
{
	struct notify *notify = arg;

	if (!notify->greeted) {
		take_hello(notify, msg);
		return;
	}
	switch (msg->type) {
	case MSG_ATTEST_CHALLENGE:
	case MSG_ATTEST_VERDICT:
		attest_answer(notify->hotplug, msg);
		break;
	case MSG_REPLY:
		if (msg->u.reply.error != SECPOOL_OK)
			log_event(LOG_LEVEL_WARNING, "keymgr-refused", "error=%s detail=\"%s\"",
				err_name(err_from_number(msg->u.reply.error)), msg->u.reply.detail);
		control_answered(notify->hotplug->control, msg->number, &msg->u.reply);
		attest_answer(notify->hotplug, msg);
		break;
	case MSG_DEVICE_CHECK:
		take_check(notify, &msg->u.device_check);
		break;
	case MSG_DEVICE_LIMITS:
		take_limits(notify, &msg->u.device_limits);
		break;
	case MSG_DEVICE_DRAIN:
		take_drain(notify, &msg->u.device_drain);
		break;
	case MSG_DEVICE_DRAINED:
		take_drained(notify, &msg->u.device_drained);
		break;
	default:
		peer_refuse(peer, msg->number,
			err_set(SECPOOL_E_PROTOCOL, "hotplugd takes no %s from keymgrd",
				msg_name(msg->type)));
		break;
	}
}

static const struct peer_callbacks callbacks = {.message = on_message, .closed = on_closed};

static void retry(struct notify *notify)
{
	struct msg hello = {.type = MSG_HELLO};
	enum secpool_error error;
	int fd = -1;

	error = sock_connect(notify->path, &fd);
	if (!error) {
		error = peer_new(notify->hotplug->loop, fd, &callbacks, notify, &notify->peer);
		if (error)
			os_close(&fd);
	}
	if (error) {
		if (!notify->complained)
			log_error("keymgr-not-reached", error);
		notify->complained = true;
		retry_later(notify);
		return;
	}
	hello.number = ++notify->last_number;
	hello.u.hello.version = MSG_VERSION;
	hello.u.hello.role = MSG_ROLE_HOTPLUG;
	peer_send(notify->peer, &hello, -1);
	arm(notify, HELLO_MS);
}

enum secpool_error notify_new(struct hotplug *hotplug, struct notify **ret_notify)
{
	struct notify *notify = calloc(1, sizeof *notify);

	if (!notify)
		return err_set(SECPOOL_E_NO_MEMORY, "the connection to keymgrd: out of memory");
	notify->hotplug = hotplug;
	notify->wait_ms = BACK_OFF_LEAST_MS;
	if (snprintf(notify->path, sizeof notify->path, "%s/keymgr.sock", hotplug->runtime_dir) >=
		(int)sizeof notify->path) {
		free(notify);
		return err_set(SECPOOL_E_LIMIT, "path too long: %s", hotplug->runtime_dir);
	}
	retry(notify);
	*ret_notify = notify;
	return SECPOOL_OK;
}

void notify_free(struct notify *notify)
{
	if (!notify)
		return;
	peer_free(notify->peer);
	sd_event_source_disable_unref(notify->timer);
	free(notify);
}

bool notify_connected(const struct notify *notify)
{
	return notify && notify->greeted;
}

void notify_state(struct notify *notify, const struct device *device)
{
	struct msg msg = {.type = MSG_DEVICE_STATE};
	struct msg_device_state *state = &msg.u.device_state;

	if (!notify_connected(notify))
		return;
	MSG_SET(state->id, device->identity.id);
	MSG_SET(state->domain, device->identity.domain);
	state->kind = device->identity.kind;
	state->state = device->state;
	state->why = device->why;
	state->bytes = device->identity.bytes;
	state->media = device->mark;
	state->latency_ns = device->latency_ns;
	MSG_SET(state->cause, device->reason);
	peer_send(notify->peer, &msg,
		device->state == MSG_DEVICE_ONLINE || device->state == MSG_DEVICE_DRAINING
			? device->media_fd
			: -1);
}

uint32_t notify_request(struct notify *notify, struct msg *msg)
{
	if (!notify_connected(notify))
		return 0;
	if (++notify->last_number == 0) /* 0 is what comes unasked */
		notify->last_number = 1;
	msg->number = notify->last_number;
	peer_send(notify->peer, msg, -1);
	return msg->number;
}
