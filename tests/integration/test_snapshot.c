/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lib/snapshot.c: a child has what the regions held when the pool was stopped; where it can't, both sides learn it and the pool goes on; a pool is not stopped for nothing.
 * secpool run's own tests (test_run.sh) have forks beside threads and signals. timeout: 120
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/heap.h"
#include "lib/snapshot.h"
#include "tests/support/support.h"

enum { PAGE = 4096, PAGES = 3072, WRITTEN = 2816, LOCAL = 4 << 20 };

uint64_t __real_clock_now_ns(void);
uint64_t __wrap_clock_now_ns(void);

bool __real_workers_gate_closed(struct secpool *of);
bool __wrap_workers_gate_closed(struct secpool *of);

static _Atomic uint64_t ahead_ns;
static bool sends_blindly;

/* The clock, which a test sets ahead. */
uint64_t __wrap_clock_now_ns(void)
{
	return __real_clock_now_ns() + ahead_ns;
}

/* A parent that does not see that the gate was opened: it was between two looks. */
bool __wrap_workers_gate_closed(struct secpool *of)
{
	return sends_blindly || __real_workers_gate_closed(of);
}

static struct secpool *pool;
static struct secpool_region *region;
static uint8_t *memory;

static void fill_all(uint64_t seed)
{
	for (size_t i = 0; i < WRITTEN; i++)
		support_fill(memory + i * PAGE, PAGE, seed + i);
}

static bool holds_all(uint64_t seed)
{
	static const uint8_t zeros[PAGE];

	for (size_t i = 0; i < WRITTEN; i++)
		if (!support_matches(memory + i * PAGE, PAGE, seed + i))
			return false;
	for (size_t i = WRITTEN; i < PAGES; i++)
		if (memcmp(memory + i * PAGE, zeros, PAGE) != 0)
			return false;
	return true;
}

static int status_of(pid_t child)
{
	int status;

	SUPPORT_CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status));
	return WEXITSTATUS(status);
}

static enum secpool_error begin(struct snapshot *ret_snapshot)
{
	enum secpool_error error = snapshot_hold(pool, ret_snapshot);

	return error ? error : snapshot_stop(ret_snapshot);
}

/* What was there, resident or not, never written or written; what either side does then is its own. */
static void child_has_all(void)
{
	struct snapshot snapshot;
	pid_t child;
	int ends[2];
	char byte = 0;

	SUPPORT_CHECK(pipe(ends) == 0);
	fill_all(1);
	SUPPORT_OK(begin(&snapshot));
	child = fork();
	if (child == 0) {
		if (snapshot_receive(&snapshot) != SECPOOL_OK)
			_exit(2);
		if (read(ends[0], &byte, 1) != 1 || !holds_all(1))
			_exit(3);
		fill_all(50000);
		_exit(holds_all(50000) ? 9 : 4);
	}
	SUPPORT_OK(snapshot_send(&snapshot));
	fill_all(90000);
	SUPPORT_CHECK(write(ends[1], "x", 1) == 1);
	SUPPORT_CHECK(status_of(child) == 9);
	SUPPORT_CHECK(holds_all(90000));
	close(ends[0]);
	close(ends[1]);
}

static void child_ends_early(void)
{
	struct snapshot snapshot;
	pid_t child;

	SUPPORT_OK(begin(&snapshot));
	child = fork();
	if (child == 0)
		_exit(9);
	SUPPORT_CHECK(snapshot_send(&snapshot) != SECPOOL_OK);
	SUPPORT_CHECK(status_of(child) == 9);
	SUPPORT_CHECK(holds_all(90000));
}

/* The child is told that it has not all, not left waiting. */
static void parent_ends_early(void)
{
	struct snapshot snapshot;
	pid_t child;

	SUPPORT_OK(begin(&snapshot));
	child = fork();
	if (child == 0)
		_exit(snapshot_receive(&snapshot) == SECPOOL_E_CLOSED ? 9 : 1);
	close(snapshot.child_end);
	close(snapshot.parent_end);
	snapshot.child_end = snapshot.parent_end = -1;
	SUPPORT_CHECK(snapshot_send(&snapshot) != SECPOOL_OK);
	SUPPORT_CHECK(status_of(child) == 9);
	SUPPORT_CHECK(holds_all(90000));
}

/* The gate was opened by the service before the parent was done: the child does not go on either, also when it had all. */
static void torn_child_is_told(bool has_all)
{
	struct snapshot snapshot;
	pid_t child;

	SUPPORT_OK(begin(&snapshot));
	child = fork();
	if (child == 0)
		_exit(snapshot_receive(&snapshot) != SECPOOL_OK ? 9 : 1);
	(void)workers_open_gate(pool);
	sends_blindly = has_all;
	SUPPORT_CHECK(snapshot_send(&snapshot) == SECPOOL_E_TIMEOUT);
	SUPPORT_CHECK(status_of(child) == 9);
	SUPPORT_CHECK(holds_all(90000));
}

static void *write_all(void *arg)
{
	fill_all((uintptr_t)arg);
	return NULL;
}

/* Nobody sends: the pool goes on by itself, and who stopped it learns that later. */
static void pool_goes_on(void)
{
	struct snapshot snapshot;
	pthread_t thread;

	SUPPORT_OK(begin(&snapshot));
	SUPPORT_CHECK(pthread_create(&thread, NULL, write_all, (void *)7) == 0);
	/* the wait has begun: no store gets through meanwhile */
	usleep(300000);
	SUPPORT_CHECK(pthread_tryjoin_np(thread, NULL) != 0);
	ahead_ns = SNAPSHOT_PATIENCE_NS + CLOCK_NS_PER_S;
	SUPPORT_CHECK(pthread_join(thread, NULL) == 0);
	SUPPORT_CHECK(snapshot_send(&snapshot) != SECPOOL_OK);
	SUPPORT_CHECK(holds_all(7));
}

static void free_one(void *object)
{
	SUPPORT_CHECK(object != NULL);
	secpool_free(pool, object);
}

static void *hold_it(void *arg)
{
	(void)arg;
	heap_hold(pool);
	return pool;
}

static void *allocate(void *arg)
{
	return secpool_malloc(pool, (size_t)(uintptr_t)arg);
}

/* While another thread holds the heap it gives what it has, and waits when it needs a region; who holds it does not wait. */
static void heap_does_not_grow(void)
{
	pthread_t thread;
	void *object;

	free_one(secpool_malloc(pool, 100));
	SUPPORT_CHECK(pthread_create(&thread, NULL, hold_it, NULL) == 0);
	SUPPORT_CHECK(pthread_join(thread, &object) == 0 && object);
	free_one(secpool_malloc(pool, 100));
	SUPPORT_CHECK(pthread_create(&thread, NULL, allocate, (void *)(8ul << 20)) == 0);
	usleep(300000);
	SUPPORT_CHECK(pthread_tryjoin_np(thread, NULL) != 0);
	heap_let_go(pool);
	SUPPORT_CHECK(pthread_join(thread, &object) == 0);
	free_one(object);
	heap_hold(pool);
	SUPPORT_CHECK(secpool_malloc(pool, 16ul << 20) == NULL);
	heap_let_go(pool);
	free_one(secpool_malloc(pool, 16ul << 20));
}

/* Held, and then not stopped: the service goes on by itself, and a stop after that fails. */
static void service_goes_on(void)
{
	struct snapshot snapshot;
	struct secpool_region *other;

	SUPPORT_OK(snapshot_hold(pool, &snapshot));
	ahead_ns += SNAPSHOT_PATIENCE_NS + CLOCK_NS_PER_S;
	other = support_region(pool, PAGE, 1); /* a call to the service */
	SUPPORT_CHECK(snapshot_stop(&snapshot) == SECPOOL_E_BUSY);
	SUPPORT_OK(secpool_region_release(other, NULL));
	fill_all(11);
	SUPPORT_CHECK(holds_all(11));
}

int main(void)
{
	support_up(3, "64M", NULL);
	pool = support_open("alpha", LOCAL);
	region = support_region(pool, (size_t)PAGES * PAGE, 1);
	memory = secpool_region_address(region);
	child_has_all();
	child_ends_early();
	parent_ends_early();
	torn_child_is_told(false);
	torn_child_is_told(true);
	sends_blindly = false;
	pool_goes_on();
	service_goes_on();
	heap_does_not_grow();
	SUPPORT_OK(secpool_region_release(region, NULL));
	secpool_close(pool);
	support_down();
	return 0;
}
