/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/waiters.h"

#include <stdlib.h>

struct waiter {
	struct waiter *next;
	struct server_connection *connection;
	uint64_t region;
	uint32_t number;
};

void waiters_add(struct waiters *waiters, struct server_connection *connection, uint64_t region,
	uint32_t number)
{
	struct waiter *waiter = calloc(1, sizeof *waiter);

	if (!waiter) {
		err_set(SECPOOL_E_NO_MEMORY,
			"the receipt of region %llu is stored, not sent: out of memory",
			(unsigned long long)region);
		server_reply(connection, number, SECPOOL_E_NO_MEMORY);
		return;
	}
	*waiter = (struct waiter){.next = waiters->first,
		.connection = connection,
		.region = region,
		.number = number};
	waiters->first = waiter;
}

void waiters_send(struct waiters *waiters, uint64_t region, const struct msg *receipt)
{
	struct waiter **at = &waiters->first;

	while (*at) {
		struct waiter *waiter = *at;
		struct msg msg = *receipt;

		if (waiter->region != region) {
			at = &waiter->next;
			continue;
		}
		*at = waiter->next;
		msg.number = waiter->number;
		server_send(waiter->connection, &msg, -1);
		free(waiter);
		at = &waiters->first; /* a connection that this closed has taken its others out */
	}
}

void waiters_refuse(struct waiters *waiters, uint64_t region, enum secpool_error error)
{
	struct msg reply = {.type = MSG_REPLY};

	reply.u.reply.error = error;
	MSG_SET(reply.u.reply.detail, err_detail());
	waiters_send(waiters, region, &reply);
}

void waiters_forget(struct waiters *waiters, const struct server_connection *connection)
{
	struct waiter **at = &waiters->first;

	while (*at) {
		struct waiter *waiter = *at;

		if (waiter->connection != connection) {
			at = &waiter->next;
			continue;
		}
		*at = waiter->next;
		free(waiter);
	}
}

void waiters_done(struct waiters *waiters)
{
	while (waiters->first) {
		struct waiter *waiter = waiters->first;

		waiters->first = waiter->next;
		free(waiter);
	}
}
