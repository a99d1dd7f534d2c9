/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What happened, for `secpool events`: numbered, with the time, the newest EVENTS_KEPT of them in the directory, and each a
 * line in the log. Recording never waits for the disk: rows are written together when the loop is back.
 * Threads: one (the loop's).
 */
#ifndef SECPOOL_KEYMGR_EVENTS_H
#define SECPOOL_KEYMGR_EVENTS_H

#include "keymgr/daemon.h"
#include "lib/wire/sock.h"

enum { EVENTS_KEPT = 10000 };

/* What an event is about; texts are borrowed, NULL or 0 where there is none. */
struct events_about {
	const char *device, *tenant;
	uint64_t region, offset, bytes;
};

enum secpool_error events_new(struct daemon *daemon, struct events **ret_events) MUST_USE;
/* Writes what waits. NULL is allowed. */
void events_free(struct events *events);

/* kind: one word with dashes, at most 31 bytes. */
void events_record(struct daemon *daemon, const char *kind, const struct events_about *about,
	const char *format, ...) PRINTF_LIKE(4, 5);

/* A peer was refused something (this thread's sentence says what); rate limited. */
void events_refused(struct daemon *daemon, const struct sock_peer *peer, enum secpool_error error);

#endif
