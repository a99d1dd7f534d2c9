/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/move.h"

#include "lib/base/clock.h"
#include "lib/erasure.h"
#include "lib/loss.h"
#include "lib/mirror.h"
#include "lib/places.h"
#include "lib/rebuild.h"
#include "lib/region.h"
#include "lib/service.h"

/* Units copied in one piece: the service has other things to do between. How long until a page that somebody has is looked at again, and until keymgrd is asked again. */
enum { PIECE_UNITS = 32 };
#define LATER_NS (1ull * 1000000)
#define ASK_NS	 (500ull * 1000000)

/* Asks for targets, and takes them. shifts: the device is not draining. False: not now. */
static bool begin(struct secpool *pool, struct secpool_region *region, const struct device *device,
	bool shifts)
{
	struct msg request = {.type = MSG_REGION_MOVE};
	bool told = region->move.lacks_room;
	enum secpool_error error;

	request.u.region_move.region = region->id;
	request.u.region_move.slot = device->slot;
	error = keyclient_call(&pool->service->client, &request, MSG_REPLY, NULL);
	region->move = (struct move){.from = device,
		.began_ns = clock_now_ns(),
		.lacks_room = error == SECPOOL_E_NO_SPACE && !shifts,
		.bytes_per_second =
			shifts ? region->shift.bytes_per_second
			       : pool->service->client.session.rebuild_bytes_per_second};
	region->shift.slot = 0; /* keymgrd says it again if it stays so */
	if (region->move.lacks_room && !told)
		loss_tell_no_room(pool, region, device);
	/* busy: it is not drained any more, or the end of a move was lost with a keymgrd that was killed */
	if (!error || error == SECPOOL_E_BUSY) {
		enum secpool_error read = region_read_places(pool, region);
		error = error ? error : read;
	}
	if (error) {
		region->move.from = NULL;
		region->move.due_ns = clock_now_ns() + ASK_NS;
	}
	return !error;
}

/* The first target that is not wholly copied; NULL: all are. */
static struct target *next_target(const struct placement *placement, unsigned lanes)
{
	for (unsigned lane = 0; lane < lanes; lane++)
		for (unsigned i = 0; i < placement->target_count[lane]; i++) {
			struct target *target = placement->targets[lane][i];
			if (atomic_load(&target->moved) < target->bytes)
				return target;
		}
	return NULL;
}

static void tell_progress(struct secpool *pool, struct secpool_region *region, bool ended)
{
	const struct placement *placement = atomic_load(&region->placement);
	uint64_t done = 0, all = 0;

	for (unsigned lane = 0; lane < region->lanes; lane++)
		for (unsigned i = 0; i < placement->target_count[lane]; i++) {
			done += atomic_load(&placement->targets[lane][i]->moved);
			all += placement->targets[lane][i]->bytes;
		}
	rebuild_tell(pool, region, MSG_PROGRESS_REBUILD, done, all, ended);
}

/* Nobody uses the old places any more: the targets are the places. */
static void end(struct secpool *pool, struct secpool_region *region)
{
	struct msg request = {.type = MSG_REGION_MOVED};
	enum secpool_error error;

	tell_progress(pool, region, true);
	workers_await(pool);
	request.u.region_moved.region = region->id;
	request.u.region_moved.slot = region->move.from->slot;
	error = keyclient_call(&pool->service->client, &request, MSG_REPLY, NULL);
	if (!error ||
		error ==
			SECPOOL_E_BUSY) /* a part has no target, since its device was lost: it is asked for again */
		error = region_read_places(pool, region);
	region->move.from = NULL;
	region->move.due_ns = error ? clock_now_ns() + ASK_NS : 0;
	rebuild_start(region); /* what could not be copied is had from the others */
}

/* Copies one unit to the target. False: somebody has it. */
static bool move_unit(struct worker *worker, struct secpool_region *region, struct target *target)
{
	uint64_t number =
		(target->region_offset + atomic_load(&target->moved)) / region->page_bytes;

	if (number >= (region->data > 1 ? region->stripe_count : region->page_count)) {
		atomic_store(&target->moved, target->bytes); /* what rounding added */
		return true;
	}
	return region->data > 1 ? erasure_move(worker, region, number, target)
				: mirror_move(worker, region, number, target);
}

static uint64_t next_allowed(const struct move *move)
{
	return rebuild_allowed_ns(move->began_ns, move->bytes, move->bytes_per_second);
}

/* A piece of the move. Returns when to go on. */
static uint64_t go_on(struct secpool *pool, struct secpool_region *region)
{
	uint64_t due = next_allowed(&region->move);

	for (unsigned i = 0; i < PIECE_UNITS && clock_now_ns() >= due; i++) {
		struct target *target = next_target(atomic_load(&region->placement), region->lanes);
		if (!target) {
			end(pool, region);
			return clock_now_ns();
		}
		/* where it goes is gone, or what it comes from: the service handles that first */
		if (!device_usable(target->device) || !device_usable(region->move.from)) {
			service_look(pool->service);
			return clock_now_ns() + LATER_NS;
		}
		if (!move_unit(pool_service_worker(pool), region, target))
			return clock_now_ns() + LATER_NS;
		region->move.bytes += region->page_bytes;
		due = next_allowed(&region->move);
	}
	tell_progress(pool, region, false);
	return due;
}

static bool is_to_leave(const struct secpool_region *region, const struct device *device)
{
	return atomic_load(&device->draining) || device->slot == region->shift.slot;
}

static uint64_t move_region(struct secpool *pool, struct secpool_region *region)
{
	struct device *d;

	/* a loss may have ended it */
	if (region->move.from && !places_on(atomic_load(&region->placement), region->move.from))
		region->move.from = NULL;
	if (region->move.from)
		return go_on(pool, region);
	for (d = atomic_load(&pool->devices); d; d = d->older)
		if (device_usable(d) && is_to_leave(region, d) &&
			places_on(atomic_load(&region->placement), d))
			break;
	if (!d)
		return 0;
	if (clock_now_ns() < region->move.due_ns ||
		!begin(pool, region, d, !atomic_load(&d->draining)))
		return region->move.due_ns;
	return clock_now_ns();
}

void move_want(struct secpool *pool, const struct msg_region_shift *shift)
{
	for (unsigned slot = 0; slot < pool->region_slots; slot++) {
		struct secpool_region *region = pool->regions[slot];
		if (region && region->id == shift->region && !region->move.from)
			region->shift = (struct shift){shift->slot, shift->bytes_per_second};
	}
}

uint64_t move_some(struct secpool *pool)
{
	uint64_t due = 0;

	for (unsigned slot = 0; slot < pool->region_slots; slot++) {
		struct secpool_region *region = pool->regions[slot];
		uint64_t next;
		if (!region || atomic_load(&region->ended) || region_still(region) ||
			pool->service->client.fd < 0)
			continue;
		next = move_region(pool, region);
		due = due == 0 || (next != 0 && next < due) ? next : due;
	}
	return due;
}
