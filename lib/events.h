/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pool's queue of events for the program, with a descriptor that is readable while events wait. Bounded: what does not fit is
 * told by one SECPOOL_EVENT_OVERFLOW. Threads: any.
 */
#ifndef SECPOOL_EVENTS_H
#define SECPOOL_EVENTS_H

#include <pthread.h>

#include "lib/secpool.h"
#include "lib/base/err.h"

enum { EVENTS_MOST = 4096 };

struct events {
	pthread_mutex_t lock; /* Protects: queue, head, count. Not: fds (immutable) */
	struct secpool_event *queue;
	unsigned head, count;
	int program_fd; /* in the program's descriptor table */
	int service_fd; /* the same eventfd in the service's own table; the program may close its one */
};

/* Errors: SECPOOL_E_NO_MEMORY, SECPOOL_E_SYSTEM. */
enum secpool_error events_init(struct events *events) MUST_USE;
void events_done(struct events *events);

/* The program closed its descriptor, whose number may be another file's now: it is not read, nor closed. */
void events_abandon(struct events *events);

/* Called in the library's own threads only. event->size and time_ns are filled in. */
void events_add(struct events *events, const struct secpool_event *event);

/* Takes a region that ends out of the events that name it. */
void events_forget(struct events *events, const struct secpool_region *region);

/* Errors: SECPOOL_E_NO_EVENT. Called in the program's threads. */
enum secpool_error events_take(struct events *events, struct secpool_event *ret_event) MUST_USE;

#endif
