/* SPDX-License-Identifier: Apache-2.0 */
/* Devices that misbehave by command, and the look that finds out whether one does. */
#include "hotplug/device.h"

#include <fcntl.h>
#include <stddef.h>

#include "hotplug/emulator.h"
#include "hotplug/inject.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/base/os.h"

/* Between a flapping device's changes: the first wait, and the longest; each is twice the one
 * before. Milliseconds. */
enum { FLAP_LEAST_MS = 50, FLAP_MOST_MS = 2000, NS_PER_US = 1000 };

static int on_flap(sd_event_source *source, uint64_t usec, void *arg);

static void arm_flap(struct device *device)
{
	device->flap = sd_event_source_disable_unref(device->flap);
	if (sd_event_add_time_relative(device->hotplug->loop, &device->flap, CLOCK_MONOTONIC,
		    device->flap_wait_ms * (CLOCK_NS_PER_MS / NS_PER_US), 1, on_flap, device) < 0)
		log_event(LOG_LEVEL_ERROR, "flap-timer", "device=%s", device->identity.id);
	if (device->flap_wait_ms < FLAP_MOST_MS)
		device->flap_wait_ms *= 2;
}

/* Out when it is in, in when it is out; it ends in. */
static int on_flap(sd_event_source *source, uint64_t usec, void *arg)
{
	struct device *device = arg;
	enum secpool_error error = SECPOOL_OK;
	bool was_in = device->media_fd >= 0;

	(void)source;
	(void)usec;
	if (!device->pulling && was_in && device->flaps_left > 0) {
		device->flaps_left--;
		error = device_pull(device, 0);
	} else if (!device->pulling && !was_in) {
		error = device_plug(device, true);
	}
	if (error) {
		log_error("flap-ended", error);
		device->flaps_left = 0;
	}
	if (error || (device->flaps_left == 0 && device->media_fd >= 0 && !device->pulling))
		device->flap = sd_event_source_disable_unref(device->flap);
	else
		arm_flap(device);
	return 0;
}

static enum secpool_error behave(
	struct device *device, enum emumedia_behaviour behaviour, uint64_t ns)
{
	return emulator_behave(device->media_fd, device->identity.bytes, behaviour, ns);
}

static enum secpool_error carry_out(struct device *device, const struct inject *inject)
{
	enum secpool_error error;

	switch (inject->kind) {
	case INJECT_NORMAL:
		/* it is in (device_inject): a timer that went on would plug it when somebody had pulled it */
		device->flaps_left = 0;
		device->flap = sd_event_source_disable_unref(device->flap);
		return behave(device, EMUMEDIA_NORMAL, 0);
	case INJECT_SLOW:
		return behave(device, EMUMEDIA_SLOW, inject->number * CLOCK_NS_PER_MS);
	case INJECT_STUCK:
		return behave(device, EMUMEDIA_STUCK, 0);
	case INJECT_CORRUPT:
		return inject_corrupt(device->media_fd, device->identity.bytes, inject->number);
	case INJECT_POISON:
		return inject_poison(device->media_fd, device->identity.bytes);
	case INJECT_SHORT:
		error = inject_short(device->media_fd, device->identity.bytes);
		device_look(device, "the media were cut short by command");
		return error;
	case INJECT_FLAP:
		if (device->flap)
			return err_set(SECPOOL_E_BUSY, "device %s is flapping already",
				device->identity.id);
		device->flaps_left = (unsigned)inject->number;
		device->flap_wait_ms = FLAP_LEAST_MS;
		arm_flap(device);
		return SECPOOL_OK;
	}
	return err_set(SECPOOL_E_INTERNAL, "no such injection");
}

enum secpool_error device_inject(struct device *device, const char *text)
{
	struct inject inject;
	enum secpool_error error = device_must_be_emulated(device, "made to misbehave");

	if (!error)
		error = inject_parse(text, &inject);

	if (error)
		return error;
	if (device->media_fd < 0 || device->pulling ||
		device_look(device, "found removed by a command"))
		return err_set(SECPOOL_E_BUSY, "device %s is %s", device->identity.id,
			device->pulling ? "being pulled" : msg_device_state_name(device->state));
	error = carry_out(device, &inject);
	if (!error)
		log_event(LOG_LEVEL_WARNING, "injected", "device=%s kind=\"%.40s\"",
			device->identity.id, text);
	return error;
}

/* ---- whether it answers ---- */

static struct device *device_of(struct work_item *item)
{
	return (struct device *)(void *)((char *)item - offsetof(struct device, probe.work));
}

static void run_probe(struct work_item *item)
{
	struct device *device = device_of(item);
	struct device_probe *probe = &device->probe;

	probe->error = probe->kind->probe(probe);
	msg_set_text(probe->detail, sizeof probe->detail, err_detail());
}

static void done_probe(struct work_item *item)
{
	struct device *device = device_of(item);
	struct device_probe *probe = &device->probe;

	os_close(&probe->fd);
	probe->running = false;
	/* others' media by now are not what was looked at */
	if (device->media_fd < 0 || device->mark != probe->mark ||
		device_look(device, "found removed by a look at it"))
		return;
	if ((probe->error == SECPOOL_E_TIMEOUT || probe->error == SECPOOL_E_INTEGRITY) &&
		device->state == MSG_DEVICE_ONLINE)
		device_step(device, DEVSTATE_ERRORS, probe->detail);
}

void device_probe(struct device *device, uint32_t most_ms)
{
	struct device_probe *probe = &device->probe;

	if (probe->running)
		return;
	probe->fd = fcntl(device->media_fd, F_DUPFD_CLOEXEC, 0);
	if (probe->fd < 0) {
		log_error("device-not-probed", os_error("dup"));
		return;
	}
	probe->running = true;
	probe->bytes = device->identity.bytes;
	probe->kind = device_kind_of(device);
	probe->mark = device->mark;
	probe->most_ns = (uint64_t)(most_ms > 0 ? most_ms : 1) * CLOCK_NS_PER_MS;
	probe->work.run = run_probe;
	probe->work.done = done_probe;
	work_start(device->hotplug->probe_work, &probe->work);
}
