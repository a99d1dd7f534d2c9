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
		for (unsigned lane = 0; lane < MSG_LANES_MAX; lane++) {
			free(placement->places[lane]);
			free(placement->targets[lane]);
		}
		free(placement);
		placement = older;
	}
}

void places_free_targets(struct secpool_region *region)
{
	while (region->all_targets) {
		struct target *next = region->all_targets->next;
		free(region->all_targets);
		region->all_targets = next;
	}
}

struct target *places_target(const struct placement *placement, unsigned lane, uint64_t offset)
{
	unsigned low = 0, high = placement->target_count[lane];

	while (low < high) {
		unsigned middle = low + (high - low) / 2;
		struct target *target = placement->targets[lane][middle];
		if (offset < target->region_offset)
			high = middle;
		else if (offset - target->region_offset >= target->bytes)
			low = middle + 1;
		else
			return target;
	}
	return NULL;
}

/* Whether the byte was moved; then that is where it is. Mostly nothing is moved, and that costs one load. */
static bool find_moved(const struct placement *placement, unsigned lane, uint64_t offset,
	struct device **ret_device, uint64_t *ret_offset)
{
	const struct target *target;

	if (placement->target_count[lane] == 0)
		return false;
	target = places_target(placement, lane, offset);
	/* acquire: what was copied */
	if (!target || offset - target->region_offset >=
			       atomic_load_explicit(&target->moved, memory_order_acquire))
		return false;
	*ret_device = target->device;
	*ret_offset = target->offset + (offset - target->region_offset);
	return true;
}

bool places_find(const struct placement *placement, unsigned lane, uint64_t offset,
	struct device **ret_device, uint64_t *ret_offset)
{
	const struct place *places = placement->places[lane];
	unsigned low = 0, high = placement->count[lane];

	if (find_moved(placement, lane, offset, ret_device, ret_offset))
		return true;
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

bool places_on(const struct placement *placement, const struct device *device)
{
	for (unsigned lane = 0; lane < MSG_LANES_MAX; lane++)
		for (unsigned i = 0; i < placement->count[lane]; i++)
			if (placement->places[lane][i].device == device)
				return true;
	return false;
}

bool places_target_on(const struct placement *placement, const struct device *device)
{
	for (unsigned lane = 0; lane < MSG_LANES_MAX; lane++)
		for (unsigned i = 0; i < placement->target_count[lane]; i++)
			if (placement->targets[lane][i]->device == device)
				return true;
	return false;
}

bool places_same(const struct placement *a, const struct placement *b)
{
	for (unsigned lane = 0; lane < MSG_LANES_MAX; lane++) {
		if (a->count[lane] != b->count[lane] ||
			a->target_count[lane] != b->target_count[lane])
			return false;
		for (unsigned i = 0; i < a->target_count[lane]; i++)
			if (a->targets[lane][i] != b->targets[lane][i])
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

/* The one that is known, or a new one. */
static struct target *find_target(
	struct secpool_region *region, unsigned lane, const struct place *place)
{
	struct target *target;

	for (target = region->all_targets; target; target = target->next)
		if (target->lane == lane && target->region_offset == place->region_offset &&
			target->bytes == place->bytes && target->device == place->device &&
			target->offset == place->offset && !target->ended)
			return target;
	target = calloc(1, sizeof *target);
	if (!target)
		return NULL;
	*target = (struct target){.lane = lane,
		.region_offset = place->region_offset,
		.bytes = place->bytes,
		.device = place->device,
		.offset = place->offset,
		.next = region->all_targets};
	region->all_targets = target;
	return target;
}

static enum secpool_error add_target(struct secpool_region *region, struct placement *placement,
	unsigned lane, const struct place *place)
{
	unsigned count = placement->target_count[lane];
	struct target **more = realloc(placement->targets[lane], (count + 1) * sizeof(*more));
	struct target *target = find_target(region, lane, place);

	if (more)
		placement->targets[lane] = more;
	if (!more || !target)
		return os_error("targets");
	if (count > 0 &&
		place->region_offset < more[count - 1]->region_offset + more[count - 1]->bytes)
		return err_set(SECPOOL_E_PROTOCOL, "keymgrd named overlapping targets");
	more[placement->target_count[lane]++] = target;
	return SECPOOL_OK;
}

static enum secpool_error add_place(struct secpool *pool, struct secpool_region *region,
	struct placement *placement, const struct msg_extents *rows, uint32_t row)
{
	uint64_t lane = rows->lane[row] & ~MSG_LANE_TARGET, end_in_region;
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
	if (rows->lane[row] & MSG_LANE_TARGET)
		return add_target(region, placement, (unsigned)lane, &place);
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
	struct secpool *pool, struct secpool_region *region, struct placement **ret_placement)
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
