/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/wraps.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/os.h"

struct wraps {
	int fd;
	char *path;
	size_t count;		     /* slots that the file has */
	size_t lowest;		     /* none below is free */
	bool used[WRAPS_SLOTS_MOST]; /* [slot - 1] */
};

/* What the system said, as a failure of the store. */
static enum secpool_error store_error(const struct wraps *wraps, enum secpool_error error)
{
	char reason[ERR_DETAIL_BYTES];

	strncpy(reason, error ? err_detail() : "", sizeof reason - 1);
	reason[sizeof reason - 1] = '\0';
	return err_set(SECPOOL_E_STORE, "%.100s: %.120s", wraps->path, reason);
}

static enum secpool_error write_slot(
	struct wraps *wraps, uint64_t slot, const uint8_t bytes[WRAPS_SLOT_BYTES])
{
	ssize_t done;

	do
		done = pwrite(
			wraps->fd, bytes, WRAPS_SLOT_BYTES, (off_t)((slot - 1) * WRAPS_SLOT_BYTES));
	while (done < 0 && os_interrupted());
	if (done < 0)
		return store_error(wraps, os_error("write"));
	if (done != WRAPS_SLOT_BYTES)
		return err_set(SECPOOL_E_STORE, "%s: no space is left: make room on its disk",
			wraps->path);
	return SECPOOL_OK;
}

static enum secpool_error sync_file(struct wraps *wraps)
{
	if (fdatasync(wraps->fd) != 0)
		return store_error(wraps, os_error("fdatasync"));
	return SECPOOL_OK;
}

static enum secpool_error overwrite(struct wraps *wraps, uint64_t slot)
{
	uint8_t bytes[WRAPS_SLOT_BYTES];

	os_random(bytes, sizeof bytes);
	return write_slot(wraps, slot, bytes);
}

static enum secpool_error open_file(struct wraps *wraps)
{
	enum secpool_error error;
	struct stat status;

	if (access(wraps->path, F_OK) != 0) {
		error = os_write_file_durable(wraps->path, "", 0, 0600);
		if (error)
			return store_error(wraps, error);
	}
	wraps->fd = open(wraps->path, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
	if (wraps->fd < 0)
		return store_error(wraps, os_error("open"));
	if (fstat(wraps->fd, &status) != 0)
		return store_error(wraps, os_error("stat"));
	/* a last slot that was cut short by a crash is overwritten whole */
	wraps->count = ((size_t)status.st_size + WRAPS_SLOT_BYTES - 1) / WRAPS_SLOT_BYTES;
	if (!S_ISREG(status.st_mode) || wraps->count > WRAPS_SLOTS_MOST)
		return err_set(SECPOOL_E_STORE,
			"%s is no file of wrapped keys: restore the state folder", wraps->path);
	return SECPOOL_OK;
}

static enum secpool_error keep_named(struct wraps *wraps, struct directory *directory)
{
	struct directory_rows *rows = NULL;
	enum secpool_error error = directory_query(directory,
		"SELECT wrap FROM regions WHERE wrap != 0 UNION ALL"
		" SELECT next_wrap FROM regions WHERE next_wrap != 0",
		DIRECTORY_VALUES(), &rows);

	while (!error && directory_next(rows, &error)) {
		uint64_t slot = directory_get_number(rows, 0);

		if (slot > wraps->count)
			error = err_set(SECPOOL_E_STORE,
				"%s has not the slot %llu that a region names: restore the state "
				"folder as a whole",
				wraps->path, (unsigned long long)slot);
		else
			wraps->used[slot - 1] = true;
	}
	directory_done(rows);
	return error;
}

enum secpool_error wraps_open(
	const char *path, struct directory *directory, struct wraps **ret_wraps)
{
	struct wraps *wraps = calloc(1, sizeof *wraps);
	enum secpool_error error = SECPOOL_E_INTERNAL;

	if (!wraps)
		return err_set(SECPOOL_E_NO_MEMORY, "%s: out of memory", path);
	wraps->fd = -1;
	wraps->path = strdup(path);
	error = wraps->path ? open_file(wraps)
			    : err_set(SECPOOL_E_NO_MEMORY, "%s: out of memory", path);
	if (!error)
		error = keep_named(wraps, directory);
	for (size_t i = 0; i < wraps->count && !error; i++)
		if (!wraps->used[i])
			error = overwrite(wraps, i + 1);
	if (!error)
		error = sync_file(wraps);
	if (error)
		wraps_close(wraps);
	else
		*ret_wraps = wraps;
	return error;
}

void wraps_close(struct wraps *wraps)
{
	if (!wraps)
		return;
	os_close(&wraps->fd);
	free(wraps->path);
	free(wraps);
}

/* Into a free slot, not yet on the disk. On error key->slot is 0, or the slot that may hold a part of it. */
static enum secpool_error put_one(struct wraps *wraps, struct wraps_key *key)
{
	uint8_t slot_bytes[WRAPS_SLOT_BYTES];
	const bool *unused;
	size_t at;

	if (key->count == 0 || key->count > WRAPS_BYTES_MOST)
		return err_set(SECPOOL_E_INVALID, "%zu bytes are no wrapped key", key->count);
	unused = memchr(wraps->used + wraps->lowest, false, WRAPS_SLOTS_MOST - wraps->lowest);
	if (!unused)
		return err_set(SECPOOL_E_LIMIT, "%s holds the keys of %d regions already",
			wraps->path, (int)WRAPS_SLOTS_MOST);
	at = (size_t)(unused - wraps->used);
	wraps->lowest = at;
	os_random(slot_bytes, sizeof slot_bytes);
	for (unsigned i = 0; i < WRAPS_HEAD_BYTES; i++)
		slot_bytes[i] = (uint8_t)(key->count >> (8 * i));
	memcpy(slot_bytes + WRAPS_HEAD_BYTES, key->bytes, key->count);
	wraps->used[at] = true;
	if (at >= wraps->count)
		wraps->count = at + 1;
	key->slot = at + 1;
	return write_slot(wraps, at + 1, slot_bytes);
}

/* The keys go from where they may be; when not even that works, the slots stay taken. */
static void take_back(struct wraps *wraps, const struct wraps_key *keys, size_t count)
{
	enum secpool_error error = SECPOOL_OK;

	for (size_t i = 0; i < count && !error; i++)
		if (keys[i].slot != 0)
			error = overwrite(wraps, keys[i].slot);
	if (!error)
		error = sync_file(wraps);
	for (size_t i = 0; i < count && !error; i++) {
		if (keys[i].slot == 0)
			continue;
		wraps->used[keys[i].slot - 1] = false;
		if (keys[i].slot - 1 < wraps->lowest)
			wraps->lowest = keys[i].slot - 1;
	}
}

enum secpool_error wraps_put_all(struct wraps *wraps, struct wraps_key *keys, size_t count)
{
	char reason[ERR_DETAIL_BYTES];
	enum secpool_error error = SECPOOL_OK;
	size_t done = 0;

	while (done < count && !error) {
		keys[done].slot = 0;
		error = put_one(wraps, &keys[done++]);
	}
	if (!error)
		error = sync_file(wraps);
	if (!error)
		return SECPOOL_OK;
	memcpy(reason, err_detail(), sizeof reason);
	take_back(wraps, keys, done);
	return err_set(error, "%.255s", reason);
}

enum secpool_error wraps_put(
	struct wraps *wraps, const uint8_t *bytes, size_t count, uint64_t *ret_slot)
{
	struct wraps_key key = {.bytes = bytes, .count = count};
	enum secpool_error error = wraps_put_all(wraps, &key, 1);

	if (!error)
		*ret_slot = key.slot;
	return error;
}

enum secpool_error wraps_erase_all(struct wraps *wraps, const uint64_t *slots, size_t count)
{
	enum secpool_error error = SECPOOL_OK;
	size_t erased = 0;

	for (size_t i = 0; i < count && !error; i++) {
		if (slots[i] == 0)
			continue;
		erased++;
		if (slots[i] > wraps->count || !wraps->used[slots[i] - 1])
			error = err_set(SECPOOL_E_INVALID, "%s has no key in slot %llu",
				wraps->path, (unsigned long long)slots[i]);
		else
			error = overwrite(wraps, slots[i]);
	}
	if (!error && erased > 0)
		error = sync_file(wraps);
	for (size_t i = 0; i < count && !error; i++) {
		if (slots[i] == 0)
			continue;
		wraps->used[slots[i] - 1] = false;
		if (slots[i] - 1 < wraps->lowest)
			wraps->lowest = slots[i] - 1;
	}
	return error;
}

enum secpool_error wraps_erase(struct wraps *wraps, uint64_t slot)
{
	return wraps_erase_all(wraps, &slot, 1);
}
