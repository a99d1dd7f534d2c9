/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pool device as this process uses it: its media, mapped once, reached by guarded copies and guarded runs only (lib/base).
 *
 * A struct device is one incarnation of a device's media. When a device is lost its `gone` is set for ever; when it returns it is a new
 * incarnation. Incarnations live until the pool is closed, so that a worker may hold one without a count; an I/O thread that a device never answered keeps its device
 * beyond that (holders).
 * Threads: any; all but the atomics and what is the service's is immutable once the device is in pool.devices.
 */
#ifndef SECPOOL_DEVICE_H
#define SECPOOL_DEVICE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"
#include "lib/base/guarded_run.h"
#include "lib/base/media.h"
#include "lib/wire/msg.h"

struct prober_line;
struct device_ops;

struct device {
	const struct device_ops *ops; /* its kind's */
	uint64_t slot;
	uint64_t media; /* keymgrd's mark of the contents */
	uint8_t *base;  /* the data, and behind it the control area (lib/base/media.h) */
	size_t bytes;
	struct media control;
	uint64_t canary;
	char id[MSG_NAME_BYTES];
	bool read_only; /* it came with a descriptor that can only be read by: its mapping can't be written to */
	_Atomic bool gone;
	_Atomic uint32_t cause;   /* enum msg_cause, of the first who found it gone; 0 before */
	_Atomic bool suspect;     /* it answers late: only its own I/O thread touches it (prober.h) */
	_Atomic bool distrusted;  /* keymgrd says that it is not online; it is still there */
	struct prober_line *line; /* prober.c's */
	_Atomic unsigned holders;
	bool handled;    /* its loss was dealt with; the service thread's */
	bool retry;      /* keymgrd said since that it is not online; the service thread's */
	_Atomic bool draining; /* what regions have there is to be moved (move.h) */
	_Atomic bool unreplaced; /* it is gone for us, but keymgrd holds it for whole: nothing was given instead */
	_Atomic bool back;       /* and it answers in time again */
	struct device *older;
};

/*
 * Maps the media behind fd (borrowed): shared, not inherited by fork, not in core files. The caller is its one holder.
 * Errors: SECPOOL_E_DEVICE_GONE (shorter than the device says, or it does not show its canary), SECPOOL_E_SYSTEM.
 */
enum secpool_error device_map(const struct msg_device *info, int fd, struct device **ret_device) MUST_USE;

/*
 * A new incarnation of a device that was given up and answers again: the same media, mapped once more. No access to the old one is under way.
 * Errors: as device_map.
 */
enum secpool_error device_again(const struct device *old, struct device **ret_device) MUST_USE;

/*
 * Whether an address lies in a mapping of a device of this process. For the SIGBUS handler: when one process meets poison the kernel sends a signal, with an address there, to each other one that maps the place (BUS_MCEERR_AO: mm/memory-failure.c,
 * kill_proc), wherever its threads are. Async-signal-safe. No more than DEVICE_MAPPINGS_MOST mappings are known; those beyond are not.
 */
enum { DEVICE_MAPPINGS_MOST = 1024 };
bool device_covers(const void *at);

/* One holder less; the last one unmaps. NULL is allowed. */
void device_drop(struct device *device);

/* Whether accesses make sense: false for NULL and for a device that is gone. */
bool device_usable(const struct device *device);

/* Whether another device is to be read first, when there is one. */
bool device_doubtful(const struct device *device);

/* The device is gone, from now on and for everybody in this process. cause: enum msg_cause; the first one stays. */
void device_give_up(struct device *device, uint32_t cause);

/*
 * Loads or stores bytes at an offset; `bytes` within the device is the caller's to know (directory extents are checked when they are read). Of a device under
 * suspicion the I/O thread does it: the caller waits until the device is given up, at most. Errors: SECPOOL_E_DEVICE_GONE: `gone` is then set; SECPOOL_E_INTEGRITY: the device is there, but not these bytes (poison);
 * SECPOOL_E_DENIED: nothing is ever written to one that came for reading alone.
 */
enum secpool_error device_read(struct device *device, uint64_t offset, void *to, size_t bytes) MUST_USE;
enum secpool_error device_write(struct device *device, uint64_t offset, const void *from, size_t bytes) MUST_USE;

/*
 * Hands bytes to work where they lie, by guarded_run, or as a copy in `copy`, which has room for them, when they can't be had so. Returns what work returns; errors as device_read: work then was left in the middle, or never begun.
 */
enum secpool_error device_use(struct device *device, uint64_t offset, size_t bytes, uint8_t *copy, guarded_work *work, void *arg) MUST_USE;

/*
 * Reads the canary, as any other bytes. True: all that this thread loaded and stored there before was the device's own, for a device that went silent (it answers
 * zeros and swallows stores) does not come back. False: it is gone, and `gone` is set. NULL is gone.
 */
bool device_seen_alive(struct device *device);

/* Asks the CPU to bring bytes near that will be read soon. A device that is gone does no harm: a prefetch never faults (Intel SDM volume 2, PREFETCHh). */
void device_prefetch(const struct device *device, uint64_t offset, size_t bytes);

/* ---- the back end, for device.c and the I/O threads: in the calling thread, however long it takes; the same results ---- */

/*
 * What differs between kinds of devices: loads and stores of data. Errors: SECPOOL_E_DEVICE_GONE (the device is then given up), SECPOOL_E_INTEGRITY: these bytes can't be had, or stored, but the device
 * answers (poison).
 */
struct device_ops {
	enum secpool_error (*read)(struct device *device, uint64_t offset, void *to, size_t bytes);
	enum secpool_error (*write)(struct device *device, uint64_t offset, const void *from, size_t bytes);
	enum secpool_error (*use)(struct device *device, uint64_t offset, size_t bytes, uint8_t *copy, guarded_work *work, void *arg);
};

extern const struct device_ops device_emulated, device_devdax;

enum secpool_error device_backend_read(struct device *device, uint64_t offset, void *to, size_t bytes) MUST_USE;
enum secpool_error device_backend_write(struct device *device, uint64_t offset, const void *from, size_t bytes) MUST_USE;
bool device_backend_alive(struct device *device);

/* Of a device that was given up: whether it shows its canary within most_ns, at most so long after the call in what is emulated. */
bool device_backend_answers(const struct device *device, uint64_t most_ns);

#endif
