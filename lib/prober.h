/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finds devices that answer late, and keeps the workers from waiting for them.
 *
 * Each device has an I/O thread of its own, which can be spared: it reads the canary whenever the prober says so, and nothing waits for it alone. The prober, one thread for a pool, never touches
 * a device: it looks at regular times how long each I/O thread has been in its access. Beyond the first bound the device is suspect: from then on only the I/O thread touches it, and
 * workers that need it give it their reads and writes, with memory of its own, and wait no longer than until the device is given up. Beyond the second bound it is given up
 * (device_give_up, cause MSG_CAUSE_STUCK). Both bounds are the policy's.
 *
 * Time is counted in the prober's own turns, not by a clock: on a machine that runs nobody for a second, or in a process that was stopped, no device is late.
 * A load of a worker that was under way before the suspicion can't be abandoned (docs/caveats.md).
 *
 * Threads: the prober and the I/O threads have all signals blocked but SIGBUS, and the service's descriptor table.
 */
#ifndef SECPOOL_PROBER_H
#define SECPOOL_PROBER_H

#include "lib/pool.h"

struct prober;

/* Starts the prober. Errors: SECPOOL_E_NO_MEMORY. Threads: the service. */
enum secpool_error prober_start(struct secpool *pool, uint32_t suspect_after_ms, uint32_t gone_after_ms, struct prober **ret_prober) MUST_USE;

/*
 * Ends it and the I/O threads of all devices; no worker touches a device any more, and all devices are given up. An I/O thread whose device still does not answer is left behind, with its device,
 * and ends by itself. NULL is allowed. Threads: the service.
 */
void prober_stop(struct prober *prober);

/* Gives a new device its I/O thread, before it is put into pool.devices. Errors: SECPOOL_E_NO_MEMORY: the device must not be used. Threads: the service. */
enum secpool_error prober_watch(struct prober *prober, struct device *device) MUST_USE;

/*
 * device_read, _write and _seen_alive by way of the I/O thread, for a device under suspicion; at most PAGECIPHER_PAGE_BYTES_MOST. An access that ends in SECPOOL_E_DEVICE_GONE was abandoned: its result, if there
 * ever is one, goes nowhere. Threads: workers.
 */
enum secpool_error prober_read(struct device *device, uint64_t offset, void *to, size_t bytes) MUST_USE;
enum secpool_error prober_write(struct device *device, uint64_t offset, const void *from, size_t bytes) MUST_USE;
bool prober_seen_alive(struct device *device);

#endif
