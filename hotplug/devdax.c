/* SPDX-License-Identifier: Apache-2.0 */
#include "hotplug/devdax.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>

#include "hotplug/mark.h"
#include "lib/base/media.h"
#include "lib/base/medialook.h"
#include "lib/base/os.h"

static enum secpool_error open_media(const char *folder, int *ret_fd)
{
	enum secpool_error error = SECPOOL_OK;
	char path[PATH_MAX];
	struct stat status;
	int fd;

	if (snprintf(path, sizeof path, "%s/media", folder) >= (int)sizeof path)
		return err_set(SECPOOL_E_LIMIT, "path too long: %s", folder);
	fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return os_error("open %s", path);
	if (fstat(fd, &status) != 0)
		error = os_error("stat %s", path);
	else if (!S_ISCHR(status.st_mode))
		error = err_set(SECPOOL_E_INVALID, "%s must lead to a devdax device", path);
	if (error)
		os_close(&fd);
	else
		*ret_fd = fd;
	return error;
}

/* The mark of these media: the one that is kept, if they show it, and else a new one. */
static enum secpool_error settle_mark(
	const char *folder, int fd, uint64_t bytes, bool back, uint64_t *ret_mark)
{
	uint64_t canary = 0, mark = mark_read(folder);
	enum secpool_error error = medialook(fd, bytes, MEDIALOOK_NS, &canary);

	if (error)
		return error;
	if (back || !media_canary_allowed(mark) || canary != mark) {
		/* the mark first: a crash after it leaves media that show another */
		error = mark_renew(folder, &mark);
		if (!error)
			error = media_store(fd, bytes, MEDIA_CANARY_AT, &mark, sizeof mark);
		if (!error)
			error = devdax_probe(fd, bytes, mark);
	}
	if (!error)
		*ret_mark = mark;
	return error;
}

enum secpool_error devdax_open(
	const char *folder, uint64_t bytes, bool back, int *ret_media_fd, uint64_t *ret_mark)
{
	int fd = -1;
	enum secpool_error error = open_media(folder, &fd);

	if (!error)
		error = settle_mark(folder, fd, bytes, back, ret_mark);
	if (error)
		os_close(&fd);
	else
		*ret_media_fd = fd;
	return error;
}

bool devdax_look(int media_fd, uint64_t bytes)
{
	return medialook_there(media_fd, bytes);
}

enum secpool_error devdax_probe(int media_fd, uint64_t bytes, uint64_t mark)
{
	uint64_t canary = 0;

	if (medialook(media_fd, bytes, MEDIALOOK_NS, &canary) != SECPOOL_OK)
		return err_set(SECPOOL_E_DEVICE_GONE, "its media are gone");
	if (canary != mark)
		return err_set(SECPOOL_E_INTEGRITY, "it answers, but not with what is on it");
	return SECPOOL_OK;
}
