/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/media.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/base/emumedia.h"
#include "lib/base/guarded_copy.h"
#include "lib/base/os.h"

static size_t control_bytes(bool emulated)
{
	return emulated ? EMUMEDIA_CONTROL_BYTES : MEDIA_UNIT_BYTES;
}

uint64_t media_bytes(bool emulated, uint64_t capacity)
{
	return capacity + control_bytes(emulated);
}

enum secpool_error media_is_emulated(int fd, bool *ret_emulated)
{
	struct stat status;

	if (fstat(fd, &status) != 0)
		return os_error("the media");
	if (!S_ISREG(status.st_mode) && !S_ISCHR(status.st_mode))
		return err_set(SECPOOL_E_INVALID, "media must be a file or a devdax device");
	*ret_emulated = S_ISREG(status.st_mode);
	return SECPOOL_OK;
}

static bool is_whole_file(int fd, uint64_t capacity)
{
	struct stat status;

	return fstat(fd, &status) == 0 && status.st_size >= 0 &&
	       (uint64_t)status.st_size >= media_bytes(true, capacity);
}

static enum secpool_error map_control(
	int fd, uint64_t capacity, int protection, struct media *ret_media)
{
	bool emulated;
	enum secpool_error error = media_is_emulated(fd, &emulated);
	void *map;

	if (error)
		return error;
	if (emulated && !is_whole_file(fd, capacity))
		return err_set(SECPOOL_E_DEVICE_GONE, "the media are too short");
	map = mmap(NULL, control_bytes(emulated), protection, MAP_SHARED, fd, (off_t)capacity);
	if (map == MAP_FAILED && errno == ENXIO)
		return err_set(SECPOOL_E_DEVICE_GONE, "the device was removed");
	if (map == MAP_FAILED)
		return os_error("map the media's control area");
	*ret_media = (struct media){.control = map, .emulated = emulated};
	return SECPOOL_OK;
}

enum secpool_error media_open(int fd, uint64_t capacity, struct media *ret_media)
{
	return map_control(fd, capacity, PROT_READ, ret_media);
}

enum secpool_error media_store(int fd, uint64_t capacity, size_t at, const void *from, size_t bytes)
{
	struct media media = {.control = NULL};
	enum secpool_error error = map_control(fd, capacity, PROT_READ | PROT_WRITE, &media);
	uint8_t *to = (uint8_t *)media.control + at;

	if (error)
		return error;
	error = guarded_copy(to, from, bytes);
	if (!error)
		error = guarded_flush(to, bytes);
	media_close(&media);
	return error;
}

enum secpool_error media_load(const struct media *media, size_t at, void *to, size_t bytes)
{
	enum secpool_error error = guarded_flush(media->control + at, bytes);

	return error ? error : guarded_copy(to, media->control + at, bytes);
}

void media_close(struct media *media)
{
	if (media->control)
		syscall(SYS_munmap, media->control, control_bytes(media->emulated));
	media->control = NULL;
}

enum secpool_error media_canary(const struct media *media, const _Atomic bool *given_up,
	uint64_t most_ns, uint64_t *ret_canary)
{
	const uint8_t *at = media->control + MEDIA_CANARY_AT;
	enum secpool_error error;
	bool silent = false;

	if (media->emulated)
		error = emumedia_obey(media->control, given_up, most_ns, &silent);
	else /* else a cache line from before would answer for a device that is gone */
		error = guarded_flush(at, sizeof *ret_canary);
	if (error)
		return error;
	if (!silent)
		return guarded_load(at, ret_canary);
	*ret_canary = 0;
	return SECPOOL_OK;
}

bool media_canary_allowed(uint64_t canary)
{
	return canary != 0 && canary != UINT64_MAX;
}

bool media_there(int fd, uint64_t capacity)
{
	struct media media = {.control = NULL};
	uint64_t canary = 0;
	bool emulated, there;

	if (media_is_emulated(fd, &emulated) != SECPOOL_OK)
		return false;
	if (emulated)
		return is_whole_file(fd, capacity);
	there = media_open(fd, capacity, &media) == SECPOOL_OK &&
		media_canary(&media, NULL, 0, &canary) == SECPOOL_OK &&
		media_canary_allowed(canary);
	media_close(&media);
	return there;
}
