/* SPDX-License-Identifier: Apache-2.0 */
/* Who waits for which region's receipt. Threads: one (the loop's). */
#ifndef SECPOOL_KEYMGR_WAITERS_H
#define SECPOOL_KEYMGR_WAITERS_H

#include "keymgr/server.h"

struct waiter;

/* Zero is empty. */
struct waiters {
	struct waiter *first;
};

/* The connection gets the region's receipt under this number. Without memory it is told so at once; the receipt is then only stored. */
void waiters_add(struct waiters *waiters, struct server_connection *connection, uint64_t region,
	uint32_t number);

/* Sends the receipt to all that wait for the region's. */
void waiters_send(struct waiters *waiters, uint64_t region, const struct msg *receipt);

/* Tells all that wait for the region's that it does not come now, with this thread's sentence. */
void waiters_refuse(struct waiters *waiters, uint64_t region, enum secpool_error error);

/* The connection has ended. */
void waiters_forget(struct waiters *waiters, const struct server_connection *connection);

void waiters_done(struct waiters *waiters);

#endif
