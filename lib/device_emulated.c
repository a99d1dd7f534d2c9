/* SPDX-License-Identifier: Apache-2.0 */
/* Emulated devices: files on tmpfs, whose control page says how they behave. */
#include <string.h>

#include "lib/base/emumedia.h"
#include "lib/base/guarded_copy.h"
#include "lib/device.h"

/* What comes before an access. */
static enum secpool_error obey(struct device *device, bool *ret_silent)
{
	return emumedia_obey(device->control.control, &device->gone, 0, ret_silent);
}

static enum secpool_error lose(struct device *device)
{
	device_give_up(device, MSG_CAUSE_FAULT);
	return SECPOOL_E_DEVICE_GONE;
}

static enum secpool_error read_bytes(struct device *device, uint64_t offset, void *to, size_t bytes)
{
	bool silent;

	if (obey(device, &silent) != SECPOOL_OK)
		return lose(device);
	if (silent)
		memset(to, 0, bytes);
	else if (guarded_copy(to, device->base + offset, bytes) != SECPOOL_OK)
		return lose(device);
	return SECPOOL_OK;
}

static enum secpool_error write_bytes(
	struct device *device, uint64_t offset, const void *from, size_t bytes)
{
	bool silent;

	if (obey(device, &silent) != SECPOOL_OK)
		return lose(device);
	if (!silent && guarded_copy(device->base + offset, from, bytes) != SECPOOL_OK)
		return lose(device);
	return SECPOOL_OK;
}

static enum secpool_error use_bytes(struct device *device, uint64_t offset, size_t bytes,
	uint8_t *copy, guarded_work *work, void *arg)
{
	enum secpool_error error;
	bool silent;

	if (obey(device, &silent) != SECPOOL_OK)
		return lose(device);
	if (silent) {
		memset(copy, 0, bytes);
		return work(copy, arg);
	}
	error = guarded_run(device->base + offset, bytes, work, arg);
	return error == SECPOOL_E_DEVICE_GONE ? lose(device) : error;
}

const struct device_ops device_emulated = {
	.read = read_bytes, .write = write_bytes, .use = use_bytes};
