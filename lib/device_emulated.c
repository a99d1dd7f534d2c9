/* SPDX-License-Identifier: Apache-2.0 */
/* The back end of emulated devices: files on tmpfs, whose control page says how they behave. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/base/emumedia.h"
#include "lib/base/guarded_copy.h"
#include "lib/base/os.h"
#include "lib/device.h"

static size_t map_bytes(const struct device *device)
{
	return (size_t)emumedia_file_bytes(device->bytes);
}

/* What the device must show from now on. A stuck one is not waited for here: the prober finds it. */
static enum secpool_error learn_canary(struct device *device)
{
	uint64_t word;

	if (guarded_load(device->control + EMUMEDIA_WORD_AT, &word) != SECPOOL_OK ||
		guarded_load(device->control + EMUMEDIA_CANARY_AT, &device->canary) != SECPOOL_OK ||
		word == EMUMEDIA_SILENT || device->canary == 0 || device->canary == UINT64_MAX)
		return err_set(SECPOOL_E_DEVICE_GONE, "device %s shows no canary", device->id);
	return SECPOOL_OK;
}

/* Without its memory. */
static enum secpool_error new_device(const char *id, size_t bytes, struct device **ret_device)
{
	struct device *device = calloc(1, sizeof *device);

	if (!device)
		return os_error("device %s", id);
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
	device->control = device->base + device->bytes;
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
	enum secpool_error error;
	struct device *device;
	struct stat status;

	if (fstat(fd, &status) != 0)
		return os_error("media of %s", info->id);
	if (info->bytes == 0 || (uint64_t)status.st_size < emumedia_file_bytes(info->bytes))
		return err_set(SECPOOL_E_DEVICE_GONE, "media of %s is too short", info->id);
	error = new_device(info->id, info->bytes, &device);
	if (error)
		return error;
	device->slot = info->slot;
	device->media = info->media;
	return complete(device,
		mmap(NULL, map_bytes(device), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0),
		ret_device);
}

enum secpool_error device_again(const struct device *old, struct device **ret_device)
{
	struct device *device;
	enum secpool_error error = new_device(old->id, old->bytes, &device);
	long base;

	if (error)
		return error;
	device->slot = old->slot;
	device->media = old->media;
	/* an old size of 0 maps shared memory a second time: mremap(2) */
	base = syscall(SYS_mremap, old->base, 0ul, map_bytes(old), MREMAP_MAYMOVE);
	return complete(device, base == -1 ? MAP_FAILED : (void *)base, ret_device);
}

void device_drop(struct device *device)
{
	if (!device || atomic_fetch_sub(&device->holders, 1) > 1)
		return;
	syscall(SYS_munmap, device->base, map_bytes(device));
	free(device);
}

/* What comes before an access. */
static enum secpool_error obey(struct device *device, bool *ret_silent)
{
	return emumedia_obey(device->control, &device->gone, 0, ret_silent);
}

static enum secpool_error lose(struct device *device)
{
	device_give_up(device, MSG_CAUSE_FAULT);
	return SECPOOL_E_DEVICE_GONE;
}

enum secpool_error device_backend_read(
	struct device *device, uint64_t offset, void *to, size_t bytes)
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

enum secpool_error device_backend_write(
	struct device *device, uint64_t offset, const void *from, size_t bytes)
{
	bool silent;

	if (obey(device, &silent) != SECPOOL_OK)
		return lose(device);
	if (!silent && guarded_copy(device->base + offset, from, bytes) != SECPOOL_OK)
		return lose(device);
	return SECPOOL_OK;
}

bool device_backend_alive(struct device *device)
{
	uint64_t canary;

	if (emumedia_canary(device->control, &device->gone, 0, &canary) != SECPOOL_OK) {
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

	return emumedia_canary(device->control, NULL, most_ns, &canary) == SECPOOL_OK &&
	       canary == device->canary;
}
