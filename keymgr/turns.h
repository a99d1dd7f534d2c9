/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whose message is read next. A connection that has something to read waits for its turn; turns go round the users that have any waiting, one message each, and round the connections of each user. So a
 * user who sends as fast as it can, over however many connections, delays another's message by one of its own, not by all of them. Also counts each user's connections and what is queued for it.
 *
 * The daemon's own work (commands, hotplugd) is a user of its own: TURNS_STAFF. Threads: one (the loop's).
 */
#ifndef SECPOOL_KEYMGR_TURNS_H
#define SECPOOL_KEYMGR_TURNS_H

#include "keymgr/server.h"

struct turns;
struct turns_user;

/* No uid is this. */
#define TURNS_STAFF (1ull << 32)

/* Messages in one go. What is collected in it (creates.h, releases.h) is done before the next, for it has the loop's normal priority, and a go has this one, as has the acceptance of connections. */
enum { TURNS_MESSAGES = 64, TURNS_PRIORITY = SD_EVENT_PRIORITY_NORMAL + 1 };

/* take: reads and answers one message of a connection whose turn it is; it is not among the waiting then. Errors: SECPOOL_E_NO_MEMORY, SECPOOL_E_SYSTEM. */
enum secpool_error turns_new(struct daemon *daemon, void (*take)(struct server_connection *connection), struct turns **ret_turns) MUST_USE;
/* After the last connection left. NULL is allowed. */
void turns_free(struct turns *turns);

/* The connection is the user's (a uid or TURNS_STAFF) from now on; one that was another's is no longer. Errors: SECPOOL_E_NO_MEMORY: it is as it was. */
enum secpool_error turns_join(struct turns *turns, struct server_connection *connection, uint64_t user) MUST_USE;
/* The connection has ended. */
void turns_leave(struct turns *turns, struct server_connection *connection);

/* It has something to read; a second call is none. */
void turns_wait(struct turns *turns, struct server_connection *connection);

/* Connections of a user. */
unsigned turns_count(const struct turns *turns, uint64_t user);

/* Messages that are queued for the readers of this connection's user, changed by `more`. */
unsigned turns_queued(struct server_connection *connection, int more);

#endif
