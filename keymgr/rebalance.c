/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/rebalance.h"

#include <stdlib.h>

#include "keymgr/events.h"
#include "keymgr/regions.h"
#include "keymgr/server.h"
#include "keymgr/session.h"
#include "lib/base/clock.h"
#include "policy/policy.h"

enum { NS_PER_US = 1000, PERCENT = 100 };
/* A program that does not begin, or go on, for so long is passed over: it may be stopped. */
#define PATIENCE_NS (30 * CLOCK_NS_PER_S)
/* Shares of a device that are tried for one look; regions that are passed over in the middle of their move. */
enum { SHARES_MOST = 64, STALLED_MOST = 64 };

/* A region that has targets, and how far it was when its program did not go on. */
struct stalled {
	uint64_t region; /* 0: a free place */
	uint64_t done;
};

struct rebalance {
	struct daemon *daemon;
	sd_event_source *timer;
	uint64_t region, slot; /* what is under way; region 0: nothing */
	uint64_t heard_ns;     /* when it began, or its program told of progress */
	uint64_t done;	       /* what it told last */
	uint64_t last;	       /* the region that was tried last: the next ones have their turn */
	struct stalled stalled[STALLED_MOST];
	unsigned next_stalled; /* the place that is used next: one more drops the oldest */
};

/* ---- the choice ---- */

static double fill_of(uint64_t used, uint64_t bytes)
{
	return bytes > 0 ? (double)used / (double)bytes : 1;
}

bool rebalance_choose(const struct rebalance_device *devices, size_t count, uint32_t percent,
	size_t *ret_from, size_t *ret_to)
{
	double most = (double)percent / PERCENT;
	bool any = false;

	for (size_t i = 0; i < count; i++)
		for (size_t j = 0; j < count; j++) {
			double apart = fill_of(devices[i].used, devices[i].bytes) -
				       fill_of(devices[j].used, devices[j].bytes);

			if (devices[j].tier > devices[i].tier || apart <= most)
				continue;
			any = true;
			most = apart;
			*ret_from = i;
			*ret_to = j;
		}
	return any;
}

bool rebalance_fits(
	const struct rebalance_device *from, const struct rebalance_device *to, uint64_t bytes)
{
	return bytes <= from->used &&
	       fill_of(to->used + bytes, to->bytes) <= fill_of(from->used - bytes, from->bytes);
}

/* ---- the devices ---- */

static enum secpool_error read_devices(struct daemon *daemon, const struct extents_device *usable,
	size_t count, struct rebalance_device *devices)
{
	for (size_t i = 0; i < count; i++) {
		const struct devices_row *row = devices_at(daemon->devices, usable[i].slot);
		struct extents_use use = {0};
		enum secpool_error error =
			extents_count_use(daemon->directory, usable[i].slot, &use);

		if (error)
			return error;
		devices[i] = (struct rebalance_device){.slot = usable[i].slot,
			.used = use.used,
			.bytes = row->bytes,
			.tier = usable[i].tier};
	}
	return SECPOOL_OK;
}

enum secpool_error rebalance_narrow(
	struct daemon *daemon, uint64_t slot, struct extents_device *usable, size_t *count)
{
	static struct rebalance_device devices[DEVICES_MOST];
	const struct rebalance_device *from = NULL;
	size_t kept = 0;
	enum secpool_error error = read_devices(daemon, usable, *count, devices);

	if (error)
		return error;
	for (size_t i = 0; i < *count; i++)
		if (devices[i].slot == slot)
			from = &devices[i];
	for (size_t i = 0; i < *count; i++)
		if (from && devices[i].slot != slot && devices[i].tier <= from->tier &&
			fill_of(devices[i].used, devices[i].bytes) <
				fill_of(from->used, from->bytes))
			usable[kept++] = usable[i];
	*count = kept;
	return SECPOOL_OK;
}

/* ---- what is under way ---- */

bool rebalance_is_under_way(const struct rebalance *rebalance, uint64_t region, uint64_t slot)
{
	return rebalance && region != 0 && rebalance->region == region && rebalance->slot == slot;
}

static enum secpool_error count_extents(struct daemon *daemon, uint64_t region, uint64_t slot,
	enum extents_state state, uint64_t *ret_count)
{
	return directory_number(daemon->directory,
		"SELECT COUNT(*) FROM extents WHERE region = ?1 AND state = ?3"
		" AND (slot = ?2 OR ?2 = 0)",
		DIRECTORY_VALUES(DIRECTORY_N(region), DIRECTORY_N(slot), DIRECTORY_N(state)),
		ret_count);
}

/* How far the program says that it is. */
static uint64_t told_of(const struct rebalance *rebalance, uint64_t region)
{
	uint64_t done, all;

	session_walk_of(rebalance->daemon->sessions, region, MSG_PROGRESS_REBUILD, &done, &all);
	return done;
}

static void set_under_way(struct rebalance *rebalance, uint64_t region, uint64_t slot)
{
	rebalance->region = region;
	rebalance->slot = slot;
	rebalance->heard_ns = clock_now_ns();
	rebalance->done = told_of(rebalance, region);
}

/* Its targets stay, and it may end its move by itself; others come first until its program goes on. */
static void pass_over(struct rebalance *rebalance)
{
	struct events_about about = {.region = rebalance->region};

	rebalance->stalled[rebalance->next_stalled++ % STALLED_MOST] =
		(struct stalled){rebalance->region, rebalance->done};
	events_record(rebalance->daemon, "rebalancing-stalled", &about,
		"its program did not go on for %llu s: others come first",
		(unsigned long long)(PATIENCE_NS / CLOCK_NS_PER_S));
}

/* Until it is somewhere else than when it was passed over. */
static bool is_passed_over(struct rebalance *rebalance, uint64_t region)
{
	for (size_t i = 0; i < STALLED_MOST; i++) {
		if (rebalance->stalled[i].region != region)
			continue;
		if (rebalance->stalled[i].done == told_of(rebalance, region))
			return true;
		rebalance->stalled[i].region = 0;
	}
	return false;
}

static bool is_draining(const struct daemon *daemon)
{
	for (size_t i = 0; i < daemon->devices->count; i++)
		if (daemon->devices->rows[i]->state == MSG_DEVICE_DRAINING)
			return true;
	return false;
}

/* A region that has targets though nothing of it is on a draining device: an earlier keymgrd began it, or what it moved to was lost in the middle. */
static enum secpool_error adopt(struct rebalance *rebalance)
{
	static const char sql[] =
		"SELECT t.region, e.slot FROM extents t JOIN extents e ON e.region = t.region"
		" AND e.lane = t.lane AND e.state = ?2 AND e.region_offset < t.region_offset + "
		"t.bytes"
		" AND e.region_offset + e.bytes > t.region_offset WHERE t.state = ?1";
	struct daemon *daemon = rebalance->daemon;
	struct directory_rows *rows = NULL;
	uint64_t targets = 0;
	enum secpool_error error = directory_number(daemon->directory,
		"SELECT IFNULL(SUM(extents), 0) FROM space WHERE state = ?1",
		DIRECTORY_VALUES(DIRECTORY_N(EXTENTS_TARGET)), &targets);

	/* all extents are read for it, so not for those of a drain */
	if (error || targets == 0 || is_draining(daemon))
		return error;
	error = directory_query(daemon->directory, sql,
		DIRECTORY_VALUES(DIRECTORY_N(EXTENTS_TARGET), DIRECTORY_N(EXTENTS_IN_USE)), &rows);
	while (!error && rebalance->region == 0 && directory_next(rows, &error)) {
		const struct devices_row *device =
			devices_at(daemon->devices, directory_get_number(rows, 1));

		/* one that was not heard of yet may be draining: that goes by itself */
		if (!device || device->state != MSG_DEVICE_ONLINE ||
			is_passed_over(rebalance, directory_get_number(rows, 0)))
			continue;
		set_under_way(rebalance, directory_get_number(rows, 0), device->slot);
	}
	directory_done(rows);
	return error;
}

static void tell(struct rebalance *rebalance, const struct regions_row *region)
{
	struct msg msg = {.type = MSG_REGION_SHIFT};
	struct server_connection *connection = server_first(rebalance->daemon->server);

	msg.u.region_shift.region = region->id;
	msg.u.region_shift.slot = rebalance->slot;
	msg.u.region_shift.bytes_per_second =
		policy_settings(rebalance->daemon->policy)->rebalance_bytes_per_second;
	for (; connection; connection = connection->next)
		if (session_owns(connection, region))
			server_send(connection, &msg, -1);
}

/* Looks how far it is. Afterwards nothing is under way if it is over. */
static enum secpool_error go_on(struct rebalance *rebalance)
{
	struct daemon *daemon = rebalance->daemon;
	const struct devices_row *device = devices_at(daemon->devices, rebalance->slot);
	uint64_t there = 0, targets = 0;
	struct regions_row region = {.id = 0};
	enum secpool_error error = regions_find(daemon->directory, rebalance->region, &region);

	if (error && error != SECPOOL_E_NOT_FOUND)
		return error;
	if (!error && region.state == MSG_REGION_LIVE)
		error = count_extents(daemon, region.id, rebalance->slot, EXTENTS_IN_USE, &there);
	if (!error)
		error = count_extents(daemon, region.id, 0, EXTENTS_TARGET, &targets);
	if (error && error != SECPOOL_E_NOT_FOUND)
		return error;
	if (told_of(rebalance, rebalance->region) != rebalance->done)
		set_under_way(rebalance, rebalance->region, rebalance->slot);
	/* it is done, or its region or device has other troubles */
	if (there == 0 || !device || device->state != MSG_DEVICE_ONLINE) {
		rebalance->region = 0;
	} else if (clock_now_ns() - rebalance->heard_ns > PATIENCE_NS) {
		if (targets > 0)
			pass_over(rebalance);
		rebalance->region = 0;
	} else {
		tell(rebalance, &region);
	}
	return SECPOOL_OK;
}

/* Whether there is space for it there, by the rules: tried, and taken back. */
static enum secpool_error has_space(
	struct daemon *daemon, uint64_t region, uint64_t slot, const struct extents_device *to)
{
	enum secpool_error error = directory_begin(daemon->directory), moved;

	if (error)
		return error;
	moved = extents_move(daemon->directory, region, slot, to, 1);
	/* an error takes the change back */
	error = directory_finish(daemon->directory, moved ? moved : SECPOOL_E_CLOSED);
	return error == SECPOOL_E_CLOSED && !moved ? SECPOOL_OK : error;
}

static void begin(struct rebalance *rebalance, const struct regions_row *region,
	const struct rebalance_device *from, const struct rebalance_device *to, uint64_t bytes)
{
	struct daemon *daemon = rebalance->daemon;
	const struct devices_row *device = devices_at(daemon->devices, from->slot);
	struct events_about about = {.device = device->id,
		.tenant = region->tenant,
		.region = region->id,
		.bytes = bytes};

	set_under_way(rebalance, region->id, from->slot);
	events_record(daemon, "rebalancing", &about,
		"what it has there moves: %u %% of the device are in use, and %u %% of %s",
		(unsigned)(PERCENT * fill_of(from->used, from->bytes)),
		(unsigned)(PERCENT * fill_of(to->used, to->bytes)),
		devices_at(daemon->devices, to->slot)->id);
	tell(rebalance, region);
}

struct share {
	uint64_t region, bytes;
};

/* Shares of the device, those of regions after the one that was tried last first. */
static enum secpool_error read_shares(const struct rebalance *rebalance, uint64_t slot,
	struct share shares[SHARES_MOST], size_t *ret_count)
{
	static const char sql[] =
		"SELECT region, SUM(bytes) FROM extents WHERE slot = ?1 AND state = ?2"
		" GROUP BY region ORDER BY region <= ?3, region LIMIT ?4";
	struct directory_rows *rows = NULL;
	size_t count = 0;
	enum secpool_error error = directory_query(rebalance->daemon->directory, sql,
		DIRECTORY_VALUES(DIRECTORY_N(slot), DIRECTORY_N(EXTENTS_IN_USE),
			DIRECTORY_N(rebalance->last), DIRECTORY_N(SHARES_MOST)),
		&rows);

	while (!error && count < SHARES_MOST && directory_next(rows, &error)) {
		shares[count].region = directory_get_number(rows, 0);
		shares[count++].bytes = directory_get_number(rows, 1);
	}
	directory_done(rows);
	if (!error)
		*ret_count = count;
	return error;
}

static enum secpool_error pick_share(struct rebalance *rebalance,
	const struct rebalance_device *from, const struct rebalance_device *to,
	const struct extents_device *to_place)
{
	struct share shares[SHARES_MOST];
	struct daemon *daemon = rebalance->daemon;
	size_t count = 0;
	enum secpool_error error = read_shares(rebalance, from->slot, shares, &count);

	for (size_t i = 0; i < count && !error && rebalance->region == 0; i++) {
		struct regions_row region;
		uint64_t targets = 0;

		rebalance->last = shares[i].region;
		if (!rebalance_fits(from, to, shares[i].bytes))
			continue;
		error = regions_find(daemon->directory, shares[i].region, &region);
		if (!error)
			error = count_extents(daemon, region.id, 0, EXTENTS_TARGET, &targets);
		/* one that moves already was passed over */
		if (error || region.state != MSG_REGION_LIVE || targets > 0)
			continue;
		error = has_space(daemon, region.id, from->slot, to_place);
		if (!error)
			begin(rebalance, &region, from, to, shares[i].bytes);
		else if (error == SECPOOL_E_NO_SPACE)
			error = SECPOOL_OK;
	}
	return error;
}

/* The emptiest may be of no use for what the fullest has: then the next one is tried. */
static enum secpool_error pick(struct rebalance *rebalance)
{
	static struct extents_device usable[DEVICES_MOST];
	static struct rebalance_device devices[DEVICES_MOST];
	struct daemon *daemon = rebalance->daemon;
	uint32_t percent = policy_settings(daemon->policy)->rebalance_percent;
	size_t count = 0, from, to;
	enum secpool_error error = devices_usable(daemon, usable, &count);

	if (!error)
		error = read_devices(daemon, usable, count, devices);
	while (!error && rebalance->region == 0 &&
		rebalance_choose(devices, count, percent, &from, &to)) {
		error = pick_share(rebalance, &devices[from], &devices[to], &usable[to]);
		devices[to] = devices[--count];
		usable[to] = usable[count];
	}
	return error;
}

enum secpool_error rebalance_look(struct rebalance *rebalance, uint64_t *ret_next_ns)
{
	uint64_t next_ns = REBALANCE_LOOK_NS;
	enum secpool_error error = SECPOOL_OK;

	if (rebalance->region == 0)
		error = adopt(rebalance);
	if (!error && rebalance->region != 0)
		error = go_on(rebalance);
	if (!error && rebalance->region == 0) {
		error = pick(rebalance);
		next_ns = rebalance->region == 0 ? REBALANCE_REST_NS : REBALANCE_LOOK_NS;
	}
	if (!error)
		*ret_next_ns = next_ns;
	return error;
}

static int on_look(sd_event_source *source, uint64_t usec, void *arg)
{
	struct rebalance *rebalance = arg;
	uint64_t next_ns = 0;
	enum secpool_error error = rebalance_look(rebalance, &next_ns);

	(void)usec;
	if (!error && (sd_event_source_set_time_relative(source, next_ns / NS_PER_US) < 0 ||
			      sd_event_source_set_enabled(source, SD_EVENT_ONESHOT) < 0))
		error = err_set(SECPOOL_E_SYSTEM, "rebalancing: the loop refused a timer");
	if (error)
		daemon_fail(rebalance->daemon, "rebalancing-failed", error);
	return 0;
}

enum secpool_error rebalance_new(struct daemon *daemon, struct rebalance **ret_rebalance)
{
	struct rebalance *rebalance = NULL;

	if (policy_settings(daemon->policy)->rebalance_bytes_per_second > 0) {
		rebalance = calloc(1, sizeof *rebalance);
		if (!rebalance)
			return err_set(SECPOOL_E_NO_MEMORY, "rebalancing: out of memory");
		rebalance->daemon = daemon;
		if (sd_event_add_time_relative(daemon->loop, &rebalance->timer, CLOCK_MONOTONIC,
			    REBALANCE_LOOK_NS / NS_PER_US, 0, on_look, rebalance) < 0) {
			free(rebalance);
			return err_set(SECPOOL_E_SYSTEM, "rebalancing: the loop refused a timer");
		}
	}
	*ret_rebalance = rebalance;
	return SECPOOL_OK;
}

void rebalance_free(struct rebalance *rebalance)
{
	if (!rebalance)
		return;
	sd_event_source_disable_unref(rebalance->timer);
	free(rebalance);
}
