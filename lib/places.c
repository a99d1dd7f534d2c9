/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/places.h"

#include <stdlib.h>

#include "lib/base/os.h"
#include "lib/service.h"

/* Most places of one lane: a region of 64 TiB in pieces of 64 MiB. */
enum { PLACES_MOST = 1 << 20 };

void places_free(struct placement *placement)
{
	while (placement) {
		struct placement *older = placement->older;
		for (unsigned lane = 0; lane < MSG_LANES_MAX; lane++)
			free(placement->places[lane]);
		free(placement);
		placement = older;
	}
}

bool places_find(const struct placement *placement, unsigned lane, uint64_t offset,
	struct device **ret_device, uint64_t *ret_offset)
{
	const struct place *places = placement->places[lane];
	unsigned low = 0, high = placement->count[lane];

	while (low < high) {
		unsigned middle = low + (high - low) / 2;
		const struct place *place = &places[middle];
		if (offset < place->region_offset) {
			high = middle;
		} else if (offset >= place->region_offset + place->bytes) {
			low = middle + 1;
		} else {
			*ret_device = place->device;
			*ret_offset = place->offset + (offset - place->region_offset);
			return true;
		}
	}
	return false;
}

bool places_whole(const struct secpool_region *region, const struct placement *placement)
{
	uint64_t lane_bytes = msg_lane_bytes(region->bytes, region->page_bytes, region->data);

	for (unsigned lane = 0; lane < region->lanes; lane++) {
		uint64_t reached = 0;
		for (unsigned i = 0; i < placement->count[lane]; i++) {
			const struct place *place = &placement->places[lane][i];
			if (place->region_offset != reached)
				return false;
			reached += place->bytes;
		}
		if (reached < lane_bytes)
			return false;
	}
	return true;
}

bool places_there(const struct placement *placement)
{
	for (unsigned lane = 0; lane < MSG_LANES_MAX; lane++)
		for (unsigned i = 0; i < placement->count[lane]; i++)
			if (!device_usable(placement->places[lane][i].device))
				return false;
	return true;
}

bool places_same(const struct placement *a, const struct placement *b)
{
	for (unsigned lane = 0; lane < MSG_LANES_MAX; lane++) {
		if (a->count[lane] != b->count[lane])
			return false;
		for (unsigned i = 0; i < a->count[lane]; i++) {
			const struct place *left = &a->places[lane][i],
					   *right = &b->places[lane][i];
			if (left->region_offset != right->region_offset ||
				left->bytes != right->bytes || left->device != right->device ||
				left->offset != right->offset)
				return false;
		}
	}
	return true;
}

uint64_t places_bytes(const struct placement *placement)
{
	uint64_t bytes = 0;

	for (unsigned lane = 0; lane < MSG_LANES_MAX; lane++)
		for (unsigned i = 0; i < placement->count[lane]; i++)
			if (device_usable(placement->places[lane][i].device))
				bytes += placement->places[lane][i].bytes;
	return bytes;
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
	uint64_t lane = rows->lane[row], end_in_region;
	struct place place = {
		.region_offset = rows->region_offset[row],
		.bytes = rows->bytes[row],
		.device = find_device(pool, rows->slot[row]),
		.offset = rows->offset[row],
	};
	struct place *more;

	if (lane >= region->lanes || place.bytes == 0 || placement->count[lane] >= PLACES_MOST ||
		place.region_offset % PAGECIPHER_PAGE_BYTES_MOST ||
		place.bytes % PAGECIPHER_PAGE_BYTES_MOST ||
		__builtin_add_overflow(place.region_offset, place.bytes, &end_in_region))
		return err_set(SECPOOL_E_PROTOCOL, "keymgrd named a place that makes no sense");
	if (!place.device)
		return SECPOOL_OK; /* a device that is not here: as if the lane had no place */
	if (place.offset > place.device->bytes || place.bytes > place.device->bytes - place.offset)
		return err_set(SECPOOL_E_PROTOCOL, "keymgrd named a place beyond the end of %s",
			place.device->id);
	if (placement->count[lane] > 0) {
		const struct place *last = &placement->places[lane][placement->count[lane] - 1];
		if (place.region_offset < last->region_offset + last->bytes)
			return err_set(SECPOOL_E_PROTOCOL, "keymgrd named overlapping places");
	}
	more = realloc(placement->places[lane], (placement->count[lane] + 1) * sizeof *more);
	if (!more)
		return os_error("places");
	placement->places[lane] = more;
	more[placement->count[lane]++] = place;
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
