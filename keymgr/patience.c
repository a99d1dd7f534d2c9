/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/patience.h"

#include <stdlib.h>

#include "keymgr/dispatch.h"
#include "lib/base/clock.h"

/* How long a connection may take to say HELLO, how often that is looked at, and how long nothing is accepted after a failure. */
#define HELLO_NS (5 * CLOCK_NS_PER_S)
#define LOOK_US	 (500 * 1000ull)
#define PAUSE_US (200 * 1000ull)

struct patience {
	struct daemon *daemon;
	sd_event_source *hello_timer, *pause_timer;
	sd_event_source *paused; /* borrowed; NULL when none is */
};

/* A timer that can't be set would leave connections unanswered for ever. */
static void set_timer(struct patience *patience, sd_event_source *timer, uint64_t us)
{
	if (sd_event_source_set_time_relative(timer, us) < 0 ||
		sd_event_source_set_enabled(timer, SD_EVENT_ONESHOT) < 0)
		daemon_fail(patience->daemon, "timer-not-set",
			err_set(SECPOOL_E_SYSTEM, "server: the loop refused a timer"));
}

static int on_hello_time(sd_event_source *timer, uint64_t usec, void *arg)
{
	struct patience *patience = arg;
	bool more = false;

	(void)usec;
	for (struct server_connection *c = server_first(patience->daemon->server); c; c = c->next) {
		if (c->state != SERVER_NEW || c->closing)
			continue;
		if (clock_now_ns() < c->hello_by_ns) {
			more = true;
			continue;
		}
		dispatch_refuse(c, 0,
			err_set(SECPOOL_E_TIMEOUT, "the connection did not say HELLO in time"));
		server_close(c);
	}
	if (more)
		set_timer(patience, timer, LOOK_US);
	return 0;
}

static int on_pause_end(sd_event_source *timer, uint64_t usec, void *arg)
{
	struct patience *patience = arg;

	(void)timer;
	(void)usec;
	sd_event_source_set_enabled(patience->paused, SD_EVENT_ON);
	patience->paused = NULL;
	return 0;
}

static enum secpool_error add_timer(
	struct patience *patience, sd_event_source **ret_timer, sd_event_time_handler_t on_time)
{
	if (sd_event_add_time_relative(patience->daemon->loop, ret_timer, CLOCK_MONOTONIC, PAUSE_US,
		    0, on_time, patience) < 0)
		return err_set(SECPOOL_E_SYSTEM, "server: the loop refused a timer");
	sd_event_source_set_enabled(*ret_timer, SD_EVENT_OFF);
	return SECPOOL_OK;
}

enum secpool_error patience_new(struct daemon *daemon, struct patience **ret_patience)
{
	struct patience *patience = calloc(1, sizeof *patience);
	enum secpool_error error;

	if (!patience)
		return err_set(SECPOOL_E_NO_MEMORY, "server: out of memory");
	patience->daemon = daemon;
	error = add_timer(patience, &patience->hello_timer, on_hello_time);
	if (!error)
		error = add_timer(patience, &patience->pause_timer, on_pause_end);
	if (error)
		patience_free(patience);
	else
		*ret_patience = patience;
	return error;
}

void patience_free(struct patience *patience)
{
	if (!patience)
		return;
	sd_event_source_disable_unref(patience->hello_timer);
	sd_event_source_disable_unref(patience->pause_timer);
	free(patience);
}

void patience_hello(struct patience *patience, struct server_connection *connection)
{
	int enabled = SD_EVENT_OFF;

	connection->hello_by_ns = clock_now_ns() + HELLO_NS;
	/* one that runs is left alone: connections that keep coming must not put it off */
	if (sd_event_source_get_enabled(patience->hello_timer, &enabled) <= 0)
		set_timer(patience, patience->hello_timer, LOOK_US);
}

void patience_pause(struct patience *patience, sd_event_source *source)
{
	patience->paused = source;
	sd_event_source_set_enabled(source, SD_EVENT_OFF);
	set_timer(patience, patience->pause_timer, PAUSE_US);
}
