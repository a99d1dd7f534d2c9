/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Sanitize command of a CXL memdev (CXL 3.0 section 8.2.9.8.5.1): the card overwrites, or makes unreadable, all of its media. Linux gives it out, from 6.6 on, as `security/sanitize` and `security/state` of the memdev
 * (Documentation/ABI/testing/sysfs-bus-cxl), for cards that have it and that no region uses. The card's word is all that there is: the kernel shows when it is over, not what came of it.
 *
 * bus: the folder of the memdevs and regions, SANITISE_BUS. Threads: any; no state.
 */
#ifndef SECPOOL_HOTPLUG_SANITISE_H
#define SECPOOL_HOTPLUG_SANITISE_H

#include <stdbool.h>

#include "lib/base/err.h"
#include "lib/wire/msg.h"

#define SANITISE_BUS "/sys/bus/cxl/devices"

/* What the kernel shows of the memdev ("mem0"): MSG_SANITISE_NONE (it has no such thing), MSG_SANITISE_POSSIBLE or MSG_SANITISE_RUNNING. */
enum msg_sanitise sanitise_look(const char *bus, const char *memdev);

/*
 * Takes the region ("region0", "": it is in none), which must be this memdev's alone, away, with its devdax device and its range of addresses, and has the card begin. What was there is lost. May wait for some seconds.
 * Errors: SECPOOL_E_UNSUPPORTED (the kernel or the card has no such thing: nothing was changed), SECPOOL_E_BUSY (something else uses the memory), os_error's of the file that was refused. Each but the first may leave the region
 * taken away; then a second call without it goes on.
 */
enum secpool_error sanitise_begin(const char *bus, const char *memdev, const char *region) MUST_USE;

#endif
