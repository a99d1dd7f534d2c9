/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pool device as this process uses it: its media, mapped once, reached by guarded copies only.
 *
 * A struct device is one incarnation of a device's media. When a device is lost its `gone` is set for ever; when it returns it is a new
 * incarnation. Incarnations live until the pool is closed, so that a worker may hold one without a count.
 * Threads: any; all but `gone` and `handled` is immutable after device_map.
 */
#ifndef SECPOOL_DEVICE_H
#define SECPOOL_DEVICE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"
#include "lib/wire/msg.h"

struct device {
	uint64_t slot;
	uint64_t media; /* keymgrd's mark of the contents */
	uint8_t *base;
	size_t bytes;
	char id[MSG_NAME_BYTES];
	_Atomic bool gone;
	bool handled; /* its loss was dealt with; the service thread's */
	struct device *older;
};

/*
 * Maps the media behind fd (borrowed): shared, not inherited by fork, not in core files.
 * Errors: SECPOOL_E_DEVICE_GONE (shorter than the device says), SECPOOL_E_SYSTEM.
 */
enum secpool_error device_map(const struct msg_device *info, int fd, struct device **ret_device) MUST_USE;
void device_unmap(struct device *device);

/* Whether accesses make sense: false for NULL and for a device that is gone. */
bool device_usable(const struct device *device);

/*
 * Loads or stores bytes at an offset; `bytes` within the device is the caller's to know (directory extents are checked when they are read).
 * Errors: SECPOOL_E_DEVICE_GONE: `gone` is then set.
 */
enum secpool_error device_read(struct device *device, uint64_t offset, void *to, size_t bytes) MUST_USE;
enum secpool_error device_write(struct device *device, uint64_t offset, const void *from, size_t bytes) MUST_USE;

/* Asks the CPU to bring bytes near that will be read soon. A device that is gone does no harm: a prefetch never faults (Intel SDM volume 2, PREFETCHh). */
void device_prefetch(const struct device *device, uint64_t offset, size_t bytes);

#endif
