/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/torture/client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <signal.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/base/err.h"
#include "lib/pool.h"
#include "lib/service.h"
#include "tests/torture/region.h"
#include "tests/torture/touch.h"
#include "tests/torture/work.h"

/* How often the main thread looks at the board and at events; how long a pool that can't be opened is tried again. */
#define LOOK_NS (2ull * 1000000)
#define OPEN_NS (20 * CLOCK_NS_PER_S)

static struct client client; /* one in a process */
static struct worker_thread workers[BOARD_THREADS];

const char *client_tenant(unsigned number)
{
	return number % 2 == 0 ? "torture0" : "torture1";
}

enum secpool_fault_mode client_fault_mode(uint64_t seed, unsigned number, unsigned incarnation)
{
	return (seed + number + incarnation) % 2 == 0 ? SECPOOL_FAULT_THREAD : SECPOOL_FAULT_INLINE;
}

static struct board_seat *seat(void)
{
	return &client.board->clients[client.number].seats[BOARD_MANAGER];
}

/* ---- events ---- */

static void note_lost(const struct secpool_event *event)
{
	unsigned at = atomic_load(&client.loss_count);
	uintptr_t start = (uintptr_t)secpool_region_address(event->region) + event->range.offset;

	if (at == CLIENT_LOSSES_MOST) {
		atomic_store(&client.overflow, true);
		return;
	}
	client.losses[at] = (struct client_loss){
		.start = start, .end = start + event->range.bytes, .cause = event->cause};
	atomic_store_explicit(&client.loss_count, at + 1, memory_order_release);
}

/* A region that is being released is not asked for its address (region_release). */
static bool is_ending(const struct secpool_region *region)
{
	for (unsigned i = 0; i < CLIENT_SLOTS; i++)
		if (client.slots[i].ending == region)
			return true;
	return false;
}

static void take_events(void)
{
	struct secpool_event event = {.size = sizeof event};

	pthread_mutex_lock(&client.events_lock);
	while (secpool_event_next(client.pool, &event) == SECPOOL_OK) {
		/* pages for which there is no room are told of as NO_SPACE, with their range */
		if ((event.type == SECPOOL_EVENT_REGION_LOST ||
			    event.type == SECPOOL_EVENT_NO_SPACE) &&
			event.region && !is_ending(event.region))
			note_lost(&event);
		else if (event.type == SECPOOL_EVENT_OVERFLOW)
			atomic_store(&client.overflow, true);
		event.size = sizeof event;
	}
	pthread_mutex_unlock(&client.events_lock);
}

/* Runs a function that may wait, for events or for the library's service: by a thread of its own, while this one takes the events that other threads wait for. */
static void run_apart(void *(*run)(void *), void *arg)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, run, arg) != 0)
		abort();
	while (pthread_tryjoin_np(thread, NULL) != 0) {
		take_events();
		clock_sleep_ns(LOOK_NS);
	}
}

static void *heal_main(void *arg)
{
	(void)arg;
	work_heal(&client);
	return NULL;
}

static void *verify_main(void *arg)
{
	(void)arg;
	work_verify(&client);
	return NULL;
}

/* ---- settling: the library's own account, taken on its service's thread ---- */

struct account {
	uint32_t out;
	bool check; /* ask for a check of all regions */
	bool settled;
	char why[160];
};

static void unsettled(struct account *account, const char *why, const char *what)
{
	account->settled = false;
	snprintf(account->why, sizeof account->why, "%s %s", what, why);
}

static void look_at_devices(struct secpool *pool, struct account *account)
{
	for (struct device *d = atomic_load(&pool->devices); d; d = d->older) {
		unsigned number = (unsigned)strtoul(d->id + 3, NULL, 10);
		if (!device_usable(d) && !d->handled)
			unsettled(account, "is gone and its loss is not dealt with", d->id);
		if (device_usable(d) && (account->out & 1u << number))
			unsettled(account, "was pulled and counts as there", d->id);
	}
}

static void run_account(struct secpool *pool, struct service_call *call)
{
	struct account *account = call->arg;

	call->error = SECPOOL_OK;
	account->settled = true;
	if (pool->service->client.fd < 0 || pool->service->retry_ns != 0)
		unsettled(account, "is not connected", "the session");
	look_at_devices(pool, account);
	for (unsigned i = 0; i < POOL_REGIONS_MOST; i++) {
		struct secpool_region *region = atomic_load(&pool->regions[i]);
		char name[48];
		if (!region)
			continue;
		if (account->check)
			atomic_store(&region->check_wanted, true);
		snprintf(name, sizeof name, "region %llu (%u of %u lanes)",
			(unsigned long long)region->id, region->data, region->lanes);
		if (region->lacks_places)
			unsettled(account, "lacks places", name);
		/* without redundancy there is nothing to rebuild */
		else if (region->lanes > 1 &&
			 (region->rebuild.active || atomic_load(&region->check_wanted)))
			unsettled(account, "is being rebuilt", name);
	}
}

/* Asks until all is settled; says what is not when that takes long. */
static void settle(bool check)
{
	uint64_t begun = clock_now_ns(), said = begun;
	struct account account = {.check = check};

	do {
		account.out = atomic_load(&client.board->out);
		if (service_call(client.pool, run_account, &account) != SECPOOL_OK)
			unsettled(&account, "could not be asked", "the service");
		account.check = false;
		if (clock_now_ns() - said > 3 * CLOCK_NS_PER_S) {
			said = clock_now_ns();
			fprintf(stderr,
				"secpool-torture: client %u.%u is not settled after %llu s: %s\n",
				client.number, client.incarnation,
				(unsigned long long)((said - begun) / CLOCK_NS_PER_S), account.why);
		}
		clock_sleep_ns(LOOK_NS);
	} while (!account.settled && !atomic_load(&client.board->stop));
}

static void *settle_main(void *arg)
{
	const bool *check = arg;

	settle(*check);
	return NULL;
}

static void *recreate_main(void *arg)
{
	(void)arg;
	work_recreate(&client);
	return NULL;
}

static void do_request(enum board_request request)
{
	bool check = request == BOARD_HEAL;

	switch (request) {
	case BOARD_HEAL:
		board_begin(seat(), WORK_HEAL, clock_now_ns());
		run_apart(heal_main, NULL);
		break;
	case BOARD_VERIFY:
		board_begin(seat(), WORK_VERIFY, clock_now_ns());
		run_apart(verify_main, NULL);
		break;
	case BOARD_RECREATE:
		board_begin(seat(), WORK_RECREATE, clock_now_ns());
		run_apart(recreate_main, NULL);
		break;
	case BOARD_SETTLE:
	case BOARD_NOTHING:
	case BOARD_REQUESTS:
		break;
	}
	if (request == BOARD_HEAL || request == BOARD_SETTLE) {
		board_begin(seat(), WORK_SETTLE, clock_now_ns());
		run_apart(settle_main, &check);
	}
	board_end(seat());
}

static void answer(void)
{
	struct board_client *mine = &client.board->clients[client.number];
	uint64_t request = atomic_load(&client.board->request);

	if (request / BOARD_REQUESTS == atomic_load(&mine->answered))
		return;
	do_request((enum board_request)(request % BOARD_REQUESTS));
	atomic_store(&mine->answered, request / BOARD_REQUESTS);
}

/* ---- life ---- */

static size_t local_bytes(void)
{
	for (unsigned i = 0; i < CLIENT_SLOTS; i++)
		if (region_kind_of(client.seed, client.number, i)->page_bytes ==
			PAGECIPHER_PAGE_BYTES_MOST)
			return CLIENT_LOCAL_BYTES_MOST;
	return CLIENT_LOCAL_BYTES;
}

static void open_pool(void)
{
	struct secpool_options options = {.size = sizeof options,
		.local_bytes = local_bytes(),
		.fault_mode = client_fault_mode(client.seed, client.number, client.incarnation)};
	uint64_t until = clock_now_ns() + OPEN_NS;
	enum secpool_error error;

	board_begin(seat(), WORK_OPEN, clock_now_ns());
	/* the daemons may be away for a moment */
	while ((error = secpool_open(client_tenant(client.number), &options, &client.pool)) ==
			SECPOOL_E_DAEMON_GONE &&
		clock_now_ns() < until)
		clock_sleep_ns(LOOK_NS);
	if (error) {
		fprintf(stderr, "secpool-torture: client %u.%u: secpool_open: %s: %s\n",
			client.number, client.incarnation, err_name(error), secpool_error_detail());
		exit(CLIENT_EXIT_CRASH);
	}
	board_end(seat());
}

static void start(void)
{
	client.heap = heap_model_new();
	for (unsigned i = 0; i < CLIENT_SLOTS; i++) {
		client.slots[i].kind = region_kind_of(client.seed, client.number, i);
		pthread_rwlock_init(&client.slots[i].lock, NULL);
		(void)region_make(&client, &client.slots[i]);
	}
	for (unsigned i = 0; i < BOARD_THREADS; i++) {
		workers[i] = (struct worker_thread){.client = &client,
			.number = i,
			.seat = &client.board->clients[client.number].seats[i]};
		if (pthread_create(&workers[i].thread, NULL, work_main, &workers[i]) != 0)
			abort();
	}
	atomic_store(&client.board->clients[client.number].ready, true);
}

static void end(void)
{
	for (unsigned i = 0; i < BOARD_THREADS; i++) {
		/* one of them may wait for an event that tells of a loss */
		while (pthread_tryjoin_np(workers[i].thread, NULL) != 0) {
			take_events();
			clock_sleep_ns(LOOK_NS);
		}
	}
}

static void verify(void)
{
	board_begin(seat(), WORK_VERIFY, clock_now_ns());
	run_apart(verify_main, NULL);
	board_begin(seat(), WORK_CLOSE, clock_now_ns());
	for (unsigned i = 0; i < CLIENT_SLOTS; i++)
		if (client.slots[i].region)
			region_release(&client, &client.slots[i]);
	secpool_close(client.pool);
	board_end(seat());
}

int client_run(struct board *board, unsigned number, unsigned incarnation, uint64_t seed)
{
	/* whoever ends the driver ends its clients */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	client.board = board;
	client.number = number;
	client.incarnation = incarnation;
	client.seed = seed;
	atomic_store(&client.serial, 1);
	pthread_mutex_init(&client.events_lock, NULL);
	touch_prepare();
	open_pool();
	start();
	while (!atomic_load(&board->stop)) {
		take_events();
		answer();
		clock_sleep_ns(LOOK_NS);
	}
	end();
	verify();
	return 0;
}
