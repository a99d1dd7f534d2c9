/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What happened, for `secpool events`: numbered, with the time, and each a line in the log. The directory keeps the newest EVENTS_KEPT of the
 * daemon's own, and the newest EVENTS_KEPT_EACH about each tenant and of refusals: a flood drives out the flooder's own.
 * Rows are written together when the loop is back. None is dropped here: what clients can cause is limited where it comes in, for each session.
 * Threads: one (the loop's).
 */
#ifndef SECPOOL_KEYMGR_EVENTS_H
#define SECPOOL_KEYMGR_EVENTS_H

#include "keymgr/daemon.h"
#include "lib/wire/sock.h"

enum { EVENTS_KEPT = 10000, EVENTS_KEPT_EACH = 1000 };

/* What an event is about; texts are borrowed, NULL or 0 where there is none. */
struct events_about {
	const char *device, *tenant;
	uint64_t region, offset, bytes;
};

enum secpool_error events_new(struct daemon *daemon, struct events **ret_events) MUST_USE;
/* Writes what waits. NULL is allowed. */
void events_free(struct events *events);

/* kind: one word with dashes, at most 31 bytes. A range that repeats or continues one that was just recorded makes that one longer. */
void events_record(struct daemon *daemon, const char *kind, const struct events_about *about,
	const char *format, ...) PRINTF_LIKE(4, 5);

/* A peer was refused something (this thread's sentence says what); rate limited. */
void events_refused(struct daemon *daemon, const struct sock_peer *peer, enum secpool_error error);

#endif
