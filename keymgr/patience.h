/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The server's timers: connections that do not say HELLO in time end, and after a failed accept (no descriptor, no memory) nothing is accepted for a
 * moment, so that the loop does not turn round a socket that it can't serve. Threads: one (the loop's).
 */
#ifndef SECPOOL_KEYMGR_PATIENCE_H
#define SECPOOL_KEYMGR_PATIENCE_H

#include "keymgr/server.h"

struct patience;

/* Errors: SECPOOL_E_NO_MEMORY, SECPOOL_E_SYSTEM. */
enum secpool_error patience_new(struct daemon *daemon, struct patience **ret_patience) MUST_USE;
/* NULL is allowed. */
void patience_free(struct patience *patience);

/* A connection that is among the server's from now on has 5 seconds to say HELLO. */
void patience_hello(struct patience *patience, struct server_connection *connection);

/* Turns the source (borrowed until patience_free) off for a moment. */
void patience_pause(struct patience *patience, sd_event_source *source);

#endif
