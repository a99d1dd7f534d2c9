/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/anchor_files.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/base/os.h"

static enum secpool_error path_of(
	const struct anchor_files *files, const char *name, char path[PATH_MAX])
{
	if (snprintf(path, PATH_MAX, "%s/%s", files->state_dir, name) >= PATH_MAX)
		return err_set(SECPOOL_E_LIMIT, "the state folder's path is too long");
	return SECPOOL_OK;
}

static enum secpool_error open_file(const struct anchor_files *files, const char *name, int *ret_fd)
{
	char path[PATH_MAX];
	enum secpool_error error = path_of(files, name, path);

	if (error)
		return error;
	*ret_fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	return *ret_fd < 0 ? os_error("open %s", path) : SECPOOL_OK;
}

static enum secpool_error read_root(struct anchor_files *files, const char *name, char **ret_bytes,
	struct keyfile_root *ret_root, bool *ret_has)
{
	char path[PATH_MAX];
	size_t count = 0;
	enum secpool_error error = path_of(files, name, path);

	if (!error)
		error = os_read_file(path, KEYFILE_ROOT_BYTES_MOST, ret_bytes, &count);
	if (error == SECPOOL_E_NOT_FOUND)
		return SECPOOL_OK;
	if (!error)
		error = keyfile_parse_root((const uint8_t *)*ret_bytes, count, ret_root);
	if (error == SECPOOL_E_STORE || error == SECPOOL_E_LIMIT)
		return err_set(
			SECPOOL_E_STORE, "%.160s: %.90s: put its backup back", path, err_detail());
	*ret_has = !error;
	return error;
}

enum secpool_error anchor_files_open(const char *state_dir, struct anchor_files *files)
{
	enum secpool_error error;

	files->state_dir = state_dir;
	error = open_file(files, KEYFILE_NODES, &files->nodes_fd);
	if (!error)
		error = open_file(files, KEYFILE_WRAPS, &files->wraps_fd);
	if (error)
		return error;
	error = read_root(files, KEYFILE_ROOT, &files->root_bytes, &files->root, &files->has_root);
	if (!error)
		error = read_root(
			files, KEYFILE_NEXT, &files->next_bytes, &files->next, &files->has_next);
	return error;
}

void anchor_files_close(struct anchor_files *files)
{
	os_close(&files->nodes_fd);
	free(files->root_bytes);
	free(files->next_bytes);
	files->root_bytes = files->next_bytes = NULL;
}

void *anchor_files_arg(const struct anchor_files *files)
{
	return (void *)(intptr_t)files->wraps_fd; /* lint: a number, never a place */
}

bool anchor_files_read_slot(void *arg, uint32_t slot, uint8_t bytes[KEYFILE_SLOT_BYTES])
{
	ssize_t got;

	do
		got = pread((int)(intptr_t)arg, bytes, KEYFILE_SLOT_BYTES,
			(off_t)slot * KEYFILE_SLOT_BYTES);
	while (got < 0 && os_interrupted());
	return got == KEYFILE_SLOT_BYTES;
}

enum secpool_error anchor_files_first(
	struct anchor_files *files, const uint8_t record[KEYFILE_NODE_BYTES])
{
	enum secpool_error error = SECPOOL_OK;

	/* what an attempt that never became a store may have left */
	if (ftruncate(files->nodes_fd, 0) != 0 || ftruncate(files->wraps_fd, 0) != 0)
		return os_error("empty the key store");
	error = keyfile_write_node(files->nodes_fd, KEYTREE_SERVICE, record);
	if (!error && fsync(files->nodes_fd) != 0)
		error = os_error("fsync of the key store");
	return error;
}

enum secpool_error anchor_files_write_root(
	const struct anchor_files *files, const void *bytes, size_t count)
{
	char path[PATH_MAX];
	enum secpool_error error = path_of(files, KEYFILE_ROOT, path);

	return error ? error : os_write_file_durable(path, bytes, count, 0600);
}

static enum secpool_error copy(const char *name, int fd, int *ret_fd)
{
	static uint8_t bytes[1 << 16];
	off_t at = 0;
	ssize_t got = 1;

	*ret_fd = memfd_create(name, MFD_CLOEXEC);
	if (*ret_fd < 0)
		return os_error("memory for a copy of the key store");
	while (got != 0) {
		got = pread(fd, bytes, sizeof bytes, at);
		if (got < 0 && !os_interrupted())
			return os_error("copy the key store");
		if (got > 0 && pwrite(*ret_fd, bytes, (size_t)got, at) != got)
			return os_error("memory for a copy of the key store");
		at += got > 0 ? got : 0;
	}
	return SECPOOL_OK;
}

enum secpool_error anchor_files_as_next(const struct anchor_files *files, struct anchor_files *view)
{
	enum secpool_error error = copy(KEYFILE_NODES, files->nodes_fd, &view->nodes_fd);

	if (!error)
		error = copy(KEYFILE_WRAPS, files->wraps_fd, &view->wraps_fd);
	return error ? error : keyfile_apply(&files->next, view->nodes_fd, view->wraps_fd);
}

enum secpool_error anchor_files_apply_next(struct anchor_files *files)
{
	return keyfile_apply(&files->next, files->nodes_fd, files->wraps_fd);
}

enum secpool_error anchor_files_drop_next(struct anchor_files *files)
{
	char path[PATH_MAX];
	enum secpool_error error = SECPOOL_OK;

	if (files->has_next)
		error = path_of(files, KEYFILE_NEXT, path);
	return error || !files->has_next ? error : os_remove_file_durable(path);
}

enum secpool_error anchor_files_load(
	struct anchor_files *files, struct keytree *tree, uint8_t **root)
{
	enum { NODES_BYTES_MOST = KEYFILE_NODES_MOST * KEYFILE_NODE_BYTES };
	char *nodes = NULL;
	size_t bytes = 0;
	enum secpool_error error = SECPOOL_OK;

	if (lseek(files->nodes_fd, 0, SEEK_SET) != 0)
		error = os_error("read the key store's nodes");
	if (!error)
		error = os_read_fd(
			files->nodes_fd, KEYFILE_NODES, NODES_BYTES_MOST, &nodes, &bytes);
	if (!error)
		error = keytree_load(tree, root, anchor_files_read_slot, anchor_files_arg(files),
			(const uint8_t *)nodes, bytes);
	free(nodes);
	return error;
}
