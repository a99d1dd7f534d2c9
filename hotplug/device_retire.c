/* SPDX-License-Identifier: Apache-2.0 */
/* A CXL device's retirement: the card overwrites itself (sanitise.h) when nothing of anybody is on it any more. The states are stepped in device.c, for which it is a removal. */
#include "hotplug/device.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include "hotplug/mark.h"
#include "hotplug/sanitise.h"
#include "hotplug/topology.h"
#include "lib/base/log.h"

/* Between two looks at a card that sanitises itself, which takes seconds to hours. */
enum { LOOK_US = 1000000 };

static struct device *owner(struct work_item *item)
{
	return (struct device *)(void *)((char *)item - offsetof(struct device, retire.work));
}

static void note(struct device *device, enum msg_sanitise state, const char *text)
{
	device->retire.state = state;
	msg_set_text(device->retire.text, sizeof device->retire.text, text);
	msg_set_text(device->reason, sizeof device->reason, text);
	log_event(LOG_LEVEL_INFO, "device-retirement", "device=%s detail=\"%s\"",
		device->identity.id, text);
}

/* By its serial, as it is now: names of memdevs and regions are given again when cards come and go. */
static enum secpool_error find_card(const struct topology_device *list, size_t count,
	struct device_retire *retire, const struct topology_device **ret_card)
{
	const struct topology_device *card = NULL;

	for (size_t i = 0; i < count; i++) {
		if (list[i].serial != retire->serial)
			continue;
		if (card)
			return err_set(SECPOOL_E_BUSY, "%s and %s have one serial number",
				card->memdev, list[i].memdev);
		card = &list[i];
	}
	if (!card)
		return err_set(SECPOOL_E_DEVICE_GONE, "the kernel shows its memdev no more");
	*ret_card = card;
	return SECPOOL_OK;
}

static void run_begin(struct work_item *item)
{
	struct topology_device *list = calloc(TOPOLOGY_MOST, sizeof *list);
	struct device_retire *retire = &owner(item)->retire;
	const struct topology_device *card = NULL;
	size_t count = 0;
	enum secpool_error error =
		list ? topology_read(list, &count)
		     : err_set(SECPOOL_E_NO_MEMORY, "the CXL topology: out of memory");

	if (!error)
		error = find_card(list, count, retire, &card);
	if (!error) {
		msg_set_text(retire->memdev, sizeof retire->memdev, card->memdev);
		error = sanitise_begin(SANITISE_BUS, card->memdev, card->region);
	}
	if (error)
		msg_set_text(retire->detail, sizeof retire->detail, err_detail());
	retire->error = error;
	free(list);
}

static int on_look(sd_event_source *source, uint64_t usec, void *arg)
{
	struct device *device = arg;
	enum msg_sanitise now = sanitise_look(SANITISE_BUS, device->retire.memdev);

	(void)usec;
	if (now == MSG_SANITISE_RUNNING &&
		sd_event_source_set_time_relative(source, LOOK_US) >= 0 &&
		sd_event_source_set_enabled(source, SD_EVENT_ONESHOT) >= 0)
		return 0;
	device->retire.look = sd_event_source_disable_unref(device->retire.look);
	if (now == MSG_SANITISE_POSSIBLE)
		note(device, MSG_SANITISE_DONE,
			"it was sanitised by its own command and may be taken out");
	else
		note(device, MSG_SANITISE_FAILED,
			"it went, or could not be looked at, while it was sanitised");
	return 0;
}

static void done_begin(struct work_item *item)
{
	struct device *device = owner(item);
	struct device_retire *retire = &device->retire;
	char why[DEVICE_REASON_BYTES];

	/* whatever comes back on this card is new */
	if (!retire->error && mark_forget(device->folder) != SECPOOL_OK)
		log_error("mark-not-forgotten", SECPOOL_E_SYSTEM);
	if (!retire->error && sd_event_add_time_relative(device->hotplug->loop, &retire->look,
				      CLOCK_MONOTONIC, 0, 1, on_look, device) < 0) {
		retire->error = SECPOOL_E_SYSTEM;
		msg_set_text(retire->detail, sizeof retire->detail,
			"it was begun, and can't be watched: no timer");
	}
	if (!retire->error)
		return;
	snprintf(why, sizeof why, "it could not be sanitised: %.150s", retire->detail);
	note(device, MSG_SANITISE_FAILED, why);
}

static bool is_empty(const struct device *device)
{
	return device->state == MSG_DEVICE_OFFLINE ||
	       (device->media_fd < 0 &&
		       (device->state == MSG_DEVICE_ABSENT || device->state == MSG_DEVICE_LOST));
}

/* What keeps the device from it; nothing is changed. */
static enum secpool_error check(const struct device *device)
{
	const char *id = device->identity.id;

	if (device->identity.kind != MSG_KIND_CXL)
		return err_set(SECPOOL_E_UNSUPPORTED,
			"device %s is emulated, and has no command that sanitises it: what was on "
			"it was overwritten when it was drained",
			id);
	if (!device->topology)
		return err_set(
			SECPOOL_E_DEVICE_GONE, "device %s: the kernel shows no memdev of it", id);
	if (sanitise_look(SANITISE_BUS, device->topology->memdev) == MSG_SANITISE_NONE)
		return err_set(SECPOOL_E_UNSUPPORTED,
			"device %s can't be sanitised: %s has no security/sanitize, which takes "
			"Linux 6.6 or newer and a card with that command",
			id, device->topology->memdev);
	if (device->retire.state == MSG_SANITISE_RUNNING)
		return err_set(SECPOOL_E_BUSY, "device %s is being sanitised already", id);
	if (!is_empty(device))
		return err_set(SECPOOL_E_BUSY,
			"device %s is %s: 'secpool device drain %s' first, so that nothing is on "
			"it any more",
			id, msg_device_state_name(device->state), id);
	return SECPOOL_OK;
}

enum secpool_error device_retire(struct device *device)
{
	struct device_retire *retire = &device->retire;
	enum secpool_error error = check(device);

	if (error)
		return error;
	retire->serial = device->topology->serial;
	retire->error = SECPOOL_E_INTERNAL;
	retire->work.run = run_begin;
	retire->work.done = done_begin;
	note(device, MSG_SANITISE_RUNNING, "its region is taken away, and it sanitises itself");
	work_start(device->hotplug->copy_work, &retire->work);
	return SECPOOL_OK;
}

void device_retire_done(struct device *device)
{
	device->retire.look = sd_event_source_disable_unref(device->retire.look);
	if (device->retire.state != MSG_SANITISE_RUNNING)
		device->retire.state = MSG_SANITISE_NONE;
	device->retire.text[0] = '\0';
}
