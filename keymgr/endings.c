/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/endings.h"

#include <stdlib.h>

#include "keymgr/directory.h"
#include "keymgr/regionkeys.h"
#include "keymgr/regions.h"
#include "keymgr/releases.h"
#include "keymgr/turns.h"
#include "keymgr/wraps.h"

enum { BATCH = 64 };

struct waiting {
	struct waiting *next;
	struct ending ending;
};

struct endings {
	struct daemon *daemon;
	sd_event_source *source;
	struct waiting *first, **last;
	/* of the batch */
	size_t count;
	struct ending rows[BATCH];
	struct regions_row regions[BATCH];
};

/* The regions as they are now, with their keys' slots, and the record of their end. One that is asked for twice has no slots the second time, and no row (id 0) once it has ended. */
static enum secpool_error record(struct endings *endings)
{
	struct directory *directory = endings->daemon->directory;
	enum secpool_error error = directory_begin(directory);

	if (error)
		return error;
	for (size_t i = 0; i < endings->count && !error; i++) {
		const struct ending *ending = &endings->rows[i];

		endings->regions[i] = (struct regions_row){.id = 0};
		error = regions_find(directory, ending->region, &endings->regions[i]);
		if (!error)
			error = regions_release(directory, ending->region, ending->client);
		else if (error == SECPOOL_E_NOT_FOUND)
			error = SECPOOL_OK;
	}
	return directory_finish(directory, error);
}

static bool has_key(const struct regions_row *region)
{
	return region->id != 0 && region->destroyed_ns == 0;
}

static enum secpool_error destroy_keys(struct endings *endings)
{
	struct daemon *daemon = endings->daemon;
	struct msg_enc_key_destroyed ends[BATCH];
	enum secpool_error error = SECPOOL_OK;
	struct msg answer;

	for (size_t i = 0; i < endings->count && !error; i++) {
		if (!has_key(&endings->regions[i]))
			continue;
		error = regionkeys_end(daemon, endings->rows[i].region, 0, &answer);
		if (!error)
			ends[i] = answer.u.enc_key_destroyed;
	}
	if (!error)
		error = directory_begin(daemon->directory);
	if (error)
		return error;
	for (size_t i = 0; i < endings->count && !error; i++)
		if (has_key(&endings->regions[i]))
			error = regions_set_destroyed(daemon->directory, endings->rows[i].region,
				ends[i].destroyed_ns, ends[i].generation);
	return directory_finish(daemon->directory, error);
}

static enum secpool_error erase_wraps(struct endings *endings)
{
	uint64_t slots[2 * BATCH];

	for (size_t i = 0; i < endings->count; i++) {
		slots[2 * i] = endings->regions[i].wrap;
		slots[2 * i + 1] = endings->regions[i].next_wrap;
	}
	return wraps_erase_all(endings->daemon->wraps, slots, 2 * endings->count);
}

static void take_batch(struct endings *endings)
{
	for (endings->count = 0; endings->count < BATCH && endings->first; endings->count++) {
		struct waiting *waiting = endings->first;

		endings->rows[endings->count] = waiting->ending;
		endings->first = waiting->next;
		free(waiting);
	}
	if (!endings->first)
		endings->last = &endings->first;
}

static void answer(struct endings *endings, size_t i, enum secpool_error error)
{
	const struct ending *ending = &endings->rows[i];
	struct server_connection *connection = ending->connection;

	if (!connection)
		return;
	if (!error && endings->regions[i].id == 0)
		error = err_set(SECPOOL_E_NOT_FOUND, "there is no region %llu",
			(unsigned long long)ending->region);
	if (error)
		server_reply(connection, ending->number, error);
	else
		releases_begun(endings->daemon, ending);
	server_resume(connection);
}

static int on_batch(sd_event_source *source, void *arg)
{
	struct endings *endings = arg;
	enum secpool_error error;

	take_batch(endings);
	error = record(endings);
	if (!error)
		error = destroy_keys(endings);
	if (!error)
		error = erase_wraps(endings);
	for (size_t i = 0; i < endings->count; i++)
		answer(endings, i, error);
	endings->count = 0;
	if (error)
		daemon_fail(endings->daemon, "release-failed", error);
	if (endings->first)
		sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
	releases_kick(endings->daemon);
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
		sd_event_source_set_priority(endings->source, TURNS_PRIORITY) < 0) {
		sd_event_source_disable_unref(endings->source);
		free(endings);
		return err_set(SECPOOL_E_SYSTEM, "releases: the loop refused a source");
	}
	sd_event_source_set_enabled(endings->source, SD_EVENT_OFF);
	*ret_endings = endings;
	return SECPOOL_OK;
}

void endings_free(struct endings *endings)
{
	if (!endings)
		return;
	while (endings->first) {
		struct waiting *waiting = endings->first;

		endings->first = waiting->next;
		free(waiting);
	}
	sd_event_source_disable_unref(endings->source);
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
	*endings->last = waiting;
	endings->last = &waiting->next;
	sd_event_source_set_enabled(endings->source, SD_EVENT_ONESHOT);
}

void endings_forget(struct endings *endings, const struct server_connection *connection)
{
	for (struct waiting *w = endings->first; w; w = w->next)
		if (w->ending.connection == connection)
			w->ending.connection = NULL;
	for (size_t i = 0; i < endings->count; i++)
		if (endings->rows[i].connection == connection)
			endings->rows[i].connection = NULL;
}
