/* SPDX-License-Identifier: Apache-2.0 */
#include "hotplug/poison.h"

#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/os.h"

#define MEMDEVS	  "/sys/bus/cxl/devices"
#define INSTANCES "/sys/kernel/tracing/instances"
#define EVENT	  ": cxl_poison: "

/* A line has 300 bytes or so; the kernel reads no more than 1000 places (sysfs-bus-cxl), and the buffer of a trace holds a few thousand lines. */
enum { TRACE_BYTES = 4 << 20 };

/* Whether a line, which ends at end, has the word: name=value with blanks around it. */
static bool has_word(const char *line, const char *end, const char *word)
{
	size_t length = strlen(word);

	for (const char *at = line; (size_t)(end - at) >= length; at++)
		if (memcmp(at, word, length) == 0 && at > line && at[-1] == ' ' &&
			(at + length == end || at[length] == ' '))
			return true;
	return false;
}

uint32_t poison_count(const char *text, const char *memdev)
{
	char mine[64];
	uint32_t places = 0;

	if (snprintf(mine, sizeof mine, "memdev=%s", memdev) >= (int)sizeof mine)
		return 0;
	while (*text) {
		size_t length = strcspn(text, "\n");
		const char *end = text + length,
			   *event = memmem(text, length, EVENT, strlen(EVENT));

		if (event && has_word(event, end, mine) && has_word(event, end, "trace_type=List"))
			places++;
		text = *end ? end + 1 : end;
	}
	return places;
}

/* Writes "1" to a file of the kernel's. What it answers is the device's or the kernel's answer. */
static enum secpool_error switch_on(const char *folder, const char *name)
{
	char path[PATH_MAX];
	enum secpool_error error = SECPOOL_OK;
	int fd;

	if (snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path)
		return err_set(SECPOOL_E_LIMIT, "path too long: %s", folder);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return os_error("open %s", path);
	if (write(fd, "1", 1) != 1)
		error = os_error("write %s", path);
	os_close(&fd);
	return error;
}

static enum secpool_error read_trace(const char *instance, const char *memdev, uint32_t *ret_places)
{
	char folder[PATH_MAX], path[PATH_MAX], *text = NULL;
	enum secpool_error error = switch_on(instance, "events/cxl/cxl_poison/enable");
	size_t count = 0;

	if (!error &&
		(snprintf(folder, sizeof folder, MEMDEVS "/%s", memdev) >= (int)sizeof folder ||
			snprintf(path, sizeof path, "%s/trace", instance) >= (int)sizeof path))
		error = err_set(SECPOOL_E_LIMIT, "path too long: %s", memdev);
	if (!error)
		error = switch_on(folder, "trigger_poison_list");
	if (!error)
		error = os_read_file(path, TRACE_BYTES, &text, &count);
	if (!error)
		*ret_places = poison_count(text, memdev);
	free(text);
	return error;
}

enum secpool_error poison_read(const char *memdev, uint32_t *ret_places)
{
	char instance[PATH_MAX];
	enum secpool_error error;

	snprintf(instance, sizeof instance, INSTANCES "/secpool-%d-%s", getpid(), memdev);
	if (mkdir(instance, 0700) != 0)
		return os_error("make %s", instance);
	error = read_trace(instance, memdev, ret_places);
	if (rmdir(instance) != 0 && !error)
		error = os_error("remove %s", instance);
	return error;
}
