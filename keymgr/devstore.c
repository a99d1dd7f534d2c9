/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/devstore.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "keymgr/directory.h"
#include "keymgr/regions.h"
#include "lib/base/os.h"

enum secpool_error devstore_read_boot(char boot[DEVICES_BOOT_BYTES])
{
	char *text = NULL;
	size_t bytes = 0;
	enum secpool_error error =
		os_read_file("/proc/sys/kernel/random/boot_id", 4096, &text, &bytes);

	if (error)
		return error;
	text[strcspn(text, "\n")] = '\0';
	msg_set_text(boot, DEVICES_BOOT_BYTES, text);
	free(text);
	return SECPOOL_OK;
}

enum secpool_error devstore_find_file(const char *boot, int media_fd, struct devices_file *ret_file)
{
	struct stat status;

	if (fstat(media_fd, &status) != 0)
		return os_error("stat of the media");
	*ret_file = (struct devices_file){.dev = status.st_dev, .ino = status.st_ino};
	MSG_SET(ret_file->boot, boot);
	return SECPOOL_OK;
}

bool devstore_same_file(const struct devices_file *a, const struct devices_file *b)
{
	return a->boot[0] && strcmp(a->boot, b->boot) == 0 && a->dev == b->dev && a->ino == b->ino;
}

enum secpool_error devstore_add(struct directory *directory, struct devices_row *row,
	const struct msg_device_state *state, const struct devices_file *file)
{
	enum secpool_error error = directory_begin(directory);
	uint64_t slot = 0;

	if (error)
		return error;
	error = directory_run(directory,
		"INSERT INTO devices (id, media, bytes, domain, state, ek, boot, file_dev, "
		"file_ino, resets, serial)"
		" VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
		DIRECTORY_VALUES(DIRECTORY_T(state->id), DIRECTORY_N(state->media),
			DIRECTORY_N(state->bytes), DIRECTORY_T(state->domain),
			DIRECTORY_N(MSG_DEVICE_ONLINE),
			DIRECTORY_B(row->ek_known ? row->ek : NULL, sizeof row->ek),
			DIRECTORY_T(file->boot), DIRECTORY_N(file->dev), DIRECTORY_N(file->ino),
			DIRECTORY_N(row->resets), DIRECTORY_T(row->serial)));
	if (!error) {
		slot = directory_last_id(directory);
		error = extents_reset_device(directory, slot, state->bytes);
	}
	error = directory_finish(directory, error);
	if (!error)
		row->slot = slot;
	return error;
}

enum secpool_error devstore_update(struct directory *directory, const struct devices_row *row,
	const struct msg_device_state *state, const struct devices_file *file)
{
	return directory_run(directory,
		"UPDATE devices SET media = ?2, bytes = ?3, domain = ?4, state = ?5, boot = ?6,"
		" file_dev = ?7, file_ino = ?8 WHERE slot = ?1",
		DIRECTORY_VALUES(DIRECTORY_N(row->slot), DIRECTORY_N(state->media),
			DIRECTORY_N(state->bytes), DIRECTORY_T(state->domain),
			DIRECTORY_N(MSG_DEVICE_ONLINE), DIRECTORY_T(file->boot),
			DIRECTORY_N(file->dev), DIRECTORY_N(file->ino)));
}

enum secpool_error devstore_change(struct directory *directory, const struct devices_row *row,
	const struct msg_device_state *state, const struct devices_file *file)
{
	bool other_file = row->file.boot[0] && !devstore_same_file(&row->file, file);
	enum secpool_error error = directory_begin(directory);

	if (error)
		return error;
	error = devstore_update(directory, row, state, file);
	if (!error && other_file)
		error = regions_lose_device(directory, row->slot);
	if (!error)
		error = other_file ? extents_reset_device(directory, row->slot, state->bytes)
				   : extents_set_aside_device(directory, row->slot, state->bytes);
	return directory_finish(directory, error);
}
