/* SPDX-License-Identifier: Apache-2.0 */
#include "hotplug/mediachallenge.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "lib/base/guarded_copy.h"
#include "lib/base/os.h"

/* The control area of media that have it, mapped with this protection; its length. */
static enum secpool_error map_control(
	int fd, uint64_t bytes, int protection, uint8_t **ret_map, size_t *ret_length)
{
	bool emulated = false;
	enum secpool_error error = media_is_emulated(fd, &emulated);
	size_t length;
	uint8_t *map;

	if (error)
		return error;
	if (emulated && !media_there(fd, bytes))
		return err_set(SECPOOL_E_DEVICE_GONE, "its media are gone");
	length = media_bytes(emulated, 0);
	map = mmap(NULL, length, protection, MAP_SHARED, fd, (off_t)bytes);
	if (map == MAP_FAILED)
		return os_error("map the media's control area");
	*ret_map = map;
	*ret_length = length;
	return SECPOOL_OK;
}

enum secpool_error mediachallenge_store(
	int media_fd, uint64_t bytes, const uint8_t challenge[MEDIA_CHALLENGE_BYTES])
{
	uint8_t *map = NULL;
	size_t length = 0;
	enum secpool_error error =
		map_control(media_fd, bytes, PROT_READ | PROT_WRITE, &map, &length);

	if (error)
		return error;
	error = guarded_copy(map + MEDIA_CHALLENGE_AT, challenge, MEDIA_CHALLENGE_BYTES);
	if (!error)
		error = guarded_flush(map + MEDIA_CHALLENGE_AT, MEDIA_CHALLENGE_BYTES);
	munmap(map, length);
	return error ? err_set(error, "its media did not take the challenge") : SECPOOL_OK;
}

enum secpool_error mediachallenge_read(
	const char *folder, uint64_t bytes, uint8_t ret_read[MEDIA_CHALLENGE_BYTES])
{
	uint8_t read[MEDIA_CHALLENGE_BYTES], *map = NULL;
	enum secpool_error error;
	char path[PATH_MAX];
	size_t length = 0;
	int fd;

	if (snprintf(path, sizeof path, "%s/media", folder) >= (int)sizeof path)
		return err_set(SECPOOL_E_LIMIT, "path too long: %s", folder);
	/* a devdax device lies behind a link, and maps for who may write only */
	fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return os_error("open %s", path);
	error = map_control(fd, bytes, PROT_READ, &map, &length);
	os_close(&fd);
	if (error)
		return error;
	/* from the device, not from a cache */
	error = guarded_flush(map + MEDIA_CHALLENGE_AT, MEDIA_CHALLENGE_BYTES);
	if (!error)
		error = guarded_copy(read, map + MEDIA_CHALLENGE_AT, sizeof read);
	munmap(map, length);
	if (error)
		return err_set(error, "its media did not give the challenge back");
	memcpy(ret_read, read, sizeof read);
	return SECPOOL_OK;
}
