/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The audit's file (docs/audit.md): the front appends what the enclave gives it, syncs, and copies each record to the journal. It understands nothing of it; the enclave signs and chains.
 * audit.anchor, the signed head, is written anew at most every AUDITLOG_ANCHOR_NS when there are new records, after AUDITLOG_ANCHOR_RECORDS of them, and at the end.
 *
 * Threads: one (the loop's).
 */
#ifndef SECPOOL_KEYMGR_AUDITLOG_H
#define SECPOOL_KEYMGR_AUDITLOG_H

#include <stdbool.h>

#include "keymgr/daemon.h"
#include "lib/base/clock.h"
#include "lib/wire/sock.h"

enum { AUDITLOG_ANCHOR_RECORDS = 1000 };
#define AUDITLOG_ANCHOR_NS (60 * CLOCK_NS_PER_S)

struct auditlog;
struct server_connection;

/* number: the request's, for the answer. */
typedef void auditlog_done(struct server_connection *connection, uint32_t number, enum secpool_error error);

/*
 * Opens <state_dir>/audit, or makes it. What stands behind the last line end is the rest of a record that was never acknowledged (a crash in an append), and is cut off.
 * Errors: SECPOOL_E_SYSTEM, SECPOOL_E_DENIED, SECPOOL_E_NO_SPACE.
 */
enum secpool_error auditlog_open(const char *state_dir, struct auditlog **ret_log) MUST_USE;

/* NULL is allowed. */
void auditlog_close(struct auditlog *log);

/*
 * As enclave_audit.keep, arg: the log; a line "" is none. Errors: nothing of the line is in the file. When that, or a sync, can't be made sure of, this and every later call is refused until the daemon is
 * started again. Where there was no room, the next record is tried as ever.
 */
enum secpool_error auditlog_keep(void *arg, const char *line, bool wait) MUST_USE;

/*
 * All that was appended is on disk when this returns: called after requests whose records the enclave does not wait for (enclave/audit.h), once for all of them, before anybody is told or anything stored rests on them.
 * NULL: nothing is waited for. Errors: the sync's; see auditlog_keep.
 */
enum secpool_error auditlog_sync(struct auditlog *log) MUST_USE;

/* Whether the last record could not be appended, or a sync failed: what was refused then may be asked for again. */
bool auditlog_refuses(const struct auditlog *log);

/*
 * Calls `done` when all that was appended is on disk, at the end of this go of turns, so that one wait is for all who came in it; error: the sync's. Until then nothing is read from the connection.
 */
void auditlog_await(struct daemon *daemon, struct server_connection *connection, uint32_t number, auditlog_done *done);
/* The connection has ended: its `done` is not called. */
void auditlog_forget(struct daemon *daemon, const struct server_connection *connection);

/* Once there is a loop and the enclave: the first anchor, and the timer for those to come. */
enum secpool_error auditlog_start(struct daemon *daemon) MUST_USE;

/* The end in good order: the last record, and its anchor. */
void auditlog_stop(struct daemon *daemon);

/* What the front alone knows, as a record by its word; peer may be NULL; tenant and detail are copied. Errors: it is not recorded, and what it tells of must not be done. */
enum secpool_error auditlog_note(struct daemon *daemon, enum msg_note kind, const struct sock_peer *peer, const char *tenant,
	uint64_t region, const char *detail) MUST_USE;

/* A peer was refused something; this thread's sentence says what, and is kept. */
void auditlog_refused(struct daemon *daemon, const struct sock_peer *peer, enum secpool_error error);

#endif
