/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Draining, and what is kept of a state in the device's folder. That a device is to be drained is kept there, so that a restarted daemon goes on; it ends when the device is removed, or attested again by an operator after it was drained.
 */
#include "hotplug/device.h"

#include <stdio.h>
#include <unistd.h>

#include "hotplug/notify.h"
#include "lib/base/log.h"
#include "lib/base/os.h"

enum { MARK_MODE = 0600 };
static const char DRAIN[] = "drain", SUSPECT[] = "suspect";

static bool mark_path(const struct device *device, const char *mark, char path[PATH_MAX])
{
	return snprintf(path, PATH_MAX, "%s/%s", device->folder, mark) < PATH_MAX;
}

static bool has_mark(const struct device *device, const char *mark)
{
	char path[PATH_MAX];

	return mark_path(device, mark, path) && access(path, F_OK) == 0;
}

static void forget_mark(const struct device *device, const char *mark)
{
	char path[PATH_MAX];

	if (has_mark(device, mark) && mark_path(device, mark, path) && unlink(path) != 0)
		log_event(LOG_LEVEL_ERROR, "mark-not-forgotten", "path=%s", path);
}

bool device_drain_wanted(const struct device *device)
{
	return has_mark(device, DRAIN);
}

void device_drain_forget(const struct device *device)
{
	forget_mark(device, DRAIN);
}

void device_drain_go_on(struct device *device)
{
	enum devstate_action action;
	enum msg_state next;

	if (!device_drain_wanted(device) ||
		devstate_next(device->state, DEVSTATE_DRAIN, &next, &action))
		return;
	device->why = MSG_WHY_COMMAND; /* it was an operator who began it */
	device_step(device, DEVSTATE_DRAIN, "its drain goes on");
}

bool device_is_bad(const struct device *device)
{
	return has_mark(device, SUSPECT);
}

void device_bad_forget(const struct device *device)
{
	forget_mark(device, SUSPECT);
}

void device_bad_note(const struct device *device)
{
	enum secpool_error error = SECPOOL_E_LIMIT;
	char path[PATH_MAX];

	if (mark_path(device, SUSPECT, path))
		error = os_write_file_durable(path, "", 0, MARK_MODE);
	if (error)
		log_error("suspicion-not-noted", error);
}

enum secpool_error device_drain(struct device *device)
{
	enum devstate_action action;
	enum secpool_error error;
	char path[PATH_MAX];
	enum msg_state next;

	if (device->pulling || devstate_next(device->state, DEVSTATE_DRAIN, &next, &action))
		return err_set(SECPOOL_E_BUSY,
			"device %s is %s: only one that is online, suspect or quarantined is "
			"drained",
			device->identity.id,
			device->pulling ? "being pulled" : msg_device_state_name(device->state));
	if (!notify_connected(device->hotplug->notify))
		return err_set(SECPOOL_E_DAEMON_GONE,
			"device %s can't be drained: keymgrd does not answer at %.120s/keymgr.sock",
			device->identity.id, device->hotplug->runtime_dir);
	if (!mark_path(device, DRAIN, path))
		return err_set(SECPOOL_E_LIMIT, "path too long: %s", device->folder);
	error = os_write_file_durable(path, "", 0, MARK_MODE);
	if (error)
		return error;
	device->why = MSG_WHY_COMMAND; /* it is no revocation's */
	device_step(device, DEVSTATE_DRAIN, "drained by command");
	return SECPOOL_OK;
}

void device_revoked(struct device *device, bool cut_off, const char *cause)
{
	enum devstate_event event = cut_off ? DEVSTATE_CUT_OFF : DEVSTATE_DRAIN;
	char why[DEVICE_REASON_BYTES];
	enum devstate_action action;
	enum msg_state next;

	/* told while another state was under way to keymgrd */
	if (devstate_next(device->state, event, &next, &action) ||
		(event == DEVSTATE_DRAIN && device->state == MSG_DEVICE_ONLINE))
		return;
	if (cut_off)
		device_drain_forget(device);
	snprintf(why, sizeof why, "%.40s: %s", cause,
		cut_off ? "what was left there was given up" : "what is there moves elsewhere");
	device_step(device, event, why);
}
