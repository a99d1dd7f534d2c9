/* SPDX-License-Identifier: Apache-2.0 */
#include "hotplug/cxl.h"

#include <inttypes.h>
#include <libudev.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hotplug/poison.h"
#include "hotplug/topology.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/base/media.h"
#include "lib/base/os.h"

/* From an event to the look at everything: they come in dozens (25 to 30 for a removal: docs/testing.md). And between two looks without events, for the devices' health. */
enum { SETTLE_MS = 50, HEALTH_MS = 60000, US_PER_MS = 1000 };

struct cxl {
	struct hotplug *hotplug;
	struct udev *udev;
	struct udev_monitor *monitor;
	sd_event_source *io, *timer;
};

static void id_of(const struct topology_device *entry, char id[IDENTITY_ID_BYTES])
{
	snprintf(id, IDENTITY_ID_BYTES, "cxl-%" PRIx64, entry->serial);
}

/* What is measured and placed of it: whole units, the last one for the control area. */
static uint64_t capacity_of(const struct topology_device *entry)
{
	uint64_t bytes =
		entry->dax[0] ? entry->dax_bytes : entry->persistent_bytes + entry->volatile_bytes;

	bytes -= bytes % MEDIA_UNIT_BYTES;
	return bytes > 2ull * MEDIA_UNIT_BYTES ? bytes - MEDIA_UNIT_BYTES : MEDIA_UNIT_BYTES;
}

/* identity.json, written when it is new or says something else; the domain, the choice of TPM and the latency that stand there stay. */
static enum secpool_error settle_identity(
	const char *folder, const char *id, const struct topology_device *entry)
{
	struct identity wanted = {.bytes = capacity_of(entry), .kind = MSG_KIND_CXL}, found;

	snprintf(wanted.id, sizeof wanted.id, "%s", id);
	snprintf(wanted.domain, sizeof wanted.domain, "%s", id);
	snprintf(wanted.serial, sizeof wanted.serial, "%" PRIx64, entry->serial);
	snprintf(wanted.firmware, sizeof wanted.firmware, "%s", entry->firmware);
	if (identity_load(folder, id, &found) == SECPOOL_OK) {
		memcpy(wanted.domain, found.domain, sizeof wanted.domain);
		wanted.tpm = found.tpm;
		wanted.latency_ns = found.latency_ns;
		if (!entry->dax[0]) /* its size is not known now */
			wanted.bytes = found.bytes;
		if (found.bytes == wanted.bytes && found.kind == wanted.kind &&
			strcmp(found.serial, wanted.serial) == 0 &&
			strcmp(found.firmware, wanted.firmware) == 0)
			return SECPOOL_OK;
	}
	return identity_save(folder, &wanted);
}

/* The link `media`, whole or not at all. */
static enum secpool_error settle_link(const char *folder, const char *dax)
{
	char path[PATH_MAX], next[PATH_MAX], target[PATH_MAX], old[PATH_MAX];
	ssize_t length;

	if (snprintf(path, sizeof path, "%s/media", folder) >= PATH_MAX ||
		snprintf(next, sizeof next, "%s/media.next", folder) >= PATH_MAX)
		return err_set(SECPOOL_E_LIMIT, "path too long: %s", folder);
	if (!dax[0]) {
		unlink(path);
		return SECPOOL_OK;
	}
	snprintf(target, sizeof target, "/dev/%s", dax);
	length = readlink(path, old, sizeof old - 1);
	old[length > 0 ? length : 0] = '\0';
	if (strcmp(old, target) == 0)
		return SECPOOL_OK;
	unlink(next);
	if (symlink(target, next) != 0 || rename(next, path) != 0)
		return os_error("link %s to %s", path, target);
	return SECPOOL_OK;
}

static void note_topology(struct device *device, const struct topology_device *entry)
{
	if (!device->topology)
		device->topology = calloc(1, sizeof *device->topology);
	if (device->topology)
		*device->topology = *entry;
}

/* What the device says of itself in its health and its poison list, at each look: also one that said so before it was online. */
static void judge_health(struct device *device, const struct topology_device *entry)
{
	char why[DEVICE_REASON_BYTES];

	if (device->state == MSG_DEVICE_ONLINE &&
		health_judge(
			entry->health, entry->poisoned, &device->hotplug->limits, why, sizeof why))
		device_step(device, DEVSTATE_ERRORS, why);
}

static void settle(struct cxl *cxl, const struct topology_device *entry)
{
	char id[IDENTITY_ID_BYTES], folder[PATH_MAX];
	enum secpool_error error = SECPOOL_OK;
	struct device *device;

	id_of(entry, id);
	if (snprintf(folder, sizeof folder, "%s/%s", cxl->hotplug->devices_dir, id) >=
		(int)sizeof folder)
		error = err_set(SECPOOL_E_LIMIT, "path too long: %s", cxl->hotplug->devices_dir);
	if (!error)
		error = os_make_dir(folder, 0700);
	device = device_find(cxl->hotplug, id);
	/* while it is open it is what it was attested as */
	if (!error && !(device && device->media_fd >= 0))
		error = settle_identity(folder, id, entry);
	if (!error)
		error = settle_link(folder, entry->dax);
	if (error) {
		log_error("cxl-device-refused", error);
		return;
	}
	if (!device || device->media_fd < 0)
		device_discover(cxl->hotplug, id);
	device = device_find(cxl->hotplug, id);
	if (!device)
		return;
	note_topology(device, entry);
	if (entry->latency_ns > 0 && device->identity.latency_ns == 0)
		device->latency_ns = entry->latency_ns; /* better than what was measured */
	judge_health(device, entry);
	if (device->media_fd < 0 && (entry->advice[0] || device->retire.text[0]))
		msg_set_text(device->reason, sizeof device->reason,
			device->retire.text[0] ? device->retire.text : entry->advice);
}

/* Serials are labels: one that two show, or none shows, names no device. */
static bool is_unique(const struct topology_device *list, size_t count, size_t i)
{
	if (list[i].serial == 0)
		return false;
	for (size_t k = 0; k < count; k++)
		if (k != i && list[k].serial == list[i].serial)
			return false;
	return true;
}

static void forget(struct cxl *cxl, const struct topology_device *list, size_t count)
{
	for (struct device *d = cxl->hotplug->devices; d; d = d->next) {
		bool listed = false;
		if (d->identity.kind != MSG_KIND_CXL)
			continue;
		for (size_t i = 0; i < count && !listed; i++) {
			char id[IDENTITY_ID_BYTES];
			id_of(&list[i], id);
			listed = strcmp(id, d->identity.id) == 0;
		}
		device_look(d, "the kernel removed it");
		if (listed)
			continue;
		free(d->topology);
		d->topology = NULL;
		if (d->media_fd < 0) {
			enum secpool_error error = settle_link(d->folder, "");
			if (error)
				log_error("cxl-link", error);
		}
	}
}

static void look_at_all(struct cxl *cxl)
{
	struct topology_device *list = calloc(TOPOLOGY_MOST, sizeof *list);
	enum secpool_error error = list ? SECPOOL_OK : os_error("the CXL topology");
	size_t count = 0;

	if (!error)
		error = topology_read(list, &count);
	if (error) {
		log_error("cxl-topology", error);
		free(list);
		return;
	}
	forget(cxl, list, count);
	for (size_t i = 0; i < count; i++) {
		if (is_unique(list, count, i))
			settle(cxl, &list[i]);
		else
			log_event(LOG_LEVEL_WARNING, "cxl-serial",
				"memdev=%s serial=%" PRIx64
				" detail=\"no serial of its own: it is not used\"",
				list[i].memdev, list[i].serial);
	}
	free(list);
}

static void arm(struct cxl *cxl, unsigned ms);

static int on_timer(sd_event_source *source, uint64_t usec, void *arg)
{
	struct cxl *cxl = arg;

	(void)source;
	(void)usec;
	look_at_all(cxl);
	arm(cxl, HEALTH_MS);
	return 0;
}

static void arm(struct cxl *cxl, unsigned ms)
{
	cxl->timer = sd_event_source_disable_unref(cxl->timer);
	if (sd_event_add_time_relative(cxl->hotplug->loop, &cxl->timer, CLOCK_MONOTONIC,
		    (uint64_t)ms * US_PER_MS, 1, on_timer, cxl) < 0)
		log_event(LOG_LEVEL_ERROR, "cxl-timer", "CXL devices are not looked at");
}

/* What is said in the events is not believed: they are a reason to look. Removals are looked at now. */
static int on_events(sd_event_source *source, int fd, uint32_t events, void *arg)
{
	struct cxl *cxl = arg;
	struct udev_device *event;
	bool removal = false;

	(void)source;
	(void)fd;
	(void)events;
	while ((event = udev_monitor_receive_device(cxl->monitor)) != NULL) {
		const char *action = udev_device_get_action(event);
		removal = removal || (action && (strcmp(action, "remove") == 0 ||
							strcmp(action, "unbind") == 0));
		udev_device_unref(event);
	}
	for (struct device *d = removal ? cxl->hotplug->devices : NULL; d; d = d->next)
		if (d->identity.kind == MSG_KIND_CXL)
			device_look(d, "the kernel removed it");
	arm(cxl, SETTLE_MS);
	return 0;
}

static enum secpool_error listen(struct cxl *cxl)
{
	static const char *const subsystems[] = {"cxl", "dax", "nd", "pci"};

	cxl->udev = udev_new();
	if (cxl->udev)
		cxl->monitor = udev_monitor_new_from_netlink(cxl->udev, "kernel");
	if (!cxl->monitor)
		return err_set(SECPOOL_E_SYSTEM, "the kernel's uevents can't be listened to");
	for (size_t i = 0; i < sizeof subsystems / sizeof *subsystems; i++)
		if (udev_monitor_filter_add_match_subsystem_devtype(
			    cxl->monitor, subsystems[i], NULL) < 0)
			return err_set(SECPOOL_E_SYSTEM, "uevents can't be filtered");
	if (udev_monitor_enable_receiving(cxl->monitor) < 0 ||
		sd_event_add_io(cxl->hotplug->loop, &cxl->io, udev_monitor_get_fd(cxl->monitor),
			EPOLLIN, on_events, cxl) < 0)
		return err_set(SECPOOL_E_SYSTEM, "the kernel's uevents can't be listened to");
	sd_event_source_set_priority(cxl->io, SD_EVENT_PRIORITY_IMPORTANT);
	return SECPOOL_OK;
}

enum secpool_error cxl_watch_new(struct hotplug *hotplug)
{
	struct cxl *cxl = calloc(1, sizeof *cxl);
	enum secpool_error error;

	if (!cxl)
		return err_set(SECPOOL_E_NO_MEMORY, "CXL devices: out of memory");
	cxl->hotplug = hotplug;
	error = listen(cxl);
	if (error) {
		cxl_watch_free(cxl);
		return error;
	}
	hotplug->cxl = cxl;
	look_at_all(cxl);
	arm(cxl, HEALTH_MS);
	return SECPOOL_OK;
}

void cxl_watch_free(struct cxl *cxl)
{
	if (!cxl)
		return;
	sd_event_source_disable_unref(cxl->timer);
	sd_event_source_disable_unref(cxl->io);
	udev_monitor_unref(cxl->monitor);
	udev_unref(cxl->udev);
	free(cxl);
}
