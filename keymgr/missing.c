/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/missing.h"

#include "keymgr/extents.h"

enum { NS_PER_US = 1000 };

/* Whether it would be missed: programs have it, or what they have or had lies there. */
static bool is_in_use(struct daemon *daemon, const struct devices_row *device)
{
	uint64_t count = 0;

	if (device->media_fd >= 0)
		return true;
	/* an absent or offline device has nothing, one that is out already was told of */
	if (device->slot == 0 || device->seen)
		return false;
	if (directory_number(daemon->directory,
		    "SELECT EXISTS (SELECT 1 FROM extents WHERE slot = ?1 AND region IS NOT NULL)",
		    DIRECTORY_VALUES(DIRECTORY_N(device->slot)), &count) != SECPOOL_OK) {
		log_error("device-use-not-known", SECPOOL_E_STORE);
		return false;
	}
	return count > 0;
}

static int on_time(sd_event_source *source, uint64_t usec, void *arg)
{
	struct daemon *daemon = arg;

	(void)source;
	(void)usec;
	if (!daemon->devices->hotplug) /* it is gone itself: the next one will say */
		return 0;
	for (size_t i = 0; i < daemon->devices->count; i++) {
		struct devices_row *device = daemon->devices->rows[i];

		if (!device->spoken && is_in_use(daemon, device))
			devices_leave(daemon, device, MSG_DEVICE_LOST,
				"it was there before, and hotplugd does not find it any more");
	}
	return 0;
}

void missing_begin(struct daemon *daemon)
{
	struct devices *devices = daemon->devices;

	for (size_t i = 0; i < devices->count; i++)
		devices->rows[i]->spoken = false;
	devices->missing = sd_event_source_disable_unref(devices->missing);
	if (sd_event_add_time_relative(daemon->loop, &devices->missing, CLOCK_MONOTONIC,
		    MISSING_AFTER_NS / NS_PER_US, 0, on_time, daemon) < 0)
		log_event(LOG_LEVEL_ERROR, "missing-timer",
			"devices that are missing will not be found");
}

void missing_spoken(struct devices_row *device)
{
	device->spoken = true;
}
