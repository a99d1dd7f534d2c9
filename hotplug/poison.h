/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The poison list of a CXL memdev (CXL 3.0 section 8.2.9.8.4.1, Get Poison List). Linux gives it out, from 6.4 on, as trace events of cxl:cxl_poison after a write to the memdev's `trigger_poison_list`
 * (Documentation/ABI/testing/sysfs-bus-cxl), so it is read by way of an instance of tracefs of this process's own. Threads: one at a time; some ms each.
 */
#ifndef SECPOOL_HOTPLUG_POISON_H
#define SECPOOL_HOTPLUG_POISON_H

#include <stdint.h>

#include "lib/base/err.h"

/* In place of a number: this kernel or this device has no list. */
#define POISON_UNKNOWN UINT32_MAX

/*
 * How many places of the memdev ("mem0", as in `cxl list`) its list names. Errors: os_error's of the file that is not there or refused (an older kernel, a device without the command, no
 * tracefs); nothing is left behind, *ret_places is as before.
 */
enum secpool_error poison_read(const char *memdev, uint32_t *ret_places) MUST_USE;

/* The same from what tracefs printed: the lines of the event that are of this memdev and of its list. Any text may come. */
uint32_t poison_count(const char *text, const char *memdev);

#endif
