/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/devstore.h"

#include "keymgr/directory.h"
#include "keymgr/regions.h"

enum secpool_error devstore_add(
	struct directory *directory, struct devices_row *row, const struct msg_device_state *state)
{
	enum secpool_error error = directory_begin(directory);
	uint64_t slot = 0;

	if (error)
		return error;
	error = directory_run(directory,
		"INSERT INTO devices (id, media, bytes, domain, state, ek)"
		" VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
		DIRECTORY_VALUES(DIRECTORY_T(state->id), DIRECTORY_N(state->media),
			DIRECTORY_N(state->bytes), DIRECTORY_T(state->domain),
			DIRECTORY_N(MSG_DEVICE_ONLINE),
			DIRECTORY_B(row->ek_known ? row->ek : NULL, sizeof row->ek)));
	if (!error) {
		slot = directory_last_id(directory);
		error = extents_reset_device(directory, slot, state->bytes);
	}
	error = directory_finish(directory, error);
	if (!error)
		row->slot = slot;
	return error;
}

enum secpool_error devstore_change(struct directory *directory, const struct devices_row *row,
	const struct msg_device_state *state)
{
	enum secpool_error error = directory_begin(directory);

	if (error)
		return error;
	error = directory_run(directory,
		"UPDATE devices SET media = ?2, bytes = ?3, domain = ?4, state = ?5 WHERE slot = "
		"?1",
		DIRECTORY_VALUES(DIRECTORY_N(row->slot), DIRECTORY_N(state->media),
			DIRECTORY_N(state->bytes), DIRECTORY_T(state->domain),
			DIRECTORY_N(MSG_DEVICE_ONLINE)));
	if (!error)
		error = regions_lose_device(directory, row->slot);
	if (!error)
		error = extents_reset_device(directory, row->slot, state->bytes);
	return directory_finish(directory, error);
}
