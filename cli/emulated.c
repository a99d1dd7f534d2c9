/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/emulated.h"

#include <fcntl.h>
#include <json-c/json.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "lib/base/os.h"
#include "lib/base/size.h"

#define SHM	 "/dev/shm"
#define FIRMWARE "secpool-emulated-1.0"

const char *emulated_id(uint64_t index, char id[EMULATED_ID_BYTES])
{
	snprintf(id, EMULATED_ID_BYTES, "dev%u", (unsigned)index);
	return id;
}

static enum secpool_error __attribute__((format(printf, 2, 3)))
join(char path[PATH_MAX], const char *format, ...)
{
	va_list args;
	int length;

	va_start(args, format);
	length = vsnprintf(path, PATH_MAX, format, args);
	va_end(args);
	return length < PATH_MAX ? SECPOOL_OK : err_set(SECPOOL_E_LIMIT, "a path is too long");
}

static bool on_tmpfs(const char *path)
{
	struct statfs fs;

	return statfs(path, &fs) == 0 && fs.f_type == TMPFS_MAGIC;
}

/* /dev/shm/secpool.<uid>.<hash of the runtime folder>: a name, no secret; its owner is checked. */
static enum secpool_error shm_folder(const char *runtime, char path[PATH_MAX])
{
	char real[PATH_MAX];
	uint64_t hash = 14695981039346656037u; /* FNV-1a, 64 bits */

	if (!realpath(runtime, real))
		return os_error("%s", runtime);
	for (const char *at = real; *at; at++)
		hash = (hash ^ (uint8_t)*at) * 1099511628211u;
	return join(path, SHM "/secpool.%u.%016llx", (unsigned)geteuid(), (unsigned long long)hash);
}

/* A folder of that name must be a real one and ours: /dev/shm is open to all. */
static enum secpool_error make_own(const char *path)
{
	enum secpool_error error = os_make_dir(path, 0700);
	struct stat found;

	if (error)
		return error;
	if (lstat(path, &found) != 0)
		return os_error("%s", path);
	if (!S_ISDIR(found.st_mode) || found.st_uid != geteuid() || found.st_mode & 077)
		return err_set(SECPOOL_E_DENIED,
			"%s is not a private folder of this user: remove it and try again", path);
	return SECPOOL_OK;
}

/* Makes `devices`, a folder on tmpfs or a link to one. */
static enum secpool_error make_home(const char *runtime, char home[PATH_MAX])
{
	enum secpool_error error = join(home, "%s/devices", runtime);
	char target[PATH_MAX], linked[PATH_MAX];
	ssize_t length;

	if (error)
		return error;
	if (on_tmpfs(runtime))
		return make_own(home);
	if (!on_tmpfs(SHM))
		return err_set(SECPOOL_E_UNSUPPORTED,
			"neither %.80s nor " SHM " is on tmpfs, where emulated devices live",
			runtime);
	error = shm_folder(runtime, target);
	if (!error)
		error = make_own(target);
	if (error || symlink(target, home) == 0)
		return error;
	length = readlink(home, linked, sizeof linked - 1);
	if (length < 0)
		return os_error("%s", home);
	linked[length] = '\0';
	if (strcmp(linked, target) != 0)
		return err_set(SECPOOL_E_EXISTS, "%s leads elsewhere: 'secpool down' first", home);
	return SECPOOL_OK;
}

/* What a device will still take of the tmpfs: media are sparse until they are scrubbed. */
static uint64_t bytes_to_come(const char *folder, uint64_t device_bytes)
{
	char path[PATH_MAX];
	struct stat media;
	uint64_t taken;

	if (join(path, "%s/media", folder) || stat(path, &media) != 0)
		return access(folder, F_OK) == 0 ? 0 : device_bytes;
	taken = (uint64_t)media.st_blocks * 512;
	return taken < (uint64_t)media.st_size ? (uint64_t)media.st_size - taken : 0;
}

static enum secpool_error check_space(const char *home, uint64_t count, uint64_t device_bytes)
{
	char id[EMULATED_ID_BYTES], folder[PATH_MAX], need[SIZE_TEXT_BYTES], have[SIZE_TEXT_BYTES];
	uint64_t needed = 0, available;
	struct statfs fs;

	for (uint64_t i = 0; i < count; i++) {
		enum secpool_error error = join(folder, "%s/%s", home, emulated_id(i, id));

		if (error)
			return error;
		needed += bytes_to_come(folder, device_bytes);
	}
	if (statfs(home, &fs) != 0)
		return os_error("%s", home);
	available = (uint64_t)fs.f_bavail * (uint64_t)fs.f_bsize;
	if (needed > available)
		return err_set(SECPOOL_E_NO_SPACE,
			"the devices need %s and the tmpfs of %.80s has %s: choose fewer "
			"--devices or a smaller --device-bytes",
			size_format(needed, need), home, size_format(available, have));
	return SECPOOL_OK;
}

static enum secpool_error write_identity(
	const char *path, const char *id, uint64_t index, uint64_t bytes)
{
	struct json_object *object = json_object_new_object();
	enum secpool_error error;
	char serial[17], domain[32];
	const char *text;
	uint64_t random;

	os_random(&random, sizeof random);
	snprintf(serial, sizeof serial, "%016llx", (unsigned long long)random);
	snprintf(domain, sizeof domain, "domain%u", (unsigned)index);
	json_object_object_add(object, "id", json_object_new_string(id));
	json_object_object_add(object, "serial", json_object_new_string(serial));
	json_object_object_add(object, "bytes", json_object_new_uint64(bytes));
	json_object_object_add(object, "firmware", json_object_new_string(FIRMWARE));
	json_object_object_add(object, "domain", json_object_new_string(domain));
	json_object_object_add(object, "kind", json_object_new_string("emulated"));
	text = json_object_to_json_string_ext(object, JSON_C_TO_STRING_PRETTY);
	error = os_write_file_durable(path, text, strlen(text), 0600);
	json_object_put(object);
	return error;
}

enum secpool_error emulated_make(
	const char *runtime, uint64_t count, uint64_t device_bytes, bool *is_new)
{
	char home[PATH_MAX], path[PATH_MAX], id[EMULATED_ID_BYTES];
	enum secpool_error error = make_home(runtime, home);

	if (!error)
		error = check_space(home, count, device_bytes);
	for (uint64_t i = 0; i < count && !error; i++) {
		error = join(path, "%s/%s", home, emulated_id(i, id));
		if (!error)
			error = os_make_dir(path, 0700);
		if (!error)
			error = join(path, "%s/%s/identity.json", home, id);
		is_new[i] = !error && access(path, F_OK) != 0;
		if (is_new[i])
			error = write_identity(path, id, i, device_bytes);
	}
	return error;
}

enum secpool_error emulated_remove(const char *runtime)
{
	enum secpool_error error;
	char home[PATH_MAX], target[PATH_MAX];
	struct stat found;

	error = join(home, "%s/devices", runtime);
	if (!error)
		error = shm_folder(runtime, target);
	if (!error && lstat(target, &found) == 0 && S_ISDIR(found.st_mode) &&
		found.st_uid == geteuid())
		error = os_remove_tree(target);
	if (!error)
		error = os_remove_tree(home); /* does not follow the link */
	return error;
}
