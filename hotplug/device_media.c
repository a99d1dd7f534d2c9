/* SPDX-License-Identifier: Apache-2.0 */
/* Devices as their media come and go: discovery, pull and plug. The states are stepped in device.c.
 */
#include "hotplug/device.h"

#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hotplug/control.h"
#include "hotplug/devdax.h"
#include "hotplug/emulator.h"
#include "hotplug/latency.h"
#include "hotplug/mark.h"
#include "hotplug/notify.h"
#include "hotplug/vtpm.h"
#include "hotplug/watch.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/base/os.h"

static enum secpool_error open_emulated(
	const struct device *device, bool back, int *ret_media_fd, uint64_t *ret_mark)
{
	(void)back; /* the folder tells */
	return emulator_open(device->folder, device->identity.bytes, ret_media_fd, ret_mark);
}

static bool look_emulated(const struct device *device)
{
	return emulator_look(device->media_fd, device->identity.bytes);
}

/* Whoever did it: for clients that still map them the media must be gone as well. */
static void cut_emulated(const struct device *device)
{
	emulator_cut(device->folder, device->media_fd);
}

static enum secpool_error open_cxl(
	const struct device *device, bool back, int *ret_media_fd, uint64_t *ret_mark)
{
	return devdax_open(device->folder, device->identity.bytes, back, ret_media_fd, ret_mark);
}

static bool look_cxl(const struct device *device)
{
	return devdax_look(device->media_fd, device->identity.bytes);
}

/* The kernel did it. */
static void cut_cxl(const struct device *device)
{
	(void)device;
}

static enum secpool_error probe_emulated(const struct device_probe *probe)
{
	return emulator_probe(probe->fd, probe->bytes, probe->most_ns);
}

/* Without a bound: a load from a card can't be abandoned. */
static enum secpool_error probe_cxl(const struct device_probe *probe)
{
	return devdax_probe(probe->fd, probe->bytes, probe->mark);
}

const struct device_kind *device_kind_of(const struct device *device)
{
	static const struct device_kind emulated = {
		open_emulated, look_emulated, cut_emulated, probe_emulated};
	static const struct device_kind cxl = {open_cxl, look_cxl, cut_cxl, probe_cxl};

	return device->identity.kind == MSG_KIND_CXL ? &cxl : &emulated;
}

enum secpool_error device_must_be_emulated(const struct device *device, const char *what)
{
	if (device->identity.kind == MSG_KIND_EMULATED)
		return SECPOOL_OK;
	return err_set(SECPOOL_E_UNSUPPORTED,
		"device %s is real and can't be %s by command: that is done at its slot, best "
		"after 'secpool device drain %s'",
		device->identity.id, what, device->identity.id);
}

bool device_look(struct device *device, const char *reason)
{
	if (device->media_fd < 0 || device_kind_of(device)->look(device))
		return false;
	device_kind_of(device)->cut(device);
	device_step(device, DEVSTATE_REMOVED, reason);
	err_set(SECPOOL_E_DEVICE_GONE, "device %s was removed", device->identity.id);
	control_attested(device->hotplug->control, device, SECPOOL_E_DEVICE_GONE);
	return true;
}

/* A TPM that was started again lost its PCRs and measured anew: what was proven before is worth
 * nothing now. */
static void on_powered(void *arg)
{
	struct device *device = arg;

	if (notify_connected(device->hotplug->notify) && !device_held(device) &&
		(device->state == MSG_DEVICE_DISCOVERED || device->state == MSG_DEVICE_ONLINE))
		device_step(device, DEVSTATE_ATTEST, "");
}

static void run_save(struct work_item *item)
{
	struct device *device =
		(struct device *)(void *)((char *)item - offsetof(struct device, save));

	device->save_error = emulator_save(device->folder, device->save_fd);
	msg_set_text(device->save_detail, sizeof device->save_detail, err_detail());
}

/* The copy is there: now the pull itself. */
static void done_save(struct work_item *item)
{
	struct device *device =
		(struct device *)(void *)((char *)item - offsetof(struct device, save));
	enum secpool_error error = device->save_error;

	device->pulling = false;
	os_close(&device->save_fd);
	if (device->media_fd < 0) { /* somebody else was faster */
		error = SECPOOL_OK;
	} else if (error) {
		err_set(error, "%s", device->save_detail);
		log_error("pull-failed", error);
		err_set(error, "device %.31s can't keep its contents, it was not pulled: %.190s",
			device->identity.id, device->save_detail);
	} else {
		emulator_cut(device->folder, device->media_fd);
		device_look(device, "pulled by command");
	}
	control_pulled(device->hotplug->control, device, error);
}

static enum secpool_error device_new(struct hotplug *hotplug, const struct identity *identity,
	const char *folder, struct device **ret_device)
{
	struct device *device;
	enum secpool_error error;

	if (hotplug->device_count >= DEVICE_MOST)
		return err_set(
			SECPOOL_E_LIMIT, "%s: there are %d devices already", folder, DEVICE_MOST);
	device = calloc(1, sizeof *device);
	if (!device)
		return err_set(SECPOOL_E_NO_MEMORY, "%s: out of memory", folder);
	device->hotplug = hotplug;
	device->identity = *identity;
	device->media_fd = -1;
	device->save_fd = -1;
	device->probe.fd = -1;
	device->save.run = run_save;
	device->save.done = done_save;
	snprintf(device->folder, sizeof device->folder, "%s", folder);
	device_returns_load(device);
	error = vtpm_new(hotplug->loop, hotplug->vtpm_program, device->folder, on_powered, device,
		&device->vtpm);
	if (error) {
		free(device);
		return error;
	}
	*ret_device = device;
	return SECPOOL_OK;
}

/* In the order people expect: dev2 before dev10. */
static void insert(struct hotplug *hotplug, struct device *device)
{
	struct device **at = &hotplug->devices;

	while (*at && strverscmp((*at)->identity.id, device->identity.id) < 0)
		at = &(*at)->next;
	device->next = *at;
	*at = device;
	hotplug->device_count++;
}

/* A device that was there before is back, and nobody asked for it: it may have to wait. Writes why. */
static void note_return(struct device *device, char why[DEVICE_REASON_BYTES])
{
	uint64_t wait_ns = device_returned(device);

	if (wait_ns > 0)
		snprintf(why, DEVICE_REASON_BYTES,
			"held off for %llu s: it came back %u times in a row ('secpool device "
			"attest' ends the wait)",
			(unsigned long long)(wait_ns / CLOCK_NS_PER_S), device->holdoff.returns);
}

/* The media are open: from here on the device is there. */
static void found(struct device *device, int media_fd, uint64_t mark, const char *reason)
{
	enum secpool_error error;

	device_retire_done(device);
	device->media_fd = media_fd;
	device->mark = mark;
	device->latency_ns = device->identity.latency_ns
				     ? device->identity.latency_ns
				     : latency_measure(media_fd, device->identity.bytes);
	error = device->identity.kind == MSG_KIND_EMULATED
			? watch_media(device->hotplug->watch, device)
			: SECPOOL_OK;
	if (error) /* a pull is then found by DEVICE_CHECK alone */
		log_error("media-not-watched", error);
	device_step(device, DEVSTATE_FOUND, reason);
	/* removed between the opening and the watch: no event will tell */
	device_look(device, "the media vanished");
}

void device_discover(struct hotplug *hotplug, const char *id)
{
	struct device *device = device_find(hotplug, id);
	struct identity identity;
	char folder[PATH_MAX];
	enum secpool_error error;
	uint64_t mark = 0;
	int media_fd = -1;
	bool back;

	if (!identity_id_allowed(id) || (device && device->media_fd >= 0) ||
		(device && device->retire.state == MSG_SANITISE_RUNNING) ||
		snprintf(folder, sizeof folder, "%s/%s", hotplug->devices_dir, id) >= PATH_MAX)
		return;
	error = identity_load(folder, id, &identity);
	if (error == SECPOOL_E_NOT_FOUND) /* not complete yet, the folder is watched */
		return;
	if (!error && !device) {
		error = device_new(hotplug, &identity, folder, &device);
		if (!error)
			insert(hotplug, device);
	}
	if (error) {
		log_error("device-refused", error);
		return;
	}
	device->identity = identity;
	back = device->state == MSG_DEVICE_LOST;
	error = device_kind_of(device)->open(device, back, &media_fd, &mark);
	if (!error) {
		char why[DEVICE_REASON_BYTES] = "found";

		if (device->state == MSG_DEVICE_LOST)
			note_return(device, why);
		found(device, media_fd, mark, why);
	} else if (identity.kind == MSG_KIND_CXL &&
		   (mark_read(folder) == 0 || device->retire.state != MSG_SANITISE_NONE)) {
		/* it was never used, or is retired: it has nothing that could be lost */
	} else if (device->state == MSG_DEVICE_ABSENT) {
		log_error("device-without-media", error);
		device_step(device, DEVSTATE_REMOVED, err_detail());
	}
}

static enum secpool_error busy(const struct device *device)
{
	return err_set(SECPOOL_E_BUSY, "device %s is %s", device->identity.id,
		device->pulling ? "being pulled" : msg_device_state_name(device->state));
}

static int on_silence_over(sd_event_source *source, uint64_t usec, void *arg)
{
	struct device *device = arg;

	(void)source;
	(void)usec;
	device->silence = sd_event_source_disable_unref(device->silence);
	work_start(device->hotplug->copy_work, &device->save);
	return 0;
}

/* From now on it is as if it were out already, though nobody was told. */
static enum secpool_error start_silence(struct device *device, uint32_t silent_ms)
{
	enum { US_PER_MS = 1000 };
	enum secpool_error error;

	if (device_look(device, "found removed by a command"))
		return busy(device);
	if (sd_event_add_time_relative(device->hotplug->loop, &device->silence, CLOCK_MONOTONIC,
		    (uint64_t)silent_ms * US_PER_MS, 1, on_silence_over, device) < 0)
		return err_set(SECPOOL_E_SYSTEM, "device %s: no timer", device->identity.id);
	error = emulator_behave(device->media_fd, device->identity.bytes, EMUMEDIA_SILENT, 0);
	if (error)
		device->silence = sd_event_source_disable_unref(device->silence);
	return error;
}

enum secpool_error device_pull(struct device *device, uint32_t silent_ms)
{
	enum secpool_error error = SECPOOL_OK;

	if (silent_ms > DEVICE_SILENT_MS_MOST)
		return err_set(SECPOOL_E_INVALID, "a silence of %u ms: expected at most %d",
			silent_ms, DEVICE_SILENT_MS_MOST);
	error = device_must_be_emulated(device, "pulled");
	if (error)
		return error;
	if (device->media_fd < 0 || device->pulling)
		return busy(device);
	/* a descriptor of its own: the media may be taken away while the copy is made */
	device->save_fd = fcntl(device->media_fd, F_DUPFD_CLOEXEC, 0);
	if (device->save_fd < 0)
		return os_error("dup");
	if (silent_ms > 0)
		error = start_silence(device, silent_ms);
	if (error) {
		os_close(&device->save_fd);
		return error;
	}
	device->pulling = true;
	if (silent_ms == 0)
		work_start(device->hotplug->copy_work, &device->save);
	return SECPOOL_OK;
}

enum secpool_error device_plug(struct device *device, bool by_itself)
{
	char why[DEVICE_REASON_BYTES] = "plugged in by command";
	struct identity identity;
	enum secpool_error error;
	uint64_t mark;
	int media_fd;

	error = device_must_be_emulated(device, "plugged in");
	if (error)
		return error;
	if (device->media_fd >= 0 || device->pulling)
		return busy(device);
	error = identity_load(device->folder, device->identity.id, &identity);
	if (!error)
		error = emulator_restore(device->folder, identity.bytes, &media_fd, &mark);
	if (error)
		return error;
	device->identity = identity;
	if (by_itself)
		note_return(device, why);
	else
		device_returns_forget(device);
	found(device, media_fd, mark, why);
	return SECPOOL_OK;
}
