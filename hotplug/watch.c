/* SPDX-License-Identifier: Apache-2.0 */
#include "hotplug/watch.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/log.h"
#include "lib/base/os.h"

/* Room for many events in one read; the most watches: folder and media of each device, and folders
 * that are none yet. */
enum { READ_BYTES = 16384, WATCHES_MOST = 4 * DEVICE_MOST };

enum kind { KIND_NONE = 0, KIND_ROOT, KIND_FOLDER, KIND_MEDIA };

struct entry {
	int number; /* inotify's */
	enum kind kind;
	char id[IDENTITY_ID_BYTES];
};

struct watch {
	struct hotplug *hotplug;
	int fd;
	sd_event_source *io;
	struct entry entries[WATCHES_MOST];
};

static struct entry *find(struct watch *watch, int number)
{
	for (unsigned i = 0; i < WATCHES_MOST; i++)
		if (watch->entries[i].kind != KIND_NONE && watch->entries[i].number == number)
			return &watch->entries[i];
	return NULL;
}

/* A watch that is there already (the same file) is the same entry. */
static enum secpool_error add(
	struct watch *watch, const char *path, uint32_t mask, enum kind kind, const char *id)
{
	/* the devices folder itself may be a link to a tmpfs; what is in it may not */
	int number = inotify_add_watch(
		watch->fd, path, kind == KIND_ROOT ? mask : mask | IN_DONT_FOLLOW);
	struct entry *entry;

	if (number < 0)
		return os_error("watch %s", path);
	entry = find(watch, number);
	for (unsigned i = 0; !entry && i < WATCHES_MOST; i++)
		if (watch->entries[i].kind == KIND_NONE)
			entry = &watch->entries[i];
	if (!entry) {
		inotify_rm_watch(watch->fd, number);
		return err_set(
			SECPOOL_E_LIMIT, "watch %s: %d are watched already", path, WATCHES_MOST);
	}
	entry->number = number;
	entry->kind = kind;
	msg_set_text(entry->id, sizeof entry->id, id);
	return SECPOOL_OK;
}

/* The watch first, then the look: what appears between them is seen twice, never missed. */
static void enter_folder(struct watch *watch, const char *id)
{
	char path[PATH_MAX];
	enum secpool_error error;

	if (!identity_id_allowed(id) ||
		snprintf(path, sizeof path, "%s/%s", watch->hotplug->devices_dir, id) >=
			(int)sizeof path) {
		log_event(LOG_LEVEL_WARNING, "folder-passed-over",
			"name=\"%.40s\" detail=\"not a device's name\"", id);
		return;
	}
	error = add(watch, path, IN_CLOSE_WRITE | IN_MOVED_TO | IN_ONLYDIR, KIND_FOLDER, id);
	if (error == SECPOOL_E_NOT_FOUND) /* gone again */
		return;
	if (error)
		log_error("folder-not-watched", error);
	device_discover(watch->hotplug, id);
}

static enum secpool_error scan(struct watch *watch)
{
	DIR *folder = opendir(watch->hotplug->devices_dir);
	struct dirent *entry;

	if (!folder)
		return os_error("open %s", watch->hotplug->devices_dir);
	while ((entry = readdir(folder)) != NULL)
		if (entry->d_type == DT_DIR && entry->d_name[0] != '.')
			enter_folder(watch, entry->d_name);
	closedir(folder);
	return SECPOOL_OK;
}

/* The kernel dropped events: look at everything. */
static void catch_up(struct watch *watch)
{
	enum secpool_error error;

	log_event(LOG_LEVEL_WARNING, "watch-overflow", "detail=\"looking at all devices\"");
	for (struct device *d = watch->hotplug->devices; d; d = d->next)
		device_look(d, "the media were removed");
	error = scan(watch);
	if (error)
		log_error("devices-not-read", error);
}

static void take(struct watch *watch, const struct inotify_event *event)
{
	struct device *device;
	struct entry *entry;

	if (event->mask & IN_Q_OVERFLOW) {
		catch_up(watch);
		return;
	}
	entry = find(watch, event->wd);
	if (!entry)
		return;
	switch (entry->kind) {
	case KIND_ROOT:
		if (event->mask & IN_ISDIR && event->len > 0)
			enter_folder(watch, event->name);
		break;
	case KIND_FOLDER:
		if (event->len > 0 && strcmp(event->name, "identity.json") == 0)
			device_discover(watch->hotplug, entry->id);
		break;
	case KIND_MEDIA:
		device = device_find(watch->hotplug, entry->id);
		if (device)
			device_look(device, "the media were truncated or unlinked");
		break;
	case KIND_NONE:
		break;
	}
	if (event->mask & IN_IGNORED)
		entry->kind = KIND_NONE;
}

static int on_events(sd_event_source *source, int fd, uint32_t events, void *arg)
{
	_Alignas(struct inotify_event) char bytes[READ_BYTES];
	struct watch *watch = arg;
	ssize_t count;

	(void)source;
	(void)events;
	while ((count = read(fd, bytes, sizeof bytes)) > 0) {
		for (char *at = bytes; at < bytes + count;) {
			const struct inotify_event *event = (const void *)at;

			take(watch, event);
			at += sizeof *event + event->len;
		}
	}
	return 0;
}

enum secpool_error watch_new(struct hotplug *hotplug)
{
	struct watch *watch = calloc(1, sizeof *watch);
	enum secpool_error error = SECPOOL_OK;

	if (!watch)
		return err_set(SECPOOL_E_NO_MEMORY, "the devices folder: out of memory");
	watch->hotplug = hotplug;
	watch->fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (watch->fd < 0)
		error = os_error("inotify");
	else if (sd_event_add_io(hotplug->loop, &watch->io, watch->fd, EPOLLIN, on_events, watch) <
		 0)
		error = err_set(SECPOOL_E_SYSTEM, "inotify can't be watched");
	/* a pull must be told before anything else that waits */
	if (!error)
		sd_event_source_set_priority(watch->io, SD_EVENT_PRIORITY_IMPORTANT);
	if (!error)
		error = add(watch, hotplug->devices_dir, IN_CREATE | IN_MOVED_TO | IN_ONLYDIR,
			KIND_ROOT, "");
	if (error) {
		watch_free(watch);
		return error;
	}
	hotplug->watch = watch;
	error = scan(watch);
	return error;
}

void watch_free(struct watch *watch)
{
	if (!watch)
		return;
	sd_event_source_disable_unref(watch->io);
	os_close(&watch->fd);
	free(watch);
}

enum secpool_error watch_media(struct watch *watch, const struct device *device)
{
	char path[PATH_MAX];

	if (snprintf(path, sizeof path, "%s/media", device->folder) >= (int)sizeof path)
		return err_set(SECPOOL_E_LIMIT, "path too long: %s", device->folder);
	/* truncation is a modification, unlinking an open file changes its attributes (inotify(7))
	 */
	return add(watch, path, IN_MODIFY | IN_ATTRIB | IN_MOVE_SELF | IN_DELETE_SELF, KIND_MEDIA,
		device->identity.id);
}
