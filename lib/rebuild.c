/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/rebuild.h"

#include "lib/base/clock.h"
#include "lib/erasure.h"
#include "lib/evict.h"
#include "lib/fault.h"
#include "lib/mirror.h"
#include "lib/service.h"

/* Units looked at in one piece, and of them read or written: the service has other things to do between. */
enum { LOOK_UNITS = 4096, DO_UNITS = 32 };

/* How often keymgrd is told how far a rebuild is; when to try again what a worker has in hand; how long a patrol rests at most. */
#define TELL_NS	 (100ull * 1000000)
#define LATER_NS (1ull * 1000000)

enum outcome { NOTHING, DONE, LATER };

/* The unit of work: a page of a mirror, a stripe of a code. */
static uint64_t unit_count(const struct secpool_region *region)
{
	return region->data > 1 ? region->stripe_count : region->page_count;
}

static uint64_t unit_bytes(const struct secpool_region *region)
{
	return region->data * region->page_bytes;
}

static void start(struct walk *walk, bool checks)
{
	*walk = (struct walk){.active = true,
		.checks = checks || (walk->active && walk->checks),
		.began_ns = clock_now_ns()};
}

void rebuild_start(struct secpool_region *region)
{
	if (region->lanes > 1)
		start(&region->rebuild, false);
}

/* A clean page is written to all its places again: it becomes dirty, and is flushed here or when it is evicted. */
static enum outcome rewrite(
	struct worker *worker, struct secpool_region *region, uint64_t pgno, uint64_t seen)
{
	if (!page_step(&region->pages[pgno], &seen, PAGE_WRITE, 0, page_version(seen)))
		return LATER;
	worker_enter(worker);
	(void)!evict_flush_range(worker, region, pgno, pgno + 1, NULL);
	worker_leave(worker);
	return DONE;
}

static enum outcome do_page(
	struct worker *worker, struct secpool_region *region, uint64_t pgno, bool checks)
{
	struct page *page = &region->pages[pgno];
	uint64_t seen = atomic_load(&page->word);
	unsigned bad;

	if (page_busy(seen)) {
		/* it may end absent, with the copies that it had. Its owner may wait for us to find room: so not for long */
		fault_await_page(worker, page, seen);
		seen = atomic_load(&page->word);
		if (page_busy(seen))
			return LATER;
	}
	if (page_version(seen) == 0)
		return NOTHING;
	if (page_state(seen) == PAGE_ABSENT && checks)
		return mirror_rebuild(worker, region, pgno, seen, true) ? DONE : LATER;
	bad = page_state(seen) == PAGE_CLEAN && checks
		      ? mirror_resident_bad(worker, region, pgno, seen)
		      : 0;
	if (bad) {
		counter_add(worker, COUNTER_REPAIRS, bad);
		return rewrite(worker, region, pgno, atomic_load(&page->word));
	}
	if (!mirror_missing(region, pgno, page_copies(seen)))
		return checks && page_state(seen) == PAGE_CLEAN ? DONE : NOTHING;
	if (page_state(seen) == PAGE_ABSENT)
		return mirror_rebuild(worker, region, pgno, seen, false) ? DONE : LATER;
	if (page_state(seen) == PAGE_CLEAN)
		return rewrite(worker, region, pgno, seen);
	return NOTHING; /* dirty: who evicts it writes all copies */
}

static enum outcome do_unit(
	struct worker *worker, struct secpool_region *region, uint64_t number, bool checks)
{
	if (region->data > 1)
		return erasure_rebuild(worker, region, number, checks) ? DONE : NOTHING;
	return do_page(worker, region, number, checks);
}

uint64_t rebuild_allowed_ns(uint64_t began_ns, uint64_t bytes, uint64_t bytes_per_second)
{
	if (bytes_per_second == 0)
		return began_ns;
	return began_ns +
	       (uint64_t)((double)bytes / (double)bytes_per_second * (double)CLOCK_NS_PER_S);
}

/* A piece of a walk. Returns when to go on; at its end it is not active any more. */
static uint64_t go_on(struct secpool *pool, struct secpool_region *region, struct walk *walk,
	uint64_t bytes_per_second)
{
	struct worker *worker = pool_service_worker(pool);
	uint64_t now = clock_now_ns(),
		 due = rebuild_allowed_ns(walk->began_ns, walk->bytes, bytes_per_second);
	unsigned looked = 0, done = 0;

	while (due <= now && walk->next < unit_count(region)) {
		enum outcome outcome;
		if (looked++ >= LOOK_UNITS || done >= DO_UNITS)
			return now;
		outcome = do_unit(worker, region, walk->next, walk->checks);
		if (outcome == LATER)
			return now + LATER_NS;
		if (outcome == DONE) {
			done++;
			walk->bytes += unit_bytes(region);
			due = rebuild_allowed_ns(walk->began_ns, walk->bytes, bytes_per_second);
		}
		walk->next++;
	}
	walk->active = walk->next < unit_count(region);
	return due > now ? due : now;
}

void rebuild_tell(struct secpool *pool, struct secpool_region *region, enum msg_progress kind,
	uint64_t done_bytes, uint64_t all_bytes, bool ended)
{
	struct msg msg = {.type = MSG_REGION_PROGRESS};
	uint64_t now = clock_now_ns();

	if (!ended && now - region->told_ns[kind] < TELL_NS)
		return;
	region->told_ns[kind] = now;
	msg.u.region_progress.region = region->id;
	msg.u.region_progress.kind = kind;
	msg.u.region_progress.done_bytes = done_bytes;
	msg.u.region_progress.all_bytes = all_bytes;
	(void)!keyclient_send(
		&pool->service->client, &msg, NULL); /* who can't be told does not ask */
}

static uint64_t rebuild_region(struct secpool *pool, struct secpool_region *region)
{
	struct secpool_event event = {.type = SECPOOL_EVENT_REGION_WHOLE,
		.region = region,
		.range = {.offset = 0, .bytes = region->bytes}};
	uint64_t due = go_on(pool, region, &region->rebuild,
		pool->service->client.session.rebuild_bytes_per_second);

	rebuild_tell(pool, region, MSG_PROGRESS_REBUILD, region->rebuild.next * unit_bytes(region),
		unit_count(region) * unit_bytes(region), !region->rebuild.active);
	if (region->rebuild.active)
		return due;
	if (!region->lacks_places && !atomic_load(&region->check_wanted))
		events_add(&pool->events, &event);
	return 0;
}

/* Without end, as long as there is anything to read. */
static uint64_t patrol_region(struct secpool *pool, struct secpool_region *region)
{
	uint64_t rate = pool->service->client.session.patrol_bytes_per_second, due;

	if (rate == 0 || region->rebuild.active)
		return 0;
	if (!region->patrol.active) {
		/* one that found little to read rests as if it had read all */
		due = region->patrol.began_ns +
		      (uint64_t)((double)region->bytes / (double)rate * (double)CLOCK_NS_PER_S);
		if (region->patrol.began_ns != 0 && clock_now_ns() < due)
			return due;
		start(&region->patrol, true);
	}
	return go_on(pool, region, &region->patrol, rate);
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
	return a == 0 || (b != 0 && b < a) ? b : a;
}

uint64_t rebuild_some(struct secpool *pool)
{
	uint64_t due = 0;

	for (unsigned slot = 0; slot < pool->region_slots; slot++) {
		struct secpool_region *region = pool->regions[slot];
		if (!region || atomic_load(&region->ended) || region_still(region))
			continue;
		if (atomic_exchange(&region->check_wanted, false) && region->lanes > 1)
			start(&region->rebuild, true);
		if (region->rebuild.active)
			due = earlier(due, rebuild_region(pool, region));
		due = earlier(due, patrol_region(pool, region));
	}
	return due;
}
