/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/lostkeys.h"

#include "keymgr/events.h"
#include "keymgr/regions.h"
#include "keymgr/wraps.h"

/* Regions that are done with one wait for the disk. */
enum { AT_ONCE = 64 };

static enum secpool_error destroy_some(
	struct daemon *daemon, const struct devices_row *device, size_t *ret_count)
{
	static struct regions_row rows[AT_ONCE];
	uint64_t slots[AT_ONCE];
	size_t count = 0;
	enum secpool_error error = directory_begin(daemon->directory);

	if (error)
		return error;
	error = directory_finish(daemon->directory,
		regions_forget_keys(daemon->directory, device->slot, rows, AT_ONCE, &count));
	for (size_t i = 0; i < count; i++)
		slots[i] = rows[i].wrap;
	if (!error)
		error = wraps_erase_all(daemon->wraps, slots, count);
	for (size_t i = 0; i < count && !error; i++) {
		struct events_about about = {.device = device->id,
			.tenant = rows[i].tenant,
			.region = rows[i].id,
			.bytes = rows[i].bytes};

		events_record(daemon, "key-destroyed", &about,
			"the stored key is overwritten: only its program has it");
	}
	*ret_count = count;
	return error;
}

void lostkeys_destroy(struct daemon *daemon, const struct devices_row *device)
{
	size_t count = 0;
	enum secpool_error error;

	do
		error = destroy_some(daemon, device, &count);
	while (!error && count == AT_ONCE);
	if (error)
		daemon_fail(daemon, "key-not-destroyed", error);
}
