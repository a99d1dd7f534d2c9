/* SPDX-License-Identifier: Apache-2.0 */
/* How often a device came back by itself (holdoff.h), kept in the file `returns` of its folder: a daemon that is started anew goes on counting, and waiting. */
#include "hotplug/device.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/base/os.h"

enum { FILE_BYTES_MOST = 128, FILE_MODE = 0600 };

static bool find_path(const struct device *device, char path[PATH_MAX])
{
	return snprintf(path, PATH_MAX, "%s/returns", device->folder) < PATH_MAX;
}

uint64_t device_returned(struct device *device)
{
	uint64_t now = clock_now_ns(), calendar = clock_calendar_ns();
	uint64_t wait_ns = holdoff_returned(&device->holdoff, now);
	enum secpool_error error = SECPOOL_E_LIMIT;
	char text[FILE_BYTES_MOST], path[PATH_MAX];
	int length = snprintf(text, sizeof text, "%" PRIu32 " %" PRIu64 " %" PRIu64 "\n",
		device->holdoff.returns, calendar, calendar + wait_ns);

	if (find_path(device, path))
		error = os_write_file_durable(path, text, (size_t)length, FILE_MODE);
	if (error)
		log_error("return-not-noted", error);
	return wait_ns;
}

void device_returns_forget(struct device *device)
{
	char path[PATH_MAX];

	holdoff_forget(&device->holdoff);
	if (find_path(device, path) && access(path, F_OK) == 0 && unlink(path) != 0)
		log_event(LOG_LEVEL_ERROR, "returns-not-forgotten", "path=%s", path);
}

/* The calendar may have been set since: an age before its beginning is none, and no wait is longer than the longest. */
static void take(struct holdoff *holdoff, uint32_t returns, uint64_t last, uint64_t until)
{
	uint64_t now = clock_now_ns(), calendar = clock_calendar_ns();
	uint64_t age = calendar > last ? calendar - last : 0;
	uint64_t left = until > calendar ? until - calendar : 0;

	if (age > HOLDOFF_CALM_NS)
		return;
	holdoff->returns = returns;
	holdoff->last_ns = now > age ? now - age : 0;
	holdoff->until_ns = left > 0 ? now + (left < HOLDOFF_MOST_NS ? left : HOLDOFF_MOST_NS) : 0;
}

void device_returns_load(struct device *device)
{
	char path[PATH_MAX], *text = NULL;
	uint64_t last, until;
	size_t bytes = 0;
	uint32_t returns;
	int used = -1;

	if (!find_path(device, path) || access(path, F_OK) != 0)
		return;
	if (os_read_file(path, FILE_BYTES_MOST, &text, &bytes) == SECPOOL_OK &&
		sscanf(text, "%9" SCNu32 " %19" SCNu64 " %19" SCNu64 "%n", &returns, &last, &until,
			&used) == 3 &&
		used > 0 && text[used] == '\n')
		take(&device->holdoff, returns, last, until);
	else
		log_event(LOG_LEVEL_WARNING, "returns-not-read", "path=%s", path);
	free(text);
}
