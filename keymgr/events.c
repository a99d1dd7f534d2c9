/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/events.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "keymgr/directory.h"
#include "keymgr/server.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"

/* Events that wait for the loop, and the most that peers can cause in a second. */
enum { WAITING_MOST = 512, CAUSED_PER_S = 2000, REFUSED_PER_S = 20 };

struct event {
	uint64_t time_ns, region, offset, bytes;
	char kind[32], device[MSG_NAME_BYTES], tenant[MSG_NAME_BYTES], detail[256];
};

struct events {
	struct daemon *daemon;
	sd_event_source *source;
	unsigned waiting;
	struct event rows[WAITING_MOST];
	struct log_limit caused, refused;
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
			error = directory_run(directory,
				"DELETE FROM events WHERE number <="
				" (SELECT MAX(number) FROM events) - ?1",
				DIRECTORY_VALUES(DIRECTORY_N(EVENTS_KEPT)));
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
	events->caused = (struct log_limit){.period_ns = CLOCK_NS_PER_S, .burst = CAUSED_PER_S};
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

void events_record(struct daemon *daemon, const char *kind, const struct events_about *about,
	const char *format, ...)
{
	struct events *events = daemon->events;
	struct event *event;
	va_list args;

	/* a full table waits for the loop: what a flood has too much of is dropped, and the log says so */
	if (!log_allowed(&events->caused) || events->waiting == WAITING_MOST) {
		if (events->caused.used == CAUSED_PER_S + 1)
			log_event(LOG_LEVEL_WARNING, "events-dropped", "more than %d in a second",
				CAUSED_PER_S);
		return;
	}
	event = &events->rows[events->waiting++];
	*event = (struct event){.time_ns = clock_calendar_ns(),
		.region = about->region,
		.offset = about->offset,
		.bytes = about->bytes};
	MSG_SET(event->kind, kind);
	MSG_SET(event->device, about->device ? about->device : "");
	MSG_SET(event->tenant, about->tenant ? about->tenant : "");
	va_start(args, format);
	vsnprintf(event->detail, sizeof event->detail, format, args);
	va_end(args);
	log_event(LOG_LEVEL_INFO, kind,
		"device=%s tenant=%s region=%llu offset=%llu bytes=%llu detail=\"%s\"",
		event->device, event->tenant, (unsigned long long)event->region,
		(unsigned long long)event->offset, (unsigned long long)event->bytes, event->detail);
	sd_event_source_set_enabled(events->source, SD_EVENT_ONESHOT);
}

void events_refused(struct daemon *daemon, const struct sock_peer *peer, enum secpool_error error)
{
	struct events_about about = {0};

	if (!log_allowed(&daemon->events->refused))
		return;
	events_record(daemon, "refused", &about, "pid %d of user %u: %.160s (%s)", peer->pid,
		peer->uid, err_detail(), err_name(error));
}
