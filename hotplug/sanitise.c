/* SPDX-License-Identifier: Apache-2.0 */
#include "hotplug/sanitise.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/base/os.h"

/* The longest word of security/state with its line end, with room. How long the last users of a region may take to let go, and how often that is tried. */
enum { STATE_BYTES = 32, TRIES_MOST = 40 };
#define TRY_NS (500ull * CLOCK_NS_PER_MS)

static enum secpool_error path_of(
	const char *bus, const char *device, const char *file, char path[PATH_MAX])
{
	if (snprintf(path, PATH_MAX, "%s/%s/%s", bus, device, file) >= PATH_MAX)
		return err_set(SECPOOL_E_LIMIT, "path too long: %s", bus);
	return SECPOOL_OK;
}

/* Writes a word to a file of the kernel's, whose answer is the kernel's or the card's. */
static enum secpool_error say(const char *path, const char *word)
{
	enum secpool_error error = SECPOOL_OK;
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return os_error("open %s", path);
	if (write(fd, word, strlen(word)) != (ssize_t)strlen(word))
		error = os_error("write %s to %s", word, path);
	os_close(&fd);
	return error;
}

enum msg_sanitise sanitise_look(const char *bus, const char *memdev)
{
	char path[PATH_MAX], *text = NULL;
	enum msg_sanitise found = MSG_SANITISE_POSSIBLE;
	size_t count = 0;

	if (path_of(bus, memdev, "security/sanitize", path) || access(path, F_OK) != 0)
		return MSG_SANITISE_NONE;
	if (path_of(bus, memdev, "security/state", path) == SECPOOL_OK &&
		os_read_file(path, STATE_BYTES, &text, &count) == SECPOOL_OK &&
		strcmp(text, "sanitize\n") == 0)
		found = MSG_SANITISE_RUNNING;
	free(text);
	return found;
}

/* The region's folder lies in that of the window of addresses (decoder0.0) that it was made from, which takes it back. */
static enum secpool_error delete_region(const char *bus, const char *region)
{
	char path[PATH_MAX], folder[PATH_MAX], *slash;
	enum secpool_error error = path_of(bus, region, "..", path);

	if (error)
		return error;
	if (!realpath(path, folder))
		return os_error("find the window of %s", region);
	slash = strrchr(folder, '/');
	if (!slash)
		return err_set(SECPOOL_E_SYSTEM, "%s is in no folder", region);
	if (snprintf(path, sizeof path, "%s/delete_region", folder) >= (int)sizeof path)
		return err_set(SECPOOL_E_LIMIT, "path too long: %s", folder);
	return say(path, region);
}

static enum secpool_error take_region_away(const char *bus, const char *region)
{
	char path[PATH_MAX];
	enum secpool_error error = path_of(bus, region, "commit", path);

	if (!error)
		error = say(path, "0");
	if (!error)
		error = delete_region(bus, region);
	return error;
}

/* As long as somebody uses it the kernel says EBUSY: programs and daemons let go when they hear of it. */
static enum secpool_error until_free(enum secpool_error (*step)(const char *bus, const char *name),
	const char *bus, const char *name)
{
	enum secpool_error error = step(bus, name);

	for (unsigned i = 0; i < TRIES_MOST && error == SECPOOL_E_BUSY; i++) {
		clock_sleep_ns(TRY_NS);
		error = step(bus, name);
	}
	return error;
}

static enum secpool_error start(const char *bus, const char *memdev)
{
	char path[PATH_MAX];
	enum secpool_error error = path_of(bus, memdev, "security/sanitize", path);

	return error ? error : say(path, "1");
}

enum secpool_error sanitise_begin(const char *bus, const char *memdev, const char *region)
{
	enum secpool_error error = SECPOOL_OK;

	if (sanitise_look(bus, memdev) == MSG_SANITISE_NONE)
		return err_set(SECPOOL_E_UNSUPPORTED,
			"%s has no security/sanitize: that takes Linux 6.6 or newer, and a card "
			"that has the command",
			memdev);
	if (region[0])
		error = until_free(take_region_away, bus, region);
	return error ? error : until_free(start, bus, memdev);
}
