/* SPDX-License-Identifier: Apache-2.0 */
/* What is the same for all kinds of devices: their mapping, and the canary in it. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/base/guarded_copy.h"
#include "lib/base/os.h"
#include "lib/device.h"

/* An emulated device that does not show its canary at once is slow or stuck. */
#define CANARY_MOST_NS 1ull

/* All mappings of this process: start 0 is a free place. */
static struct mapping {
	_Atomic uintptr_t start, bytes;
} mappings[DEVICE_MAPPINGS_MOST];

static void enlist(uintptr_t start, size_t bytes)
{
	for (size_t i = 0; i < DEVICE_MAPPINGS_MOST; i++) {
		uintptr_t none = 0;
		if (!atomic_compare_exchange_strong(&mappings[i].start, &none, start))
			continue;
		atomic_store(&mappings[i].bytes, bytes);
		return;
	}
}

static void delist(uintptr_t start)
{
	for (size_t i = 0; i < DEVICE_MAPPINGS_MOST; i++) {
		if (atomic_load(&mappings[i].start) != start)
			continue;
		atomic_store(&mappings[i].bytes, 0);
		atomic_store(&mappings[i].start, 0);
	}
}

bool device_covers(const void *at)
{
	for (size_t i = 0; i < DEVICE_MAPPINGS_MOST; i++) {
		uintptr_t start = atomic_load(&mappings[i].start);
		if (start != 0 && (uintptr_t)at - start < atomic_load(&mappings[i].bytes))
			return true;
	}
	return false;
}

static size_t map_bytes(const struct device *device)
{
	return (size_t)media_bytes(device->control.emulated, device->bytes);
}

/*
 * What the device must show from now on. An emulated one that is stuck or slow is not waited for here: the prober finds it.
 */
static enum secpool_error learn_canary(struct device *device)
{
	enum secpool_error error =
		media_canary(&device->control, NULL, CANARY_MOST_NS, &device->canary);

	if (error == SECPOOL_E_TIMEOUT)
		error = guarded_load(device->control.control + MEDIA_CANARY_AT, &device->canary);
	if (error || !media_canary_allowed(device->canary))
		return err_set(SECPOOL_E_DEVICE_GONE, "device %s shows no canary", device->id);
	return SECPOOL_OK;
}

/* Without its memory. */
static enum secpool_error new_device(
	const char *id, size_t bytes, bool emulated, struct device **ret_device)
{
	struct device *device = calloc(1, sizeof *device);

	if (!device)
		return os_error("device %s", id);
	device->ops = emulated ? &device_emulated : &device_devdax;
	device->control.emulated = emulated;
	device->bytes = bytes;
	device->holders = 1;
	memcpy(device->id, id, sizeof device->id);
	*ret_device = device;
	return SECPOOL_OK;
}

/* Ends the making of a device: base is what mmap or mremap gave. */
static enum secpool_error complete(struct device *device, void *base, struct device **ret_device)
{
	enum secpool_error error;

	if (base == MAP_FAILED) {
		error = os_error("map the media of %s", device->id);
		free(device);
		return error;
	}
	device->base = base;
	device->control.control = device->base + device->bytes;
	enlist((uintptr_t)base, map_bytes(device));
	syscall(SYS_madvise, base, map_bytes(device), MADV_DONTFORK);
	syscall(SYS_madvise, base, map_bytes(device), MADV_DONTDUMP);
	error = learn_canary(device);
	if (error)
		device_drop(device);
	else
		*ret_device = device;
	return error;
}

enum secpool_error device_map(const struct msg_device *info, int fd, struct device **ret_device)
{
	struct device *device;
	int mode;
	bool emulated;
	enum secpool_error error = media_is_emulated(fd, &emulated);

	if (error)
		return error;
	if (info->bytes == 0 || !media_there(fd, info->bytes))
		return err_set(SECPOOL_E_DEVICE_GONE,
			"the media of %s are gone, or shorter than the device", info->id);
	error = new_device(info->id, info->bytes, emulated, &device);
	if (error)
		return error;
	device->slot = info->slot;
	device->media = info->media;
	mode = fcntl(fd, F_GETFL);
	device->read_only = mode >= 0 && (mode & O_ACCMODE) == O_RDONLY;
	return complete(device,
		mmap(NULL, map_bytes(device), PROT_READ | (device->read_only ? 0 : PROT_WRITE),
			MAP_SHARED, fd, 0),
		ret_device);
}

enum secpool_error device_again(const struct device *old, struct device **ret_device)
{
	struct device *device;
	enum secpool_error error = new_device(old->id, old->bytes, old->control.emulated, &device);
	long base;

	if (error)
		return error;
	device->slot = old->slot;
	device->media = old->media;
	device->read_only = old->read_only;
	/* an old size of 0 maps shared memory a second time: mremap(2) */
	base = syscall(SYS_mremap, old->base, 0ul, map_bytes(old), MREMAP_MAYMOVE);
	return complete(device, base == -1 ? MAP_FAILED : (void *)base, ret_device);
}

void device_drop(struct device *device)
{
	if (!device || atomic_fetch_sub(&device->holders, 1) > 1)
		return;
	delist((uintptr_t)device->base);
	syscall(SYS_munmap, device->base, map_bytes(device));
	free(device);
}

enum secpool_error device_backend_read(
	struct device *device, uint64_t offset, void *to, size_t bytes)
{
	return device->ops->read(device, offset, to, bytes);
}

enum secpool_error device_backend_write(
	struct device *device, uint64_t offset, const void *from, size_t bytes)
{
	return device->ops->write(device, offset, from, bytes);
}

bool device_backend_alive(struct device *device)
{
	uint64_t canary;

	if (media_canary(&device->control, &device->gone, 0, &canary) != SECPOOL_OK) {
		device_give_up(device, MSG_CAUSE_FAULT);
		return false;
	}
	if (canary == device->canary)
		return true;
	device_give_up(device, MSG_CAUSE_SILENT);
	return false;
}

bool device_backend_answers(const struct device *device, uint64_t most_ns)
{
	uint64_t canary;

	return media_canary(&device->control, NULL, most_ns, &canary) == SECPOOL_OK &&
	       canary == device->canary;
}
