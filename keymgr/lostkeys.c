/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/lostkeys.h"

#include "keymgr/epochs.h"
#include "keymgr/events.h"
#include "keymgr/rotate.h"
#include "keymgr/regionkeys.h"

/* Regions that are done with one wait for the disk. */
enum { AT_ONCE = 64 };

static enum secpool_error destroy_some(struct daemon *daemon, const struct devices_row *device,
	uint64_t *offset, size_t *ret_count)
{
	static struct regions_row rows[AT_ONCE];
	uint64_t slots[2 * AT_ONCE];
	size_t count = 0;
	enum secpool_error error = directory_begin(daemon->directory);

	if (error)
		return error;
	error = directory_finish(daemon->directory,
		epochs_forget(daemon->directory, device->slot, offset, rows, AT_ONCE, &count));
	for (size_t i = 0; i < count; i++) {
		slots[2 * i] = rows[i].wrap;
		slots[2 * i + 1] = rows[i].next_wrap;
	}
	if (!error)
		error = regionkeys_erase(daemon, slots, 2 * count);
	for (size_t i = 0; i < count && !error; i++) {
		struct events_about about = {.device = device->id,
			.tenant = rows[i].tenant,
			.region = rows[i].id,
			.bytes = rows[i].bytes};

		events_record(daemon, "key-destroyed", &about,
			"the stored key is overwritten: its program has it, and gets another");
	}
	if (!error)
		rotate_tell(daemon, rows, count);
	*ret_count = count;
	return error;
}

void lostkeys_destroy(struct daemon *daemon, const struct devices_row *device)
{
	uint64_t offset = 0;
	size_t count = 0;
	enum secpool_error error;

	do
		error = destroy_some(daemon, device, &offset, &count);
	while (!error && count > 0);
	if (error)
		daemon_fail(daemon, "key-not-destroyed", error);
}
