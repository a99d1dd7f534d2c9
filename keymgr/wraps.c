/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/wraps.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/os.h"
#include "lib/wire/msg.h"

struct wraps {
	int fd, nodes_fd;
	char path[PATH_MAX], nodes_path[PATH_MAX];
	size_t count;		       /* slots that the file has */
	bool used[KEYFILE_SLOTS_MOST]; /* [slot - 1] */
};

/* What the system said, as a failure of the store. */
static enum secpool_error store_error(const char *path, enum secpool_error error)
{
	return err_set(SECPOOL_E_STORE, "%.100s: %.120s", path, error ? err_detail() : "");
}

static enum secpool_error sync_file(int fd, const char *path)
{
	return fdatasync(fd) == 0 ? SECPOOL_OK : store_error(path, os_error("fdatasync"));
}

static enum secpool_error write_slot(
	struct wraps *wraps, uint64_t slot, const uint8_t bytes[KEYFILE_SLOT_BYTES])
{
	enum secpool_error error = keyfile_write_slot(wraps->fd, (uint32_t)(slot - 1), bytes);

	return error ? store_error(wraps->path, error) : SECPOOL_OK;
}

static enum secpool_error overwrite(struct wraps *wraps, uint64_t slot)
{
	uint8_t bytes[KEYFILE_SLOT_BYTES];

	os_random(bytes, sizeof bytes);
	return write_slot(wraps, slot, bytes);
}

static enum secpool_error open_file(const char *path, int *ret_fd, size_t *ret_bytes)
{
	struct stat status;

	*ret_fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (*ret_fd < 0)
		return store_error(path, os_error("open"));
	if (fstat(*ret_fd, &status) != 0)
		return store_error(path, os_error("stat"));
	if (!S_ISREG(status.st_mode))
		return err_set(SECPOOL_E_STORE,
			"%.120s is no file of the key store: restore the state folder", path);
	*ret_bytes = (size_t)status.st_size;
	return SECPOOL_OK;
}

static enum secpool_error keep_named(struct wraps *wraps, struct directory *directory)
{
	struct directory_rows *rows = NULL;
	enum secpool_error error = directory_query(directory,
		"SELECT wrap FROM regions WHERE wrap != 0 UNION ALL"
		" SELECT next_wrap FROM regions WHERE next_wrap != 0 UNION ALL"
		" SELECT g.wrap FROM grants g JOIN regions r ON r.id = g.region AND r.state = 3",
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

static enum secpool_error open_files(struct wraps *wraps, const char *state_dir)
{
	size_t bytes = 0, nodes_bytes = 0;
	enum secpool_error error;

	if (snprintf(wraps->path, PATH_MAX, "%s/" KEYFILE_WRAPS, state_dir) >= PATH_MAX ||
		snprintf(wraps->nodes_path, PATH_MAX, "%s/" KEYFILE_NODES, state_dir) >= PATH_MAX)
		return err_set(SECPOOL_E_LIMIT, "the state folder's path is too long");
	error = open_file(wraps->path, &wraps->fd, &bytes);
	if (!error)
		error = open_file(wraps->nodes_path, &wraps->nodes_fd, &nodes_bytes);
	/* a last slot that was cut short by a crash is overwritten whole */
	wraps->count = (bytes + KEYFILE_SLOT_BYTES - 1) / KEYFILE_SLOT_BYTES;
	if (!error && wraps->count > KEYFILE_SLOTS_MOST)
		error = err_set(SECPOOL_E_STORE,
			"%.120s is no file of the key store: restore the state folder",
			wraps->path);
	return error;
}

enum secpool_error wraps_open(
	const char *state_dir, struct directory *directory, struct wraps **ret_wraps)
{
	struct wraps *wraps = calloc(1, sizeof *wraps);
	enum secpool_error error = SECPOOL_E_INTERNAL;

	if (!wraps)
		return err_set(SECPOOL_E_NO_MEMORY, "%s: out of memory", state_dir);
	wraps->fd = wraps->nodes_fd = -1;
	error = open_files(wraps, state_dir);
	if (!error)
		error = keep_named(wraps, directory);
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
	os_close(&wraps->nodes_fd);
	free(wraps);
}

static enum secpool_error check_places(
	const struct wraps *wraps, const struct msg_enc_key_wrapped *wrapped)
{
	bool good = wrapped->slot > 0 && wrapped->slot <= KEYFILE_SLOTS_MOST &&
		    !wraps->used[wrapped->slot - 1] && wrapped->wrapped_bytes > 0 &&
		    wrapped->wrapped_bytes <= sizeof wrapped->wrapped &&
		    wrapped->node_count <= sizeof wrapped->nodes / sizeof *wrapped->nodes;

	for (uint32_t i = 0; good && i < wrapped->node_count; i++)
		good = wrapped->nodes[i] < KEYFILE_NODES_MOST;
	return good ? SECPOOL_OK
		    : err_set(SECPOOL_E_INVALID, "%.120s has no place %llu for a key of %u bytes",
			      wraps->path, (unsigned long long)wrapped->slot,
			      wrapped->wrapped_bytes);
}

static enum secpool_error put_nodes(struct wraps *wraps, const struct msg_enc_key_wrapped *key)
{
	enum secpool_error error = SECPOOL_OK;

	for (uint32_t i = 0; i < key->node_count && !error; i++)
		error = keyfile_write_node(wraps->nodes_fd, (uint32_t)key->nodes[i],
			key->records + (size_t)i * KEYFILE_NODE_BYTES);
	return error ? store_error(wraps->nodes_path, error) : SECPOOL_OK;
}

/* Nodes first, on the disk before the slots below them. */
static enum secpool_error write_keys(
	struct wraps *wraps, const struct msg_enc_key_wrapped *const *keys, size_t count)
{
	uint8_t slot_bytes[KEYFILE_SLOT_BYTES];
	enum secpool_error error = SECPOOL_OK;
	bool nodes = false;

	for (size_t i = 0; i < count && !error; i++) {
		nodes = nodes || keys[i]->node_count > 0;
		error = put_nodes(wraps, keys[i]);
	}
	if (!error && nodes)
		error = sync_file(wraps->nodes_fd, wraps->nodes_path);
	for (size_t i = 0; i < count && !error; i++) {
		keyfile_put_slot(slot_bytes, keys[i]->wrapped, keys[i]->wrapped_bytes);
		error = write_slot(wraps, keys[i]->slot, slot_bytes);
	}
	return error ? error : sync_file(wraps->fd, wraps->path);
}

/* The keys go from where they may be; when not even that works, the slots stay taken until a generation empties them. */
static void take_back(
	struct wraps *wraps, const struct msg_enc_key_wrapped *const *keys, size_t count)
{
	enum secpool_error error = SECPOOL_OK;

	for (size_t i = 0; i < count && !error; i++)
		error = overwrite(wraps, keys[i]->slot);
	if (!error)
		error = sync_file(wraps->fd, wraps->path);
	for (size_t i = 0; i < count && !error; i++)
		wraps->used[keys[i]->slot - 1] = false;
}

enum secpool_error wraps_put_all(
	struct wraps *wraps, const struct msg_enc_key_wrapped *const *keys, size_t count)
{
	char reason[ERR_DETAIL_BYTES];
	enum secpool_error error = SECPOOL_OK;
	size_t taken = 0;

	while (taken < count) {
		uint64_t slot = keys[taken]->slot;

		error = check_places(wraps, keys[taken]);
		if (error)
			break;
		wraps->used[slot - 1] = true;
		if (slot > wraps->count)
			wraps->count = slot;
		taken++;
	}
	if (!error)
		error = write_keys(wraps, keys, count);
	if (!error)
		return SECPOOL_OK;
	memcpy(reason, err_detail(), sizeof reason);
	take_back(wraps, keys, taken);
	return err_set(error, "%.255s", reason);
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
		error = sync_file(wraps->fd, wraps->path);
	for (size_t i = 0; i < count && !error; i++) {
		if (slots[i] != 0)
			wraps->used[slots[i] - 1] = false;
	}
	return error;
}

enum secpool_error wraps_erase(struct wraps *wraps, uint64_t slot)
{
	return wraps_erase_all(wraps, &slot, 1);
}

static bool is_zero(const uint8_t bytes[KEYFILE_SLOT_BYTES])
{
	uint8_t any = 0;

	for (size_t i = 0; i < KEYFILE_SLOT_BYTES; i++)
		any |= bytes[i];
	return any == 0;
}

enum secpool_error wraps_erase_unnamed(struct wraps *wraps)
{
	enum secpool_error error = SECPOOL_OK;

	for (size_t i = 0; i < wraps->count && !error; i++) {
		uint8_t bytes[KEYFILE_SLOT_BYTES] = {0};
		ssize_t count;

		if (wraps->used[i])
			continue;
		count = pread(wraps->fd, bytes, sizeof bytes, (off_t)(i * KEYFILE_SLOT_BYTES));
		if (count < 0)
			error = store_error(wraps->path, os_error("read"));
		else if (count < KEYFILE_SLOT_BYTES || !is_zero(bytes))
			error = overwrite(wraps, i + 1);
	}
	return error ? error : sync_file(wraps->fd, wraps->path);
}

enum secpool_error wraps_apply(struct wraps *wraps, const struct keyfile_root *root)
{
	struct keyfile_root at = *root;
	struct keyfile_record record;
	enum secpool_error error = keyfile_apply(root, wraps->nodes_fd, wraps->fd);

	while (!error && keyfile_next_record(&at, &record))
		if (!record.is_node && record.count == 0)
			wraps->used[record.place] = false;
	return error;
}
