/* SPDX-License-Identifier: Apache-2.0 */
#include "hotplug/mediachallenge.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "lib/base/os.h"

enum secpool_error mediachallenge_store(
	int media_fd, uint64_t bytes, const uint8_t challenge[MEDIA_CHALLENGE_BYTES])
{
	return media_store(media_fd, bytes, MEDIA_CHALLENGE_AT, challenge, MEDIA_CHALLENGE_BYTES);
}

enum secpool_error mediachallenge_read(
	const char *folder, uint64_t bytes, uint8_t ret_read[MEDIA_CHALLENGE_BYTES])
{
	struct media media = {.control = NULL};
	uint8_t read[MEDIA_CHALLENGE_BYTES];
	enum secpool_error error;
	char path[PATH_MAX];
	int fd;

	if (snprintf(path, sizeof path, "%s/media", folder) >= (int)sizeof path)
		return err_set(SECPOOL_E_LIMIT, "path too long: %s", folder);
	/* a devdax device lies behind a link, and maps for who may write only */
	fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return os_error("open %s", path);
	error = media_open(fd, bytes, &media);
	os_close(&fd);
	if (!error)
		error = media_load(&media, MEDIA_CHALLENGE_AT, read, sizeof read);
	media_close(&media);
	if (error)
		return err_set(error, "its media did not give the challenge back");
	memcpy(ret_read, read, sizeof read);
	return SECPOOL_OK;
}
