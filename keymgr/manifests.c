/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/manifests.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/os.h"
#include "lib/wire/msg.h"

enum { PIECE_BYTES = 4 << 20, NAME_BYTES = 32 };

/* What a copy is called until it is whole: none of the names that are numbers. */
#define UNFINISHED "unfinished"

struct manifests {
	int folder;
};

static void name_of(uint64_t region, char name[NAME_BYTES])
{
	snprintf(name, NAME_BYTES, "%" PRIu64, region);
}

static enum secpool_error store_error(const char *what)
{
	enum secpool_error error = os_error("%s a manifest", what);

	return err_set(
		SECPOOL_E_STORE, "%s: see the state folder's disk", error ? err_detail() : what);
}

/* Whether a file is no sealed region's. Where the directory can't say, it is not: another start looks again. */
static bool is_left_over(struct directory *directory, const char *name)
{
	char *end = NULL;
	uint64_t region = strtoull(name, &end, 10), count = 0;

	if (*end != '\0' || region == 0)
		return true;
	return directory_number(directory,
		       "SELECT COUNT(*) FROM regions WHERE id = ?1 AND state = ?2",
		       DIRECTORY_VALUES(DIRECTORY_N(region), DIRECTORY_N(MSG_REGION_SEALED)),
		       &count) == SECPOOL_OK &&
	       count == 0;
}

/* What a crash left behind. */
static enum secpool_error sweep(const struct manifests *manifests, struct directory *directory)
{
	int fd = openat(manifests->folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *folder = fd >= 0 ? fdopendir(fd) : NULL;

	if (!folder) {
		os_close(&fd);
		return store_error("look for");
	}
	for (struct dirent *entry; (entry = readdir(folder));)
		if (entry->d_name[0] != '.' && is_left_over(directory, entry->d_name))
			unlinkat(manifests->folder, entry->d_name, 0);
	closedir(folder);
	return SECPOOL_OK;
}

enum secpool_error manifests_open(
	const char *state_dir, struct directory *directory, struct manifests **ret_manifests)
{
	struct manifests *manifests = calloc(1, sizeof *manifests);
	char path[PATH_MAX];
	enum secpool_error error;

	if (!manifests)
		return err_set(SECPOOL_E_NO_MEMORY, "manifests: out of memory");
	manifests->folder = -1;
	if (snprintf(path, sizeof path, "%s/manifests", state_dir) >= (int)sizeof path)
		error = err_set(SECPOOL_E_LIMIT, "the state folder's path is too long");
	else
		error = os_make_dir(path, 0700);
	if (!error) {
		manifests->folder = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (manifests->folder < 0)
			error = store_error("open the folder of");
	}
	if (!error)
		error = sweep(manifests, directory);
	if (error)
		manifests_close(manifests);
	else
		*ret_manifests = manifests;
	return error;
}

void manifests_close(struct manifests *manifests)
{
	if (!manifests)
		return;
	os_close(&manifests->folder);
	free(manifests);
}

enum secpool_error manifests_check(int fd, uint64_t bytes)
{
	const int needed = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW;
	int seals = fcntl(fd, F_GET_SEALS);
	struct stat status;

	if (seals < 0 || (seals & needed) != needed || fstat(fd, &status) != 0 ||
		(uint64_t)status.st_size != bytes)
		return err_set(SECPOOL_E_INVALID,
			"a manifest of %" PRIu64 " bytes in sealed memory is needed", bytes);
	return SECPOOL_OK;
}

enum secpool_error manifests_begin(struct manifests *manifests, uint64_t region, uint64_t bytes,
	int *fd, struct manifests_copy *ret_copy)
{
	int to = openat(manifests->folder, UNFINISHED,
		O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (to < 0)
		return store_error("make");
	*ret_copy =
		(struct manifests_copy){.region = region, .bytes = bytes, .from = *fd, .to = to};
	*fd = -1;
	return SECPOOL_OK;
}

enum secpool_error manifests_go_on(struct manifests_copy *copy, bool *ret_done)
{
	uint64_t left = copy->bytes - copy->done;
	off_t at = (off_t)copy->done;
	ssize_t count =
		sendfile(copy->to, copy->from, &at, left < PIECE_BYTES ? left : PIECE_BYTES);

	*ret_done = false;
	if (count < 0)
		return os_interrupted() ? SECPOOL_OK : store_error("write");
	copy->done += (uint64_t)count;
	if (copy->done < copy->bytes)
		return count > 0 ? SECPOOL_OK : store_error("read");
	*ret_done = true;
	return SECPOOL_OK;
}

enum secpool_error manifests_keep(struct manifests *manifests, struct manifests_copy *copy)
{
	char name[NAME_BYTES];

	name_of(copy->region, name);
	if (fsync(copy->to) != 0 ||
		renameat(manifests->folder, UNFINISHED, manifests->folder, name) != 0)
		return store_error("keep");
	os_close(&copy->to);
	return fsync(manifests->folder) == 0 ? SECPOOL_OK : store_error("keep");
}

void manifests_end(struct manifests *manifests, struct manifests_copy *copy)
{
	if (copy->to >= 0)
		unlinkat(manifests->folder, UNFINISHED, 0);
	os_close(&copy->from);
	os_close(&copy->to);
}

enum secpool_error manifests_get(struct manifests *manifests, uint64_t region, int *ret_fd)
{
	char name[NAME_BYTES];

	name_of(region, name);
	*ret_fd = openat(manifests->folder, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	return *ret_fd < 0 ? store_error("open") : SECPOOL_OK;
}

void manifests_remove(struct manifests *manifests, uint64_t region)
{
	char name[NAME_BYTES];

	name_of(region, name);
	/* one that stays is swept away at the next start */
	(void)!unlinkat(manifests->folder, name, 0);
}
