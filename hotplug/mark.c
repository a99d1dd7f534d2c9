/* SPDX-License-Identifier: Apache-2.0 */
#include "hotplug/mark.h"

#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/media.h"
#include "lib/base/os.h"

enum { MARK_CHARACTERS = 16 };

static enum secpool_error path_of(const char *folder, char path[PATH_MAX])
{
	if (snprintf(path, PATH_MAX, "%s/mark", folder) >= PATH_MAX)
		return err_set(SECPOOL_E_LIMIT, "path too long: %s", folder);
	return SECPOOL_OK;
}

enum secpool_error mark_renew(const char *folder, uint64_t *ret_mark)
{
	char text[MARK_CHARACTERS + 2], path[PATH_MAX];
	uint64_t mark;
	enum secpool_error error = path_of(folder, path);

	if (error)
		return error;
	do
		os_random(&mark, sizeof mark);
	while (!media_canary_allowed(mark));
	snprintf(text, sizeof text, "%016" PRIx64 "\n", mark);
	error = os_write_file_durable(path, text, strlen(text), 0600);
	if (!error)
		*ret_mark = mark;
	return error;
}

enum secpool_error mark_forget(const char *folder)
{
	char path[PATH_MAX];
	enum secpool_error error = path_of(folder, path);

	if (!error && unlink(path) != 0 && access(path, F_OK) == 0)
		error = os_error("remove %s", path);
	return error;
}

uint64_t mark_read(const char *folder)
{
	char text[MARK_CHARACTERS + 2] = "", path[PATH_MAX], *end;
	uint64_t mark = 0;
	int fd;

	if (path_of(folder, path))
		return 0;
	fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return 0;
	if (read(fd, text, MARK_CHARACTERS) == MARK_CHARACTERS &&
		strspn(text, "0123456789abcdef") == MARK_CHARACTERS)
		mark = strtoull(text, &end, 16);
	os_close(&fd);
	return mark;
}
