/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/places.h"

#include <stdlib.h>

#include "lib/base/os.h"
#include "lib/service.h"

/* Most places of one copy: a region of 64 TiB in pieces of 64 MiB. */
enum { PLACES_MOST = 1 << 20 };

void places_free(struct placement *placement)
{
	while (placement) {
		struct placement *older = placement->older;
		for (unsigned copy = 0; copy < MSG_COPIES_MAX; copy++)
			free(placement->places[copy]);
		free(placement);
		placement = older;
	}
}

bool places_whole(const struct secpool_region *region, const struct placement *placement)
{
	for (unsigned copy = 0; copy < region->copies; copy++) {
		uint64_t reached = 0;
		for (unsigned i = 0; i < placement->count[copy]; i++) {
			const struct place *place = &placement->places[copy][i];
			if (place->region_offset != reached)
				return false;
			reached += place->bytes;
		}
		if (reached < region->bytes)
			return false;
	}
	return true;
}

/* The newest incarnation of the device; NULL if we never saw it. */
static struct device *find_device(struct secpool *pool, uint64_t slot)
{
	for (struct device *d = atomic_load(&pool->devices); d; d = d->older)
		if (d->slot == slot)
			return d;
	return NULL;
}

static enum secpool_error add_place(struct secpool *pool, const struct secpool_region *region,
	struct placement *placement, const struct msg_extents *rows, uint32_t row)
{
	uint64_t copy = rows->copy[row], end_in_region;
	struct place place = {
		.region_offset = rows->region_offset[row],
		.bytes = rows->bytes[row],
		.device = find_device(pool, rows->slot[row]),
		.offset = rows->offset[row],
	};
	struct place *more;

	if (copy >= region->copies || place.bytes == 0 || placement->count[copy] >= PLACES_MOST ||
		place.region_offset % PAGECIPHER_PAGE_BYTES_MOST ||
		place.bytes % PAGECIPHER_PAGE_BYTES_MOST ||
		__builtin_add_overflow(place.region_offset, place.bytes, &end_in_region))
		return err_set(SECPOOL_E_PROTOCOL, "keymgrd named a place that makes no sense");
	if (!place.device)
		return SECPOOL_OK; /* a device that is not here: as if the copy had no place */
	if (place.offset > place.device->bytes || place.bytes > place.device->bytes - place.offset)
		return err_set(SECPOOL_E_PROTOCOL, "keymgrd named a place beyond the end of %s",
			place.device->id);
	if (placement->count[copy] > 0) {
		const struct place *last = &placement->places[copy][placement->count[copy] - 1];
		if (place.region_offset < last->region_offset + last->bytes)
			return err_set(SECPOOL_E_PROTOCOL, "keymgrd named overlapping places");
	}
	more = realloc(placement->places[copy], (placement->count[copy] + 1) * sizeof *more);
	if (!more)
		return os_error("places");
	placement->places[copy] = more;
	more[placement->count[copy]++] = place;
	return SECPOOL_OK;
}

enum secpool_error places_read(
	struct secpool *pool, const struct secpool_region *region, struct placement **ret_placement)
{
	struct placement *placement = calloc(1, sizeof *placement);
	struct msg request, answer;
	const struct msg_extents *rows = &answer.u.extents;
	enum secpool_error error = SECPOOL_OK;
	uint32_t first = 0, total = 1;

	if (!placement)
		return os_error("places");
	while (!error && first < total) {
		request = (struct msg){.type = MSG_EXTENTS_GET};
		request.u.extents_get.region = region->id;
		request.u.extents_get.first = first;
		error = keyclient_call(&pool->service->client, &request, MSG_EXTENTS, &answer);
		if (error)
			break;
		/* what keymgrd said of its devices before this answer comes first: the places are on them */
		service_take_messages(pool->service);
		total = rows->total;
		if (rows->region != region->id || rows->count > MSG_EXTENTS_MAX ||
			(rows->count == 0 && first < total))
			error = err_set(
				SECPOOL_E_PROTOCOL, "keymgrd's list of places makes no sense");
		for (uint32_t row = 0; !error && row < rows->count; row++)
			error = add_place(pool, region, placement, rows, row);
		first += error ? 0 : rows->count;
	}
	if (error)
		places_free(placement);
	else
		*ret_placement = placement;
	return error;
}
