/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel tells about the devices folder (inotify): new folders and their identity.json,
 * and media that are truncated, unlinked or moved, whoever did it. Threads: the loop's.
 */
#ifndef SECPOOL_HOTPLUG_WATCH_H
#define SECPOOL_HOTPLUG_WATCH_H

#include "hotplug/device.h"

struct watch;

/* Watches the devices folder and discovers what is in it. hotplug->watch is set before the first
 * device is. Errors: SECPOOL_E_NOT_FOUND, SECPOOL_E_SYSTEM, SECPOOL_E_NO_MEMORY. */
enum secpool_error watch_new(struct hotplug *hotplug) MUST_USE;
void watch_free(struct watch *watch);

/* Watches a device's media from now on; its device_look is called for each change. Errors:
 * SECPOOL_E_SYSTEM (the kernel's limit of watches: fs.inotify). */
enum secpool_error watch_media(struct watch *watch, const struct device *device) MUST_USE;

#endif
