/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/loss.h"

#include <string.h>

#include "lib/erasure.h"
#include "lib/evict.h"
#include "lib/base/clock.h"
#include "lib/fill.h"
#include "lib/places.h"
#include "lib/rebuild.h"
#include "lib/region.h"
#include "lib/service.h"

void loss_noticed(struct worker *worker)
{
	if (!atomic_exchange(&worker->pool->service->look, true))
		service_wake(worker);
}

void loss_check(struct worker *worker, struct secpool_region *region)
{
	if (!atomic_exchange(&region->check_wanted, true))
		service_wake(worker);
}

void loss_tell_bad(struct worker *worker, struct secpool_region *region, uint64_t pgno,
	const struct device *device, uint64_t at)
{
	struct secpool_event event = {
		.type = SECPOOL_EVENT_BAD_COPY,
		.cause = SECPOOL_CAUSE_INTEGRITY,
		.region = region,
		.range = {.offset = pgno * region->page_bytes, .bytes = region->page_bytes},
	};
	struct service_report report = {.type = MSG_DEVICE_REPORT};

	memcpy(event.device, device->id, sizeof event.device);
	report.u.device_report = (struct msg_device_report){
		.slot = device->slot,
		.media = device->media,
		.cause = MSG_CAUSE_TAG,
		.region = region->id,
		.offset = at,
		.bytes = region->page_bytes,
	};
	service_report(worker, &report);
	loss_tell(worker, &event);
	loss_check(worker, region);
}

void loss_tell(struct worker *worker, const struct secpool_event *event)
{
	struct secpool *pool = worker->pool;

	if (worker->guest) { /* the service's descriptors are not in the program's table */
		service_post(worker, event);
		return;
	}
	events_add(&pool->events, event);
	if (event->type == SECPOOL_EVENT_REGION_LOST) {
		struct service_report report = {.type = MSG_REGION_LOST};
		report.u.region_lost = (struct msg_region_lost){
			.region = event->region->id,
			.offset = event->range.offset,
			.bytes = event->range.bytes,
			.cause = event->cause == SECPOOL_CAUSE_INTEGRITY  ? MSG_CAUSE_TAG
				 : event->cause == SECPOOL_CAUSE_NO_SPACE ? MSG_CAUSE_NO_SPACE
									  : MSG_CAUSE_REMOVED,
		};
		for (struct device *d = atomic_load(&pool->devices); d; d = d->older)
			if (strcmp(d->id, event->device) == 0)
				report.u.region_lost.slot = d->slot;
		service_report(worker, &report);
	}
}

void loss_orphan(struct worker *worker, struct secpool_region *region, uint64_t pgno)
{
	struct page *page = &region->pages[pgno];
	uint64_t seen = atomic_load(&page->word);

	while (page_state(seen) == PAGE_ABSENT && page_version(seen) > 0 &&
		page_copies(seen) == 0) {
		if (!page_step(page, &seen, PAGE_COPIES_GONE, 0, page_version(seen)))
			continue;
		fill_lost(worker, region, pgno, SECPOOL_CAUSE_REMOVED, NULL);
		loss_noticed(worker);
		return;
	}
}

/* Lost pages that lie side by side are poisoned and told of together. */
struct lost_run {
	struct secpool_region *region;
	const struct device *device;
	uint64_t first, count;
};

static void end_run(struct lost_run *run)
{
	struct secpool_region *region = run->region;
	struct secpool_event event = {
		.type = SECPOOL_EVENT_REGION_LOST,
		.cause = SECPOOL_CAUSE_REMOVED,
		.region = region,
		.range = {.offset = run->first * region->page_bytes,
			.bytes = run->count * region->page_bytes},
	};

	if (run->count == 0)
		return;
	memcpy(event.device, run->device->id, sizeof event.device);
	atomic_fetch_add(&region->lost_pages, run->count);
	if (!region->refill) /* a page that was not poisoned is when it is asked for: fault_serve */
		(void)!uffd_poison(&region->pool->uffd, region->address + event.range.offset,
			event.range.bytes);
	loss_tell(pool_service_worker(region->pool), &event);
	run->count = 0;
}

/* One page more that is lost. */
static void add_lost(void *arg, uint64_t pgno)
{
	struct lost_run *run = arg;

	if (run->count > 0 && run->first + run->count != pgno)
		end_run(run);
	if (run->count++ == 0)
		run->first = pgno;
}

/* Strikes a part of a lane, in cells, from the words of its pages or stripes. */
static void strike_cells(struct lost_run *run, unsigned lane, uint64_t first, uint64_t end)
{
	struct secpool_region *region = run->region;

	if (region->data > 1) {
		erasure_strike(
			pool_service_worker(region->pool), region, lane, first, end, add_lost, run);
		return;
	}
	for (uint64_t pgno = first; pgno < end && pgno < region->page_count; pgno++)
		if (page_drop_copies(&region->pages[pgno], 1u << lane))
			add_lost(run, pgno);
}

static void strike_bytes(struct lost_run *run, unsigned lane, uint64_t first, uint64_t end)
{
	if (first < end)
		strike_cells(
			run, lane, first / run->region->page_bytes, end / run->region->page_bytes);
}

/* Of a place that is moved, only what was not moved yet. */
static void strike_place(struct lost_run *run, const struct placement *placement, unsigned lane,
	const struct place *place)
{
	uint64_t from = place->region_offset, end = place->region_offset + place->bytes;

	for (unsigned i = 0; i < placement->target_count[lane]; i++) {
		const struct target *target = placement->targets[lane][i];
		if (target->region_offset < from || target->region_offset >= end)
			continue;
		strike_bytes(run, lane, from, target->region_offset);
		from = target->region_offset + atomic_load(&target->moved);
	}
	strike_bytes(run, lane, from, end);
}

/* Strikes what a region has on the device. Returns whether it had any place or target there. */
static bool strike(struct secpool_region *region, const struct device *device)
{
	const struct placement *placement = atomic_load(&region->placement);
	struct lost_run run = {.region = region, .device = device};
	bool any = false;

	for (unsigned lane = 0; lane < region->lanes; lane++) {
		for (unsigned i = 0; i < placement->count[lane]; i++) {
			if (placement->places[lane][i].device != device)
				continue;
			any = true;
			strike_place(&run, placement, lane, &placement->places[lane][i]);
		}
		for (unsigned i = 0; i < placement->target_count[lane]; i++) {
			const struct target *target = placement->targets[lane][i];
			if (target->device != device)
				continue;
			any = true;
			strike_bytes(&run, lane, target->region_offset,
				target->region_offset + atomic_load(&target->moved));
		}
	}
	end_run(&run);
	return any;
}

static bool is_place(const struct placement *placement, const struct target *target)
{
	struct device *device;
	uint64_t at;

	return places_find(placement, target->lane, target->region_offset, &device, &at) &&
	       device == target->device && at == target->offset;
}

void loss_strike_targets(struct secpool_region *region, const struct placement *next)
{
	const struct placement *placement = atomic_load(&region->placement);

	for (unsigned lane = 0; placement && lane < region->lanes; lane++) {
		for (unsigned i = 0; i < placement->target_count[lane]; i++) {
			struct target *target = placement->targets[lane][i];
			struct lost_run run = {.region = region, .device = target->device};
			uint64_t start = target->region_offset, end = start + target->bytes;
			uint64_t moved = start + atomic_load(&target->moved);
			if (places_target(next, lane, start) == target)
				continue;
			target->ended = true;
			strike_bytes(&run, lane, is_place(next, target) ? moved : start,
				is_place(next, target) ? end : moved);
			end_run(&run);
		}
	}
}

void loss_strike_gone(struct secpool_region *region)
{
	if (!atomic_load(&region->placement))
		return; /* a new region has no pages yet */
	for (struct device *d = atomic_load(&region->pool->devices); d; d = d->older)
		if (!device_usable(d))
			strike(region, d);
}

/* After keymgrd gave a region space, or could not: what it has now is used. Returns whether it has more than before. */
static bool take_places(struct secpool *pool, struct secpool_region *region)
{
	uint64_t before = places_bytes(atomic_load(&region->placement)), after;

	if (region_read_places(pool, region) != SECPOOL_OK)
		return false;
	after = places_bytes(atomic_load(&region->placement));
	region->lacks_places = !places_whole(region, atomic_load(&region->placement)) ||
			       !places_there(atomic_load(&region->placement));
	if (!region->lacks_places || after != before)
		rebuild_start(region);
	return after > before;
}

void loss_tell_no_room(
	struct secpool *pool, struct secpool_region *region, const struct device *device)
{
	struct secpool_event event = {.type = SECPOOL_EVENT_NO_SPACE,
		.cause = SECPOOL_CAUSE_NO_SPACE,
		.region = region,
		.range = {.offset = 0, .bytes = region->bytes}};

	memcpy(event.device, device->id, sizeof event.device);
	events_add(&pool->events, &event);
}

/* Asks keymgrd for other space for what the region had on the device, and takes the new places over. */
static void replace(struct secpool *pool, struct secpool_region *region, struct device *device)
{
	struct msg request = {.type = MSG_REGION_REPLACE};
	enum secpool_error error;

	if (region_still(region))
		return; /* what is left serves */
	request.u.region_replace.region = region->id;
	request.u.region_replace.slot = device->slot;
	error = keyclient_call(&pool->service->client, &request, MSG_REPLY, NULL);
	if (error == SECPOOL_E_NO_SPACE)
		loss_tell_no_room(pool, region, device);
	/* on other errors keymgrd is gone: loss_resume asks again when it is back; the old places are known to be gone */
	if (!error || error == SECPOOL_E_NO_SPACE)
		(void)take_places(pool, region);
	/*
	 * Busy: either keymgrd replaced it before it was killed and we never read that (the slot has other media now), or it holds the device for whole; then until it
	 * sees it too, loss_scan.
	 */
	if (error == SECPOOL_E_BUSY && !take_places(pool, region))
		device->unreplaced = true;
}

/* How often keymgrd is asked for places that it did not have. */
#define FILL_RETRY_NS (250ull * 1000000)

uint64_t loss_fill(struct secpool *pool)
{
	struct service *service = pool->service;
	bool lacking = false;

	for (unsigned slot = 0; slot < pool->region_slots; slot++) {
		struct secpool_region *region = pool->regions[slot];
		struct msg request = {.type = MSG_REGION_FILL};
		enum secpool_error error;
		if (!region || atomic_load(&region->ended))
			continue;
		lacking = lacking || (region->lacks_places && !region_still(region)) ||
			  atomic_load(&region->barred_pages) > 0;
		if (clock_now_ns() < service->fill_ns)
			continue;
		if (atomic_load(&region->barred_pages) > 0)
			fill_unbar(pool_service_worker(pool), region);
		if (!region->lacks_places || region_still(region) || service->client.fd < 0)
			continue;
		request.u.region_fill.region = region->id;
		error = keyclient_call(&service->client, &request, MSG_REPLY, NULL);
		if (!error || error == SECPOOL_E_NO_SPACE)
			(void)take_places(pool, region);
	}
	if (lacking && clock_now_ns() >= service->fill_ns)
		service->fill_ns = clock_now_ns() + FILL_RETRY_NS;
	return lacking ? service->fill_ns : 0;
}

/* What is resident and has no copy in the pool is written to where the region has space now. */
static void save_resident(struct secpool *pool, struct secpool_region *region)
{
	struct worker *worker = pool_service_worker(pool);

	for (uint64_t pgno = 0; pgno < region->page_count; pgno += EVICT_FLUSH_PAGES) {
		uint64_t end = pgno + EVICT_FLUSH_PAGES;
		enum secpool_error error;
		if (end > region->page_count)
			end = region->page_count;
		worker_enter(worker);
		error = evict_flush_range(worker, region, pgno, end, NULL);
		worker_leave(worker);
		if (error == SECPOOL_E_NO_SPACE)
			return; /* they stay resident */
	}
}

static void report_device(struct secpool *pool, const struct device *device)
{
	struct msg msg = {.type = MSG_DEVICE_REPORT};

	msg.u.device_report.slot = device->slot;
	msg.u.device_report.media = device->media;
	msg.u.device_report.cause = atomic_load(&device->cause);
	(void)!keyclient_send(&pool->service->client, &msg, NULL);
}

/* Other space for what the regions had there, and into it what is resident and now has no copy. */
static void make_up(
	struct secpool *pool, struct device *device, const bool affected[POOL_REGIONS_MOST])
{
	for (unsigned slot = 0; slot < POOL_REGIONS_MOST; slot++)
		if (affected[slot])
			replace(pool, pool->regions[slot], device);
	for (unsigned slot = 0; slot < POOL_REGIONS_MOST; slot++)
		if (affected[slot] && pool->regions[slot]->lanes == 1 &&
			!region_still(pool->regions[slot]))
			save_resident(pool, pool->regions[slot]);
}

static void handle_loss(struct secpool *pool, struct device *device)
{
	struct secpool_event event = {.type = SECPOOL_EVENT_DEVICE_LOST,
		.cause = atomic_load(&device->cause) == MSG_CAUSE_STUCK ? SECPOOL_CAUSE_STUCK
									: SECPOOL_CAUSE_REMOVED};
	bool affected[POOL_REGIONS_MOST] = {false};

	memcpy(event.device, device->id, sizeof event.device);
	events_add(&pool->events, &event);
	report_device(pool, device);
	for (unsigned slot = 0; slot < POOL_REGIONS_MOST; slot++) {
		struct secpool_region *region = pool->regions[slot];
		affected[slot] = region && strike(region, device);
		if (affected[slot] && region->lanes > 1) {
			event.type = SECPOOL_EVENT_REGION_FAILOVER;
			event.region = region;
			events_add(&pool->events, &event);
		}
	}
	make_up(pool, device, affected);
}

static bool has_place_on(const struct secpool_region *region, const struct device *device)
{
	const struct placement *placement = atomic_load(&region->placement);

	return places_on(placement, device) || places_target_on(placement, device);
}

static void find_affected(
	struct secpool *pool, const struct device *device, bool affected[POOL_REGIONS_MOST])
{
	for (unsigned slot = 0; slot < POOL_REGIONS_MOST; slot++) {
		const struct secpool_region *region = pool->regions[slot];
		affected[slot] = region && has_place_on(region, device);
	}
}

/* We found it gone before keymgrd did, which has found it now. */
static void make_up_late(struct secpool *pool, struct device *device)
{
	bool affected[POOL_REGIONS_MOST];

	device->unreplaced = false;
	device->retry = false;
	find_affected(pool, device, affected);
	make_up(pool, device, affected);
}

/* It was late for us alone, and answers again: what the regions have there is used again. Nothing in it is believed, for its copies were struck; it is written anew. */
static void come_back(struct secpool *pool, struct device *device)
{
	bool affected[POOL_REGIONS_MOST];

	device->unreplaced = false;
	find_affected(pool, device, affected);
	if (service_take_again(pool, device) != SECPOOL_OK)
		return;
	for (unsigned slot = 0; slot < POOL_REGIONS_MOST; slot++)
		if (affected[slot] && !region_still(pool->regions[slot]))
			(void)take_places(pool, pool->regions[slot]);
	for (unsigned slot = 0; slot < POOL_REGIONS_MOST; slot++)
		if (affected[slot] && pool->regions[slot]->lanes == 1 &&
			!region_still(pool->regions[slot]))
			save_resident(pool, pool->regions[slot]);
}

void loss_scan(struct secpool *pool)
{
	for (struct device *d = atomic_load(&pool->devices); d; d = d->older) {
		if (device_usable(d))
			continue;
		if (!d->handled) {
			d->handled = true;
			handle_loss(pool, d);
		} else if (d->unreplaced && d->retry) {
			make_up_late(pool, d);
		} else if (d->unreplaced && d->back) {
			come_back(pool, d);
		}
	}
}

void loss_resume(struct secpool *pool, struct secpool_region *region)
{
	for (struct device *d = atomic_load(&pool->devices); d; d = d->older)
		if (!device_usable(d) && has_place_on(region, d))
			replace(pool, region, d);
	if (region->all_targets) /* keymgrd may have taken the end of a move before it was killed */
		(void)take_places(pool, region);
}
