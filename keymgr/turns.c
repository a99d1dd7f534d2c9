/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/turns.h"

#include <stdlib.h>

enum { BUCKETS = 256 };

/* The list of users that wait is a circle through a head that is no member: an empty one points at itself. */
struct turns_user {
	struct turns_user *bucket_next;
	struct turns_user *next,
		*previous; /* of those with connections that wait; NULL: none waits */
	struct server_connection *first, *last;
	uint64_t key;
	unsigned connections, queued;
};

struct turns {
	sd_event_source *source;
	void (*take)(struct server_connection *connection);
	struct turns_user *buckets[BUCKETS];
	struct turns_user waiting; /* the head */
};

static struct turns_user **place_of(struct turns *turns, uint64_t key)
{
	struct turns_user **at = &turns->buckets[key % BUCKETS];

	while (*at && (*at)->key != key)
		at = &(*at)->bucket_next;
	return at;
}

static void unlink_user(struct turns_user *user)
{
	user->previous->next = user->next;
	user->next->previous = user->previous;
	user->next = user->previous = NULL;
}

static void link_last(struct turns *turns, struct turns_user *user)
{
	user->next = &turns->waiting;
	user->previous = turns->waiting.previous;
	user->previous->next = user;
	user->next->previous = user;
}

static void unlink_connection(struct server_connection *connection)
{
	struct turns_user *user = connection->user;

	if (connection->turn_previous)
		connection->turn_previous->turn_next = connection->turn_next;
	else
		user->first = connection->turn_next;
	if (connection->turn_next)
		connection->turn_next->turn_previous = connection->turn_previous;
	else
		user->last = connection->turn_previous;
	connection->turn_next = connection->turn_previous = NULL;
	connection->waiting = false;
	if (!user->first)
		unlink_user(user);
}

void turns_wait(struct turns *turns, struct server_connection *connection)
{
	struct turns_user *user = connection->user;

	if (connection->waiting)
		return;
	connection->waiting = true;
	connection->turn_previous = user->last;
	if (user->last)
		user->last->turn_next = connection;
	else
		user->first = connection;
	user->last = connection;
	if (!user->next)
		link_last(turns, user);
	sd_event_source_set_enabled(turns->source, SD_EVENT_ONESHOT);
}

static int on_turn(sd_event_source *source, void *arg)
{
	struct turns *turns = arg;

	for (int i = 0; i < TURNS_MESSAGES && turns->waiting.next != &turns->waiting; i++) {
		struct turns_user *user = turns->waiting.next;
		struct server_connection *connection = user->first;

		unlink_connection(connection);
		if (user->next) {
			unlink_user(user);
			link_last(turns, user);
		}
		turns->take(connection);
	}
	if (turns->waiting.next != &turns->waiting)
		sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
	return 0;
}

enum secpool_error turns_new(struct daemon *daemon,
	void (*take)(struct server_connection *connection), struct turns **ret_turns)
{
	struct turns *turns = calloc(1, sizeof *turns);

	if (!turns)
		return err_set(SECPOOL_E_NO_MEMORY, "server: out of memory");
	turns->take = take;
	turns->waiting.next = turns->waiting.previous = &turns->waiting;
	if (sd_event_add_defer(daemon->loop, &turns->source, on_turn, turns) < 0 ||
		sd_event_source_set_priority(turns->source, TURNS_PRIORITY) < 0) {
		turns_free(turns);
		return err_set(SECPOOL_E_SYSTEM, "server: the loop refused a source");
	}
	sd_event_source_set_enabled(turns->source, SD_EVENT_OFF);
	*ret_turns = turns;
	return SECPOOL_OK;
}

void turns_free(struct turns *turns)
{
	if (!turns)
		return;
	sd_event_source_disable_unref(turns->source);
	free(turns);
}

void turns_leave(struct turns *turns, struct server_connection *connection)
{
	struct turns_user *user = connection->user, **at;

	if (!user)
		return;
	if (connection->waiting)
		unlink_connection(connection);
	connection->user = NULL;
	user->queued -= connection->queued;
	if (--user->connections > 0)
		return;
	at = place_of(turns, user->key);
	*at = user->bucket_next;
	free(user);
}

enum secpool_error turns_join(
	struct turns *turns, struct server_connection *connection, uint64_t key)
{
	struct turns_user **at = place_of(turns, key), *user = *at;
	bool waiting = connection->waiting;

	if (!user)
		user = calloc(1, sizeof *user);
	if (!user)
		return err_set(SECPOOL_E_NO_MEMORY, "server: out of memory");
	user->key = key;
	*at = user;
	user->connections++;
	user->queued += connection->queued;
	turns_leave(turns, connection);
	connection->user = user;
	if (waiting)
		turns_wait(turns, connection);
	return SECPOOL_OK;
}

unsigned turns_count(const struct turns *turns, uint64_t key)
{
	const struct turns_user *user = turns->buckets[key % BUCKETS];

	while (user && user->key != key)
		user = user->bucket_next;
	return user ? user->connections : 0;
}

unsigned turns_queued(struct server_connection *connection, int more)
{
	struct turns_user *user = connection->user;

	user->queued += (unsigned)more;
	return user->queued;
}
