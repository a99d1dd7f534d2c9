/* SPDX-License-Identifier: Apache-2.0 */
#include "hotplug/device.h"

#include <stdlib.h>
#include <string.h>

#include "hotplug/attest.h"
#include "hotplug/control.h"
#include "hotplug/notify.h"
#include "hotplug/vtpm.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/base/os.h"

/* Waits before evidence is asked for again after it could not be had. Milliseconds; each is twice
 * the one before. */
enum { RETRY_LEAST_MS = 250, RETRY_MOST_MS = 30000, NS_PER_US = 1000 };

/* How long the TPMs may take to end in good order, all together. */
#define END_NS (3 * CLOCK_NS_PER_S)

struct device *device_find(const struct hotplug *hotplug, const char *id)
{
	struct device *device = hotplug->devices;

	while (device && strcmp(device->identity.id, id) != 0)
		device = device->next;
	return device;
}

static void arm(struct device *device, uint64_t wait_ns);

static int on_timer(sd_event_source *source, uint64_t usec, void *arg)
{
	struct device *device = arg;

	(void)source;
	(void)usec;
	device->timer = sd_event_source_disable_unref(device->timer);
	if (!notify_connected(device->hotplug->notify))
		return 0;	 /* a new connection asks anyway */
	if (device_held(device)) /* the loop's clock is coarser than ours */
		arm(device, holdoff_left(&device->holdoff, clock_now_ns()));
	else if (device->state == MSG_DEVICE_ONLINE && clock_now_ns() >= device->expires_ns)
		device_step(device, DEVSTATE_EXPIRED,
			device->reason[0] ? device->reason : "its evidence expired");
	else
		device_step(device, DEVSTATE_ATTEST, device->reason);
	return 0;
}

static void arm(struct device *device, uint64_t wait_ns)
{
	device->timer = sd_event_source_disable_unref(device->timer);
	if (sd_event_add_time_relative(device->hotplug->loop, &device->timer, CLOCK_MONOTONIC,
		    wait_ns / NS_PER_US, 1, on_timer, device) < 0)
		log_event(LOG_LEVEL_ERROR, "device-timer", "device=%s", device->identity.id);
}

/* DESIGN.md section 6, policy max_age: renewed at three quarters of its age. */
static void arm_renewal(struct device *device)
{
	uint64_t now = clock_now_ns();

	device->retries = 0;
	arm(device, device->expires_ns > now ? (device->expires_ns - now) / 4 * 3 : 0);
}

static void arm_retry(struct device *device)
{
	uint64_t wait_ms = RETRY_LEAST_MS, now = clock_now_ns(), wait_ns;

	for (unsigned i = 0; i < device->retries && wait_ms < RETRY_MOST_MS; i++)
		wait_ms *= 2;
	if (wait_ms > RETRY_MOST_MS)
		wait_ms = RETRY_MOST_MS;
	device->retries++;
	wait_ns = wait_ms * CLOCK_NS_PER_MS;
	if (device->state == MSG_DEVICE_ONLINE && device->expires_ns < now + wait_ns)
		wait_ns = device->expires_ns > now ? device->expires_ns - now : 0;
	arm(device, wait_ns);
}

bool device_held(const struct device *device)
{
	return holdoff_left(&device->holdoff, clock_now_ns()) > 0;
}

static void stop(struct device *device)
{
	attest_drop(device);
	device->timer = sd_event_source_disable_unref(device->timer);
	device->attested_ns = 0;
	device->expires_ns = 0;
	free(device->evidence);
	device->evidence = NULL;
	os_close(&device->media_fd);
	vtpm_stop(device->vtpm);
}

static void act(struct device *device, enum devstate_action action)
{
	switch (action) {
	case DEVSTATE_DO_START:
		device->retries = 0;
		health_reset(&device->health);
		vtpm_start(device->vtpm, &device->identity);
		if (device_held(device))
			arm(device, holdoff_left(&device->holdoff, clock_now_ns()));
		break;
	case DEVSTATE_DO_ATTEST:
		device->timer = sd_event_source_disable_unref(device->timer);
		attest_start(device);
		break;
	case DEVSTATE_DO_ADMIT:
		arm_renewal(device);
		break;
	case DEVSTATE_DO_CONFINE:
		device->timer = sd_event_source_disable_unref(device->timer);
		if (!device->attest)
			break;
		attest_drop(device);
		/* whoever waits for that exchange would wait in vain */
		err_set(SECPOOL_E_BUSY, "device %s became %s meanwhile: %.120s",
			device->identity.id, msg_device_state_name(device->state), device->reason);
		control_attested(device->hotplug->control, device, SECPOOL_E_BUSY);
		break;
	case DEVSTATE_DO_RETRY:
		arm_retry(device);
		break;
	case DEVSTATE_DO_ABANDON:
		attest_drop(device);
		device->timer = sd_event_source_disable_unref(device->timer);
		device->attested_ns = 0;
		device->expires_ns = 0;
		break;
	case DEVSTATE_DO_STOP:
		stop(device);
		device_drain_forget(device);
		device_bad_forget(device);
		break;
	case DEVSTATE_DO_NOTHING:
	case DEVSTATE_DO_TELL:
	case DEVSTATE_ACTIONS:
		break;
	}
}

/* A step that stays in a state that keeps it out, or leads from one to another, keeps what led there. */
static enum msg_why why_of(const struct device *device, enum devstate_event event)
{
	switch (event) {
	case DEVSTATE_REFUSED:
		return MSG_WHY_REFUSED;
	case DEVSTATE_UNREACHABLE:
		return MSG_WHY_UNREACHABLE;
	case DEVSTATE_EXPIRED:
		return MSG_WHY_EXPIRED;
	case DEVSTATE_ERRORS:
		return device->state == MSG_DEVICE_DRAINING ? device->why : MSG_WHY_ERRORS;
	case DEVSTATE_CONNECTED:
	case DEVSTATE_DISCONNECTED:
	case DEVSTATE_DRAIN:
	case DEVSTATE_CUT_OFF:
		return device->why;
	case DEVSTATE_FOUND:
	case DEVSTATE_ATTEST:
	case DEVSTATE_ACCEPTED:
	case DEVSTATE_DRAINED:
	case DEVSTATE_REMOVED:
	case DEVSTATE_EVENTS:
		break;
	}
	return MSG_WHY_OTHER;
}

void device_step(struct device *device, enum devstate_event event, const char *reason)
{
	enum msg_state before = device->state, next;
	char why[DEVICE_REASON_BYTES]; /* reason may be the device's own */
	enum devstate_action action;
	enum secpool_error error;

	error = devstate_next(before, event, &next, &action);
	if (error) {
		log_event(LOG_LEVEL_WARNING, "event-refused", "device=%s state=%s event=%s",
			device->identity.id, msg_device_state_name(before),
			devstate_event_name(event));
		return;
	}
	msg_set_text(why, sizeof why, reason);
	memcpy(device->reason, why, sizeof why);
	device->state = next;
	device->why = why_of(device, event);
	if (next == MSG_DEVICE_SUSPECT && event == DEVSTATE_ERRORS && next != before)
		device_bad_note(device);
	if (next != before)
		log_event(LOG_LEVEL_INFO, "device-state",
			"device=%s from=%s to=%s event=%s reason=\"%s\"", device->identity.id,
			msg_device_state_name(before), msg_device_state_name(next),
			devstate_event_name(event), device->reason);
	/* told before the action: that may step again, and keymgrd must see the states in their
	 * order */
	if (next != before || action == DEVSTATE_DO_TELL)
		notify_state(device->hotplug->notify, device);
	act(device, action);
}

enum secpool_error device_attest(struct device *device)
{
	enum msg_state next;
	enum devstate_action action;

	if (device->state == MSG_DEVICE_ATTESTING && !device->pulling)
		return SECPOOL_OK; /* that exchange's end is the answer */
	if (device->retire.state == MSG_SANITISE_RUNNING)
		return err_set(SECPOOL_E_BUSY, "device %s is being sanitised", device->identity.id);
	if (device->pulling || devstate_next(device->state, DEVSTATE_ATTEST, &next, &action))
		return err_set(SECPOOL_E_BUSY, "device %s is %s", device->identity.id,
			device->pulling ? "being pulled" : msg_device_state_name(device->state));
	if (!notify_connected(device->hotplug->notify))
		return err_set(SECPOOL_E_DAEMON_GONE,
			"device %s can't be attested: keymgrd does not answer at "
			"%.120s/keymgr.sock",
			device->identity.id, device->hotplug->runtime_dir);
	health_reset(&device->health);
	device_returns_forget(device);
	device_drain_forget(device); /* it is to be used again */
	device_bad_forget(device);
	device_step(device, DEVSTATE_ATTEST, "asked for by command");
	return SECPOOL_OK;
}

void device_attested(
	struct device *device, enum secpool_error result, const char *reason, uint64_t expires_ns)
{
	if (!result) {
		device->attested_ns = clock_calendar_ns();
		device->expires_ns = expires_ns;
		device_step(device, DEVSTATE_ACCEPTED, "");
		device_drain_go_on(device);
		if (device->state == MSG_DEVICE_ONLINE && device_is_bad(device))
			device_step(device, DEVSTATE_ERRORS,
				"it was suspect before the daemon was started again");
	} else if (result == SECPOOL_E_ATTESTATION) {
		device_step(device, DEVSTATE_REFUSED, reason);
		device_drain_go_on(device);
	} else {
		device_step(device, DEVSTATE_UNREACHABLE, reason);
		device_drain_go_on(device);
	}
	err_set(result, "device %s: %.200s", device->identity.id, reason);
	control_attested(device->hotplug->control, device, result);
}

void device_check(struct device *device, const struct msg_device_check *check)
{
	if (device->media_fd < 0 || device_look(device, "found removed after a client's report"))
		return;
	/* whoever says so: what is found here counts */
	if (check->cause == MSG_CAUSE_STUCK || check->cause == MSG_CAUSE_SILENT)
		device_probe(device, check->answer_ms);
	if (!health_report(&device->health, check->cause, check->tenants, &device->hotplug->limits))
		return;
	if (check->cause == MSG_CAUSE_FAULT)
		device_step(device, DEVSTATE_ERRORS,
			"as many accesses failed as devices.suspect_faults allows");
	else
		device_step(device, DEVSTATE_ERRORS,
			check->tenants ? "bytes of more than one tenant failed their check"
				       : "keymgrd found that it does not keep what is written");
}

void device_stop_all(struct hotplug *hotplug)
{
	for (struct device *device = hotplug->devices; device; device = device->next) {
		device->silence = sd_event_source_disable_unref(device->silence);
		device->flap = sd_event_source_disable_unref(device->flap);
		device_retire_done(device);
		stop(device);
	}
}

void device_free_all(struct hotplug *hotplug)
{
	uint64_t deadline_ns = clock_now_ns() + END_NS;
	struct device *device;

	while ((device = hotplug->devices) != NULL) {
		hotplug->devices = device->next;
		vtpm_free(device->vtpm, deadline_ns);
		device_retire_done(device); /* what began when the work ended */
		free(device->evidence);
		free(device->topology);
		free(device);
	}
	hotplug->device_count = 0;
}
