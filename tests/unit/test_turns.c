/* SPDX-License-Identifier: Apache-2.0 */
/* Whose message is read next: by order and by count, never by time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "keymgr/turns.h"

enum { CONNECTIONS = 200, TAKEN_MOST = 4096 };

static struct daemon daemon_;
static struct turns *turns;
static struct server_connection connections[CONNECTIONS];
static unsigned left[CONNECTIONS]; /* messages that a connection has still */
static unsigned taken[TAKEN_MOST], taken_count;

/* As the server does: read one, and wait again while there may be more. */
static void take(struct server_connection *connection)
{
	size_t at = (size_t)(connection - connections);

	assert_false(connection->waiting);
	if (left[at] == 0)
		return;
	left[at]--;
	assert_true(taken_count < TAKEN_MOST);
	taken[taken_count++] = (unsigned)at;
	turns_wait(turns, connection);
}

static int set_up(void **state)
{
	(void)state;
	memset(connections, 0, sizeof connections);
	memset(left, 0, sizeof left);
	taken_count = 0;
	daemon_ = (struct daemon){.faultfd = -1};
	return sd_event_new(&daemon_.loop) < 0 || turns_new(&daemon_, take, &turns) ? -1 : 0;
}

static int tear_down(void **state)
{
	(void)state;
	for (size_t i = 0; i < CONNECTIONS; i++)
		turns_leave(turns, &connections[i]);
	turns_free(turns);
	sd_event_unref(daemon_.loop);
	return 0;
}

static void join(size_t at, uint64_t user, unsigned messages)
{
	assert_int_equal(turns_join(turns, &connections[at], user), SECPOOL_OK);
	left[at] = messages;
	turns_wait(turns, &connections[at]);
	turns_wait(turns, &connections[at]);
}

static void run(void)
{
	while (sd_event_run(daemon_.loop, 0) > 0)
		;
}

/* A flood of another user's puts one message before each of an honest one's, over one connection or over many. */
static void a_flood_costs_one_message(void **state)
{
	enum { HONEST = CONNECTIONS - 1, MESSAGES = 10 };
	unsigned last = 0, found = 0;

	(void)state;
	for (size_t i = 0; i < HONEST; i++)
		join(i, 1000, 20);
	join(HONEST, 1001, MESSAGES);
	run();
	for (unsigned i = 0; i < taken_count; i++) {
		if (taken[i] != HONEST)
			continue;
		assert_true(i - last <= 2);
		last = i;
		found++;
	}
	assert_int_equal(found, MESSAGES);
	/* and nothing of the flood is dropped */
	assert_int_equal(taken_count, HONEST * 20 + MESSAGES);
}

/* The connections of one user are as fair among themselves. */
static void connections_take_turns(void **state)
{
	(void)state;
	join(0, 1000, 100);
	join(1, 1000, 3);
	join(2, 1000, 3);
	run();
	for (unsigned i = 0; i < 9; i++)
		assert_int_equal(taken[i], i % 3);
	assert_int_equal(taken_count, 106);
}

/* No more than a bound in one go: what was collected is done, and what came meanwhile is seen. */
static void a_go_is_bounded(void **state)
{
	(void)state;
	join(0, 1000, 3 * TURNS_MESSAGES);
	assert_int_equal(sd_event_run(daemon_.loop, 0), 1);
	assert_int_equal(taken_count, TURNS_MESSAGES);
	join(1, 1001, 1);
	assert_int_equal(sd_event_run(daemon_.loop, 0), 1);
	assert_int_equal(taken_count, 2 * TURNS_MESSAGES - 1); /* a turn found nothing */
	assert_true(taken[TURNS_MESSAGES] == 1 || taken[TURNS_MESSAGES + 1] == 1);
	run();
	assert_int_equal(taken_count, 3 * TURNS_MESSAGES + 1);
}

static void users_are_counted(void **state)
{
	(void)state;
	join(0, 1000, 0);
	join(1, 1000, 0);
	join(2, 1000 + 256, 0); /* the same bucket */
	assert_int_equal(turns_count(turns, 1000), 2);
	assert_int_equal(turns_count(turns, 1256), 1);
	assert_int_equal(turns_count(turns, 7), 0);
	/* what is queued goes with the connection */
	connections[1].queued = 5;
	assert_int_equal(turns_queued(&connections[1], 5), 5);
	assert_int_equal(turns_queued(&connections[0], 2), 7);
	connections[0].queued = 2;
	assert_int_equal(turns_join(turns, &connections[1], TURNS_STAFF), SECPOOL_OK);
	assert_true(connections[1].waiting);
	assert_int_equal(turns_queued(&connections[0], 0), 2);
	assert_int_equal(turns_queued(&connections[1], 0), 5);
	assert_int_equal(turns_count(turns, 1000), 1);
	assert_int_equal(turns_count(turns, TURNS_STAFF), 1);
	turns_leave(turns, &connections[0]);
	turns_leave(turns, &connections[0]);
	assert_int_equal(turns_count(turns, 1000), 0);
	assert_false(connections[0].waiting);
	run();
	assert_int_equal(taken_count, 0);
}

/* One that leaves while it waits is not taken; the others of its user are. */
static void who_left_has_no_turn(void **state)
{
	(void)state;
	for (size_t i = 0; i < 3; i++)
		join(i, 1000, 1);
	turns_leave(turns, &connections[1]);
	run();
	assert_int_equal(taken_count, 2);
	assert_int_equal(taken[0], 0);
	assert_int_equal(taken[1], 2);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(a_flood_costs_one_message),
		TEST(connections_take_turns),
		TEST(a_go_is_bounded),
		TEST(users_are_counted),
		TEST(who_left_has_no_turn),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
