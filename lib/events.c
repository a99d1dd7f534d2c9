/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/events.h"

#include <stdlib.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/base/os.h"

enum secpool_error events_init(struct events *events)
{
	enum secpool_error error;

	*events = (struct events){.program_fd = -1, .service_fd = -1};
	events->queue = calloc(EVENTS_MOST, sizeof *events->queue);
	if (!events->queue)
		return os_error("event queue");
	error = os_eventfd(&events->program_fd);
	if (error) {
		free(events->queue);
		events->queue = NULL;
		return error;
	}
	events->service_fd = events->program_fd;
	pthread_mutex_init(&events->lock, NULL);
	return SECPOOL_OK;
}

void events_done(struct events *events)
{
	if (!events->queue)
		return;
	os_close(&events->program_fd);
	free(events->queue);
	events->queue = NULL;
	pthread_mutex_destroy(&events->lock);
}

void events_abandon(struct events *events)
{
	pthread_mutex_lock(&events->lock);
	events->program_fd = -1;
	pthread_mutex_unlock(&events->lock);
}

void events_add(struct events *events, const struct secpool_event *event)
{
	uint64_t one = 1;
	struct secpool_event *at;

	pthread_mutex_lock(&events->lock);
	if (events->count == EVENTS_MOST) {
		at = &events->queue[(events->head + events->count - 1) % EVENTS_MOST];
		*at = (struct secpool_event){.type = SECPOOL_EVENT_OVERFLOW};
	} else {
		at = &events->queue[(events->head + events->count++) % EVENTS_MOST];
		*at = *event;
	}
	at->size = sizeof *at;
	at->time_ns = clock_now_ns();
	pthread_mutex_unlock(&events->lock);
	if (write(events->service_fd, &one, sizeof one) < 0)
		return; /* the counter is full: the descriptor is readable already */
}

void events_forget(struct events *events, const struct secpool_region *region)
{
	pthread_mutex_lock(&events->lock);
	for (unsigned i = 0; i < events->count; i++) {
		struct secpool_event *event = &events->queue[(events->head + i) % EVENTS_MOST];
		if (event->region == region)
			event->region = NULL;
	}
	pthread_mutex_unlock(&events->lock);
}

enum secpool_error events_take(struct events *events, struct secpool_event *ret_event)
{
	enum secpool_error error = SECPOOL_E_NO_EVENT;
	struct secpool_event event = {.size = 0};
	uint64_t drained;

	pthread_mutex_lock(&events->lock);
	if (events->count > 0) {
		event = events->queue[events->head];
		events->head = (events->head + 1) % EVENTS_MOST;
		events->count--;
		error = SECPOOL_OK;
	}
	if (events->count == 0 && read(events->program_fd, &drained, sizeof drained) < 0)
		drained = 0; /* it was not readable, or the program closed it: both are fine */
	pthread_mutex_unlock(&events->lock);
	/* not under the lock: the program's event may lie in a page that is lost, which adds one */
	if (!error)
		*ret_event = event;
	return error;
}
