/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/events.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "keymgr/directory.h"
#include "keymgr/server.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"

/* Events that wait for the loop, and the refusals that are recorded in a second. */
enum { WAITING_MOST = 512, REFUSED_PER_S = 20 };

static const char refused_kind[] = "refused";

struct event {
	uint64_t time_ns, region, offset, bytes;
	char kind[32], device[MSG_NAME_BYTES], tenant[MSG_NAME_BYTES], detail[256];
};

struct events {
	struct daemon *daemon;
	sd_event_source *source;
	unsigned waiting;
	struct event rows[WAITING_MOST];
	struct log_limit refused;
};

static enum secpool_error insert(struct directory *directory, const struct event *event)
{
	return directory_run(directory,
		"INSERT INTO events (time_ns, kind, device, tenant, region, offset, bytes, detail)"
		" VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
		DIRECTORY_VALUES(DIRECTORY_N(event->time_ns), DIRECTORY_T(event->kind),
			DIRECTORY_T(event->device), DIRECTORY_T(event->tenant),
			DIRECTORY_N(event->region), DIRECTORY_N(event->offset),
			DIRECTORY_N(event->bytes), DIRECTORY_T(event->detail)));
}

/*
 * Each tenant has a share of the history, and so have refusals: whoever makes many events loses his own old ones. What is about no tenant is
 * the daemon's own.
 */
static enum secpool_error drop_old(struct directory *directory, const struct event *event)
{
	static const char shared_sql[] =
		"DELETE FROM events WHERE tenant = ?1 AND number <= (SELECT number FROM events"
		" WHERE tenant = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2)";
	static const char refused_sql[] =
		"DELETE FROM events WHERE tenant = '' AND kind = ?1 AND number <="
		" (SELECT number FROM events WHERE tenant = '' AND kind = ?1"
		" ORDER BY number DESC LIMIT 1 OFFSET ?2)";
	bool refusal = strcmp(event->kind, refused_kind) == 0;
	uint64_t kept = event->tenant[0] || refusal ? EVENTS_KEPT_EACH : EVENTS_KEPT;

	return directory_run(directory, refusal ? refused_sql : shared_sql,
		DIRECTORY_VALUES(
			DIRECTORY_T(refusal ? refused_kind : event->tenant), DIRECTORY_N(kept)));
}

/* Once for each share that the waiting events belong to. */
static enum secpool_error drop_all_old(struct events *events)
{
	enum secpool_error error = SECPOOL_OK;

	for (unsigned i = 0; i < events->waiting && !error; i++) {
		const struct event *event = &events->rows[i];
		bool again = false;

		for (unsigned j = i + 1; j < events->waiting && !again; j++)
			again = strcmp(events->rows[j].tenant, event->tenant) == 0 &&
				strcmp(events->rows[j].kind, event->kind) == 0;
		if (!again)
			error = drop_old(events->daemon->directory, event);
	}
	return error;
}

static void write_waiting(struct events *events)
{
	struct directory *directory = events->daemon->directory;
	enum secpool_error error;

	if (events->waiting == 0)
		return;
	error = directory_begin(directory);
	if (!error) {
		for (unsigned i = 0; i < events->waiting && !error; i++)
			error = insert(directory, &events->rows[i]);
		if (!error)
			error = drop_all_old(events);
		error = directory_finish(directory, error);
	}
	if (error)
		log_error("events-not-stored", error);
	events->waiting = 0;
}

static int on_defer(sd_event_source *source, void *arg)
{
	struct events *events = arg;

	(void)source;
	write_waiting(events);
	if (events->daemon->server)
		server_feed_followers(events->daemon->server);
	return 0;
}

enum secpool_error events_new(struct daemon *daemon, struct events **ret_events)
{
	struct events *events = calloc(1, sizeof *events);

	if (!events)
		return err_set(SECPOOL_E_NO_MEMORY, "events: out of memory");
	events->daemon = daemon;
	events->refused = (struct log_limit){.period_ns = CLOCK_NS_PER_S, .burst = REFUSED_PER_S};
	if (sd_event_add_defer(daemon->loop, &events->source, on_defer, events) < 0) {
		free(events);
		return err_set(SECPOOL_E_SYSTEM, "events: the loop refused a source");
	}
	sd_event_source_set_enabled(events->source, SD_EVENT_OFF);
	*ret_events = events;
	return SECPOOL_OK;
}

void events_free(struct events *events)
{
	if (!events)
		return;
	write_waiting(events);
	sd_event_source_disable_unref(events->source);
	free(events);
}

/* The same for a range that repeats, or goes on from, one that waits to be written: that one grows. */
static bool merge_range(struct events *events, const struct event *event)
{
	for (unsigned i = 0; i < events->waiting && event->region != 0 && event->bytes > 0; i++) {
		struct event *other = &events->rows[i];
		uint64_t end = event->offset + event->bytes,
			 other_end = other->offset + other->bytes;

		if (other->region != event->region || other->bytes == 0 ||
			strcmp(other->kind, event->kind) != 0 ||
			strcmp(other->device, event->device) != 0 ||
			strcmp(other->tenant, event->tenant) != 0 ||
			strcmp(other->detail, event->detail) != 0 || event->offset > other_end ||
			other->offset > end)
			continue;
		other->offset = other->offset < event->offset ? other->offset : event->offset;
		other->bytes = (other_end > end ? other_end : end) - other->offset;
		return true;
	}
	return false;
}

void events_record(struct daemon *daemon, const char *kind, const struct events_about *about,
	const char *format, ...)
{
	struct events *events = daemon->events;
	struct event event;
	va_list args;

	event = (struct event){.time_ns = clock_calendar_ns(),
		.region = about->region,
		.offset = about->offset,
		.bytes = about->bytes};
	MSG_SET(event.kind, kind);
	MSG_SET(event.device, about->device ? about->device : "");
	MSG_SET(event.tenant, about->tenant ? about->tenant : "");
	va_start(args, format);
	vsnprintf(event.detail, sizeof event.detail, format, args);
	va_end(args);
	if (merge_range(events, &event))
		return;
	/* clients are held back before this (session.h); if it is full all the same the disk has to be waited for */
	if (events->waiting == WAITING_MOST)
		write_waiting(events);
	events->rows[events->waiting++] = event;
	log_event(LOG_LEVEL_INFO, kind,
		"device=%s tenant=%s region=%llu offset=%llu bytes=%llu detail=\"%s\"",
		event.device, event.tenant, (unsigned long long)event.region,
		(unsigned long long)event.offset, (unsigned long long)event.bytes, event.detail);
	sd_event_source_set_enabled(events->source, SD_EVENT_ONESHOT);
}

void events_refused(struct daemon *daemon, const struct sock_peer *peer, enum secpool_error error)
{
	struct events_about about = {0};

	if (!log_allowed(&daemon->events->refused))
		return;
	events_record(daemon, refused_kind, &about, "pid %d of user %u: %.160s (%s)", peer->pid,
		peer->uid, err_detail(), err_name(error));
}
