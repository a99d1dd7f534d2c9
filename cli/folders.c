/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/folders.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/emulated.h"
#include "lib/base/os.h"

/* The mark, and its words: whether the folder itself is ours to remove. */
#define MARK	   ".secpool-up"
#define MARK_MADE  "folder made by secpool up\n"
#define MARK_FOUND "folder was there before secpool up\n"

/* What `secpool up` and the daemons put into the runtime folder; it goes with `secpool down`. */
static const char *const entries[] = {"keymgr.sock", "hotplug.sock", "tpm.sock", "notify.sock",
	"keymgrd.pid", "hotplugd.pid", "vtpm.pid", "keymgrd.pid.next", "hotplugd.pid.next",
	"vtpm.pid.next", "policy.yaml", "policy.yaml.next", "log", "state", MARK};

static enum secpool_error join(char path[PATH_MAX], const char *runtime, const char *name)
{
	if (snprintf(path, PATH_MAX, "%s/%s", runtime, name) >= PATH_MAX)
		return err_set(SECPOOL_E_LIMIT, "runtime folder %.100s is too long", runtime);
	return SECPOOL_OK;
}

/* Errors: SECPOOL_E_BUSY when the folder was removed or replaced while we waited. */
static enum secpool_error lock_folder(const char *runtime, int *ret_lock)
{
	int fd = open(runtime, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct stat locked, now;
	enum secpool_error error = SECPOOL_OK;

	if (fd < 0)
		return os_error("runtime folder %s", runtime);
	while (flock(fd, LOCK_EX) != 0) {
		if (os_interrupted())
			continue;
		error = os_error("lock %s", runtime);
		os_close(&fd);
		return error;
	}
	if (fstat(fd, &locked) != 0 || stat(runtime, &now) != 0 || locked.st_ino != now.st_ino ||
		locked.st_dev != now.st_dev)
		error = err_set(
			SECPOOL_E_BUSY, "runtime folder %s was just removed, try again", runtime);
	else if (locked.st_uid != geteuid())
		error = err_set(SECPOOL_E_DENIED, "runtime folder %s belongs to user %u", runtime,
			(unsigned)locked.st_uid);
	else if (locked.st_mode & (S_IWGRP | S_IWOTH))
		error = err_set(SECPOOL_E_DENIED,
			"others may write to the runtime folder %s: take that away (chmod 755)",
			runtime);
	if (error)
		os_close(&fd);
	else
		*ret_lock = fd;
	return error;
}

static bool is_empty(const char *path)
{
	DIR *folder = opendir(path);
	const struct dirent *entry;
	bool empty = folder != NULL;

	while (folder && (entry = readdir(folder)) != NULL)
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			empty = false;
	if (folder)
		closedir(folder);
	return empty;
}

static bool has_mark(const char *runtime)
{
	char path[PATH_MAX];

	return !join(path, runtime, MARK) && access(path, F_OK) == 0;
}

static enum secpool_error not_ours(const char *runtime)
{
	return err_set(SECPOOL_E_EXISTS,
		"%s holds other things and was not made by 'secpool up': choose another "
		"--runtime-dir",
		runtime);
}

enum secpool_error folders_lock(const char *runtime, int *ret_lock)
{
	enum secpool_error error = lock_folder(runtime, ret_lock);

	if (error || has_mark(runtime))
		return error;
	error = is_empty(runtime) ? err_set(SECPOOL_E_NOT_FOUND, "%s is empty", runtime)
				  : not_ours(runtime);
	os_close(ret_lock);
	return error;
}

enum secpool_error folders_open(const char *runtime, int *ret_lock)
{
	bool made = mkdir(runtime, 0755) == 0;
	const char *words = made ? MARK_MADE : MARK_FOUND;
	char path[PATH_MAX];
	enum secpool_error error;
	int lock = -1;

	if (!made) {
		error = os_make_dir(runtime, 0755);
		if (error)
			return error;
	}
	error = lock_folder(runtime, &lock);
	if (!error && !has_mark(runtime)) {
		if (!is_empty(runtime))
			error = not_ours(runtime);
		if (!error)
			error = join(path, runtime, MARK);
		if (!error)
			error = os_write_file_durable(path, words, strlen(words), 0644);
	}
	if (!error)
		error = join(path, runtime, "log");
	if (!error)
		error = os_make_dir(path, 0755);
	if (!error)
		error = join(path, runtime, "state");
	if (!error)
		error = os_make_dir(path, 0700);
	if (error)
		os_close(&lock);
	else
		*ret_lock = lock;
	return error;
}

enum secpool_error folders_remove(const char *runtime, bool *ret_left)
{
	char path[PATH_MAX], *words = NULL;
	enum secpool_error error = join(path, runtime, MARK);
	bool made = false;
	size_t bytes;

	if (!error && !os_read_file(path, 256, &words, &bytes))
		made = strcmp(words, MARK_MADE) == 0;
	free(words);
	if (!error)
		error = emulated_remove(runtime);
	for (size_t i = 0; i < sizeof entries / sizeof *entries && !error; i++) {
		error = join(path, runtime, entries[i]);
		if (!error)
			error = os_remove_tree(path);
	}
	if (error)
		return error;
	*ret_left = !is_empty(runtime);
	if (made && !*ret_left && rmdir(runtime) != 0)
		return os_error("remove %s", runtime);
	return SECPOOL_OK;
}
