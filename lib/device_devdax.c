/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CXL memory as a devdax device: guarded accesses only, no system call touches the mapping (docs/caveats.md).
 *
 * A removed device answers loads with zeros and swallows stores until the kernel notices, and then each access is SIGBUS; a machine check (poison) is SIGBUS while the device is there. Its canary tells which.
 */
#include "lib/base/guarded_copy.h"
#include "lib/device.h"

/* An access took SIGBUS. */
static enum secpool_error judge(struct device *device)
{
	return device_backend_alive(device) ? SECPOOL_E_INTEGRITY : SECPOOL_E_DEVICE_GONE;
}

static enum secpool_error read_bytes(struct device *device, uint64_t offset, void *to, size_t bytes)
{
	if (guarded_copy(to, device->base + offset, bytes) != SECPOOL_OK)
		return judge(device);
	return SECPOOL_OK;
}

/* What is still in a cache of this CPU is not on the device: a look at the canary afterwards would say nothing about it, and another host would not see it. */
static enum secpool_error write_bytes(
	struct device *device, uint64_t offset, const void *from, size_t bytes)
{
	if (guarded_copy(device->base + offset, from, bytes) != SECPOOL_OK ||
		guarded_flush(device->base + offset, bytes) != SECPOOL_OK)
		return judge(device);
	return SECPOOL_OK;
}

static enum secpool_error use_bytes(struct device *device, uint64_t offset, size_t bytes,
	uint8_t *copy, guarded_work *work, void *arg)
{
	enum secpool_error error = guarded_run(device->base + offset, bytes, work, arg);

	(void)copy;
	return error == SECPOOL_E_DEVICE_GONE ? judge(device) : error;
}

const struct device_ops device_devdax = {
	.read = read_bytes, .write = write_bytes, .use = use_bytes};
