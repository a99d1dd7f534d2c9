/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/endings.h"

#include <stdlib.h>

#include "keymgr/auditlog.h"
#include "keymgr/directory.h"
#include "keymgr/dispatch.h"
#include "keymgr/regionkeys.h"
#include "keymgr/regions.h"
#include "keymgr/releases.h"
#include "keymgr/seals.h"
#include "keymgr/turns.h"
#include "keymgr/wraps.h"
#include "lib/base/clock.h"

/* After an audit that could not be appended to: the ends that nobody asked for are tried again. */
#define RETRY_NS CLOCK_NS_PER_S

enum { BATCH = 64 };

struct waiting {
	struct waiting *next;
	struct ending ending;
};

/* One of the batch. */
struct row {
	struct ending ending;
	struct regions_row region; /* id 0: it has ended already */
	struct msg_enc_key_destroyed end;
	enum secpool_error refused; /* its record can't be kept: it goes on */
	char reason[ERR_DETAIL_BYTES];
};

struct endings {
	struct daemon *daemon;
	sd_event_source *source, *retry;
	struct waiting *first, **last;
	struct waiting *refused; /* until the next try; nobody waits for them */
	/* of the batch */
	size_t count;
	struct row rows[BATCH];
};

/* The regions as they are now, with their keys' slots. One that is asked for twice has no slots the second time, and no row once it has ended. */
static enum secpool_error find_regions(struct endings *endings)
{
	for (size_t i = 0; i < endings->count; i++) {
		struct row *row = &endings->rows[i];
		enum secpool_error error =
			regions_find(endings->daemon->directory, row->ending.region, &row->region);

		if (error && error != SECPOOL_E_NOT_FOUND)
			return error;
	}
	return SECPOOL_OK;
}

static bool has_key(const struct row *row)
{
	return row->region.id != 0 && row->region.destroyed_ns == 0;
}

/*
 * The keys' ends: the records first, all on the disk by one wait. A region whose record can't be kept is as it was. What a crash leaves ended in the enclave and not in the directory is as it was too: nobody was told.
 */
static enum secpool_error destroy_keys(struct endings *endings)
{
	struct daemon *daemon = endings->daemon;
	struct msg answer;
	bool any = false;

	for (size_t i = 0; i < endings->count; i++) {
		struct row *row = &endings->rows[i];
		enum secpool_error error;

		if (!has_key(row))
			continue;
		error = regionkeys_end_unsynced(daemon, row->ending.region, 0, &answer);
		if (error && !auditlog_refuses(daemon->auditlog))
			return error;
		row->refused = error;
		any = any || !error;
		if (error)
			msg_set_text(row->reason, sizeof row->reason, err_detail());
		else
			row->end = answer.u.enc_key_destroyed;
	}
	return any ? auditlog_sync(daemon->auditlog) : SECPOOL_OK;
}

/* The end of each region and of its key, and what names its stored keys, in one change. */
static enum secpool_error record(struct endings *endings)
{
	struct directory *directory = endings->daemon->directory;
	enum secpool_error error = directory_begin(directory);

	if (error)
		return error;
	for (size_t i = 0; i < endings->count && !error; i++) {
		const struct row *row = &endings->rows[i];

		if (row->region.id == 0 || row->refused)
			continue;
		error = regions_release(directory, row->ending.region, row->ending.client);
		if (!error && has_key(row))
			error = regions_set_destroyed(directory, row->ending.region,
				row->end.destroyed_ns, row->end.generation);
	}
	return directory_finish(directory, error);
}

static enum secpool_error erase_wraps(struct endings *endings)
{
	uint64_t slots[2 * BATCH];
	enum secpool_error error;

	for (size_t i = 0; i < endings->count; i++) {
		const struct row *row = &endings->rows[i];

		slots[2 * i] = row->refused ? 0 : row->region.wrap;
		slots[2 * i + 1] = row->refused ? 0 : row->region.next_wrap;
	}
	error = wraps_erase_all(endings->daemon->wraps, slots, 2 * endings->count);
	for (size_t i = 0; i < endings->count && !error; i++)
		if (endings->rows[i].region.state == MSG_REGION_SEALED && !endings->rows[i].refused)
			error = seals_ended(endings->daemon, endings->rows[i].region.id);
	return error;
}

static void take_batch(struct endings *endings)
{
	for (endings->count = 0; endings->count < BATCH && endings->first; endings->count++) {
		struct waiting *waiting = endings->first;

		endings->rows[endings->count] = (struct row){.ending = waiting->ending};
		endings->first = waiting->next;
		free(waiting);
	}
	if (!endings->first)
		endings->last = &endings->first;
}

static void answer(struct endings *endings, const struct row *row, enum secpool_error error)
{
	const struct ending *ending = &row->ending;
	struct server_connection *connection = ending->connection;

	if (!connection)
		return;
	if (!error && row->refused)
		dispatch_refuse(
			connection, ending->number, err_set(row->refused, "%s", row->reason));
	else if (!error && row->region.id == 0)
		server_reply(connection, ending->number,
			err_set(SECPOOL_E_NOT_FOUND, "there is no region %llu",
				(unsigned long long)ending->region));
	else if (error)
		server_reply(connection, ending->number, error);
	else
		releases_begun(endings->daemon, ending);
	server_resume(connection);
}

/* A program that ended asks no more: its regions' ends wait until their records can be kept. */
static enum secpool_error put_off(struct endings *endings)
{
	for (size_t i = 0; i < endings->count; i++) {
		const struct row *row = &endings->rows[i];
		struct waiting *waiting;

		if (!row->refused || row->ending.connection)
			continue;
		waiting = calloc(1, sizeof *waiting);
		if (!waiting)
			return err_set(SECPOOL_E_NO_MEMORY, "releases: out of memory");
		*waiting = (struct waiting){.next = endings->refused, .ending = row->ending};
		endings->refused = waiting;
	}
	if (endings->refused &&
		(sd_event_source_set_time_relative(endings->retry, RETRY_NS / 1000) < 0 ||
			sd_event_source_set_enabled(endings->retry, SD_EVENT_ONESHOT) < 0))
		return err_set(SECPOOL_E_SYSTEM, "releases: the loop refused a timer");
	return SECPOOL_OK;
}

static void put_last(struct endings *endings, struct waiting *waiting)
{
	waiting->next = NULL;
	*endings->last = waiting;
	endings->last = &waiting->next;
	sd_event_source_set_enabled(endings->source, SD_EVENT_ONESHOT);
}

static int on_batch(sd_event_source *source, void *arg)
{
	struct endings *endings = arg;
	enum secpool_error error;

	take_batch(endings);
	error = find_regions(endings);
	if (!error)
		error = destroy_keys(endings);
	if (!error)
		error = record(endings);
	if (!error)
		error = erase_wraps(endings);
	for (size_t i = 0; i < endings->count; i++)
		answer(endings, &endings->rows[i], error);
	if (!error)
		error = put_off(endings);
	endings->count = 0;
	if (error)
		daemon_fail(endings->daemon, "release-failed", error);
	if (endings->first)
		sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
	releases_kick(endings->daemon);
	return 0;
}

static int on_retry(sd_event_source *source, uint64_t usec, void *arg)
{
	struct endings *endings = arg;

	(void)source;
	(void)usec;
	while (endings->refused) {
		struct waiting *waiting = endings->refused;

		endings->refused = waiting->next;
		put_last(endings, waiting);
	}
	return 0;
}

enum secpool_error endings_new(struct daemon *daemon, struct endings **ret_endings)
{
	struct endings *endings = calloc(1, sizeof *endings);

	if (!endings)
		return err_set(SECPOOL_E_NO_MEMORY, "releases: out of memory");
	endings->daemon = daemon;
	endings->last = &endings->first;
	/* as turns, so that they take turns with it */
	if (sd_event_add_defer(daemon->loop, &endings->source, on_batch, endings) < 0 ||
		sd_event_source_set_priority(endings->source, TURNS_PRIORITY) < 0 ||
		sd_event_add_time_relative(daemon->loop, &endings->retry, CLOCK_MONOTONIC,
			UINT64_MAX / 4, 0, on_retry, endings) < 0 ||
		sd_event_source_set_enabled(endings->retry, SD_EVENT_OFF) < 0) {
		endings_free(endings);
		return err_set(SECPOOL_E_SYSTEM, "releases: the loop refused a source");
	}
	sd_event_source_set_enabled(endings->source, SD_EVENT_OFF);
	*ret_endings = endings;
	return SECPOOL_OK;
}

static void free_list(struct waiting *waiting)
{
	while (waiting) {
		struct waiting *next = waiting->next;

		free(waiting);
		waiting = next;
	}
}

void endings_free(struct endings *endings)
{
	if (!endings)
		return;
	free_list(endings->first);
	free_list(endings->refused);
	sd_event_source_disable_unref(endings->source);
	sd_event_source_disable_unref(endings->retry);
	free(endings);
}

void endings_add(struct endings *endings, const struct ending *ending)
{
	struct waiting *waiting = calloc(1, sizeof *waiting);

	if (!waiting) {
		enum secpool_error error =
			err_set(SECPOOL_E_NO_MEMORY, "region %llu can't be released: out of memory",
				(unsigned long long)ending->region);

		if (ending->connection)
			server_reply(ending->connection, ending->number, error);
		else
			daemon_fail(endings->daemon, "release-failed", error);
		return;
	}
	waiting->ending = *ending;
	if (ending->connection)
		server_hold(ending->connection);
	put_last(endings, waiting);
}

void endings_forget(struct endings *endings, const struct server_connection *connection)
{
	for (struct waiting *w = endings->first; w; w = w->next)
		if (w->ending.connection == connection)
			w->ending.connection = NULL;
	for (size_t i = 0; i < endings->count; i++)
		if (endings->rows[i].ending.connection == connection)
			endings->rows[i].ending.connection = NULL;
}
