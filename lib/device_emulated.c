/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/device.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/base/guarded_copy.h"
#include "lib/base/os.h"

enum secpool_error device_map(const struct msg_device *info, int fd, struct device **ret_device)
{
	struct device *device;
	struct stat status;

	if (fstat(fd, &status) != 0)
		return os_error("media of %s", info->id);
	if (info->bytes == 0 || (uint64_t)status.st_size < info->bytes)
		return err_set(SECPOOL_E_DEVICE_GONE, "media of %s is too short", info->id);
	device = calloc(1, sizeof *device);
	if (!device)
		return os_error("device %s", info->id);
	device->slot = info->slot;
	device->media = info->media;
	device->bytes = info->bytes;
	memcpy(device->id, info->id, sizeof device->id);
	device->base = mmap(NULL, device->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (device->base == MAP_FAILED) {
		enum secpool_error error = os_error("map the media of %s", info->id);
		free(device);
		return error;
	}
	syscall(SYS_madvise, device->base, device->bytes, MADV_DONTFORK);
	syscall(SYS_madvise, device->base, device->bytes, MADV_DONTDUMP);
	*ret_device = device;
	return SECPOOL_OK;
}

void device_unmap(struct device *device)
{
	if (!device)
		return;
	syscall(SYS_munmap, device->base, device->bytes);
	free(device);
}

bool device_usable(const struct device *device)
{
	/* acquire: pairs with the store of whoever found it gone (loss_run clears copies after it) */
	return device && !atomic_load_explicit(&device->gone, memory_order_acquire);
}

enum secpool_error device_read(struct device *device, uint64_t offset, void *to, size_t bytes)
{
	if (!device_usable(device))
		return SECPOOL_E_DEVICE_GONE;
	if (guarded_copy(to, device->base + offset, bytes) == SECPOOL_OK)
		return SECPOOL_OK;
	atomic_store(&device->gone, true);
	return SECPOOL_E_DEVICE_GONE;
}

enum secpool_error device_write(
	struct device *device, uint64_t offset, const void *from, size_t bytes)
{
	if (!device_usable(device))
		return SECPOOL_E_DEVICE_GONE;
	if (guarded_copy(device->base + offset, from, bytes) == SECPOOL_OK)
		return SECPOOL_OK;
	atomic_store(&device->gone, true);
	return SECPOOL_E_DEVICE_GONE;
}

void device_prefetch(const struct device *device, uint64_t offset, size_t bytes)
{
	enum {
		LINE_BYTES = 64,
		MOST_BYTES = 16 << 10 /* what follows the CPU's own prefetching brings */
	};

	for (size_t at = 0; at < bytes && at < MOST_BYTES; at += LINE_BYTES)
		__builtin_prefetch(device->base + offset + at, 0, 2);
}
