/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/handlers.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/base/os.h"
#include "lib/fault.h"
#include "lib/fill.h"
#include "lib/overhead.h"
#include "lib/pool.h"
#include "lib/signals.h"

/* The slice of time that a handler asks for: the shortest there is, so that it is let on before others (Linux 6.12, sched_setattr(2)). */
#define SLICE_NS (100ull * 1000)

/* After so many faults the leader looks again where the thread that it serves runs: reading /proc costs 15 us. */
enum { LOOK_EVERY = 64, STAT_PROCESSOR = 39 /* proc(5), counted from 1 */ };

/* sched_setattr(2), as of Linux 3.14; glibc 2.36 has no name for it, and the kernel's own header meets glibc's in struct sched_param */
struct scheduling {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime_ns, deadline_ns, period_ns;
};

/*
 * When the served thread was elsewhere so often in a row, following it is futile: woken, it is put on an idle CPU each time. So it is on a machine with
 * idle CPUs; on a busy one it stays. The leader then stays anywhere for so many looks.
 */
enum { MISSES_MOST = 4, LOOKS_APART = 64 };

/* Where the leader is. */
struct post {
	cpu_set_t allowed; /* before it moved for the first time */
	int cpu;	   /* -1: anywhere */
	unsigned served, misses, looks_to_skip;
};

static void ask_for_short_slices(void)
{
	struct scheduling now = {.size = sizeof now};

	if (syscall(SYS_sched_getattr, 0, &now, sizeof now, 0) != 0 || now.policy != SCHED_OTHER)
		return;
	now.runtime_ns = SLICE_NS;
	syscall(SYS_sched_setattr, 0, &now, 0); /* older kernels refuse or ignore it */
}

/* The CPU that a thread of this process ran on last; -1 if that can't be told. */
static int cpu_of(int32_t thread)
{
	char path[64], text[1024], *at;
	ssize_t got;
	int fd;

	snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)thread);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	got = read(fd, text, sizeof text - 1);
	os_close(&fd);
	text[got > 0 ? got : 0] = '\0';
	at = strrchr(text, ')'); /* the end of field 2, which may hold anything */
	for (int field = 2; at && field < STAT_PROCESSOR; field++)
		at = strchr(at + 1, ' ');
	return at ? (int)strtol(at + 1, NULL, 10) : -1;
}

static void go_anywhere(struct post *post)
{
	if (post->cpu >= 0)
		sched_setaffinity(0, sizeof post->allowed, &post->allowed);
	post->cpu = -1;
	post->served = 0;
}

static void go_to(struct post *post, int cpu)
{
	cpu_set_t one;

	if (cpu < 0 || cpu >= CPU_SETSIZE || !CPU_ISSET((size_t)cpu, &post->allowed))
		return;
	CPU_ZERO(&one);
	CPU_SET((size_t)cpu, &one);
	if (sched_setaffinity(0, sizeof one, &one) == 0)
		post->cpu = cpu;
}

/* Moves the leader to where the thread runs that it serves. */
static void follow(struct post *post, int32_t thread)
{
	int cpu;

	if (post->served++ % LOOK_EVERY != 0)
		return;
	if (post->looks_to_skip > 0) {
		post->looks_to_skip--;
		return;
	}
	cpu = cpu_of(thread);
	post->misses = cpu == post->cpu ? 0 : post->misses + 1;
	if (post->misses > MISSES_MOST) {
		go_anywhere(post);
		post->misses = 0;
		post->looks_to_skip = LOOKS_APART;
	} else if (cpu != post->cpu) {
		go_to(post, cpu);
	}
}

/* ---- the queue ---- */

static bool push_locked(struct handlers *handlers, const struct work *work)
{
	if (handlers->count == HANDLERS_QUEUE)
		return false;
	handlers->queue[(handlers->head + handlers->count++) % HANDLERS_QUEUE] = *work;
	return true;
}

/* The worker is inside, before it took the lock (it may wait for the gate): pages of a region must not be without somebody who is. It leaves when there is nothing. */
static bool pop_locked(struct worker *worker, struct work *ret_work)
{
	struct handlers *handlers = &worker->pool->handlers;

	if (handlers->count == 0) {
		worker_leave(worker);
		return false;
	}
	*ret_work = handlers->queue[handlers->head];
	handlers->head = (handlers->head + 1) % HANDLERS_QUEUE;
	handlers->count--;
	return true;
}

bool handlers_share(struct secpool *pool, const struct fillset *fill)
{
	struct handlers *handlers = &pool->handlers;
	struct work work = {.fill = *fill};
	bool shared;

	pthread_mutex_lock(&handlers->lock);
	shared = handlers->idle > handlers->count && push_locked(handlers, &work);
	if (shared)
		pthread_cond_signal(&handlers->more);
	pthread_mutex_unlock(&handlers->lock);
	return shared;
}

void handlers_delegate(struct secpool *pool, const struct uffd_fault *fault)
{
	struct handlers *handlers = &pool->handlers;
	struct work work = {.is_fault = true, .fault = *fault};

	pthread_mutex_lock(&handlers->lock);
	(void)push_locked(handlers, &work); /* full: the caller asks again */
	pthread_cond_signal(&handlers->more);
	pthread_mutex_unlock(&handlers->lock);
}

/* region: NULL for any. */
static bool is_queued(struct handlers *handlers, const struct secpool_region *region)
{
	bool found = false;

	pthread_mutex_lock(&handlers->lock);
	for (unsigned i = 0; i < handlers->count; i++) {
		const struct work *work = &handlers->queue[(handlers->head + i) % HANDLERS_QUEUE];
		found = found || (!work->is_fault && (!region || work->fill.region == region));
	}
	pthread_mutex_unlock(&handlers->lock);
	return found;
}

void handlers_await_region(struct secpool *pool, const struct secpool_region *region)
{
	while (is_queued(&pool->handlers, region))
		sched_yield();
}

bool handlers_idle_of_fills(struct secpool *pool)
{
	return !is_queued(&pool->handlers, NULL);
}

void handlers_step_down(struct worker *worker)
{
	struct handlers *handlers = &worker->pool->handlers;

	if (!worker->leads)
		return;
	worker->leads = false;
	pthread_mutex_lock(&handlers->lock);
	handlers->leading = false;
	pthread_cond_signal(&handlers->more);
	pthread_mutex_unlock(&handlers->lock);
}

/* ---- the threads ---- */

/* The worker is inside, and leaves. */
static void do_work(struct worker *worker, const struct work *work)
{
	overhead_begin(worker);
	if (work->is_fault)
		fault_serve(worker, &work->fault);
	else
		fill_run(worker, &work->fill);
	worker_leave(worker);
}

/* Faults beyond the first go to the others, as far as they will take them; what is over is served here. */
static void share_faults(struct worker *worker, const struct uffd_fault *faults, unsigned count)
{
	struct handlers *handlers = &worker->pool->handlers;
	unsigned shared = 0;

	if (count > 1) {
		pthread_mutex_lock(&handlers->lock);
		for (; shared < count - 1 && shared < handlers->idle; shared++) {
			struct work work = {.is_fault = true, .fault = faults[count - 1 - shared]};
			if (!push_locked(handlers, &work))
				break;
			pthread_cond_signal(&handlers->more);
		}
		pthread_mutex_unlock(&handlers->lock);
	}
	for (unsigned i = 0; i < count - shared; i++) {
		worker_enter(worker);
		do_work(worker, &(struct work){.is_fault = true, .fault = faults[i]});
	}
}

/* What was given to others who are all at work is done by the leader itself, before it sleeps over the descriptor. */
static void do_queued(struct worker *worker)
{
	struct handlers *handlers = &worker->pool->handlers;
	bool more = true;

	while (more && worker->leads) {
		struct work work;
		worker_enter(worker);
		pthread_mutex_lock(&handlers->lock);
		more = handlers->idle == 0;
		if (!more)
			worker_leave(worker);
		else
			more = pop_locked(worker, &work);
		pthread_mutex_unlock(&handlers->lock);
		if (more)
			do_work(worker, &work);
	}
}

/* Reads and serves faults until it has to step down, or the pool ends. Returns false when the descriptor does not work any more. */
static bool lead(struct worker *worker, struct post *post)
{
	struct secpool *pool = worker->pool;
	struct uffd_fault faults[UFFD_READ_MOST];
	enum secpool_error error = SECPOOL_OK;

	worker->leads = true;
	while (worker->leads && !atomic_load(&pool->stopping)) {
		unsigned count;
		error = uffd_read_many(&pool->uffd, faults, UFFD_READ_MOST, &count);
		if (error == SECPOOL_E_NO_EVENT)
			continue;
		if (error)
			break;
		follow(post, faults[0].thread);
		share_faults(worker, faults, count);
		do_queued(worker);
	}
	handlers_step_down(worker);
	go_anywhere(post);
	return error == SECPOOL_OK || error == SECPOOL_E_NO_EVENT;
}

/* What to do next: a piece of work (true), or to lead (*ret_lead), or neither at the end. */
static bool await(struct worker *worker, struct work *ret_work, bool *ret_lead)
{
	struct secpool *pool = worker->pool;
	struct handlers *handlers = &pool->handlers;
	bool found = false;

	*ret_lead = false;
	while (!found && !*ret_lead) {
		worker_enter(worker);
		pthread_mutex_lock(&handlers->lock);
		found = pop_locked(worker, ret_work);
		if (!found && atomic_load(&pool->stopping)) {
			pthread_mutex_unlock(&handlers->lock);
			return false;
		}
		if (!found && !handlers->leading && !pool->uffd.is_inline) {
			handlers->leading = *ret_lead = true;
		} else if (!found) {
			handlers->idle++;
			pthread_cond_wait(&handlers->more, &handlers->lock);
			handlers->idle--;
		}
		pthread_mutex_unlock(&handlers->lock);
	}
	return found;
}

static void *handler_main(void *arg)
{
	struct worker *worker = arg;
	struct post post = {.cpu = -1};
	struct work work;
	bool leads;

	signals_enter_handler();
	ask_for_short_slices();
	if (sched_getaffinity(0, sizeof post.allowed, &post.allowed) != 0)
		CPU_ZERO(&post.allowed); /* it stays where it is put */
	for (;;) {
		if (await(worker, &work, &leads))
			do_work(worker, &work);
		else if (!leads || !lead(worker, &post))
			return NULL;
	}
}

enum secpool_error handlers_start(struct secpool *pool)
{
	enum secpool_error error = SECPOOL_OK;

	pthread_mutex_init(&pool->handlers.lock, NULL);
	pthread_cond_init(&pool->handlers.more, NULL);
	pool->handlers.ready = true;
	for (unsigned i = 0; !error && i < pool->fault_threads; i++) {
		struct worker *worker = &pool->workers.all[i];
		error = signals_start_thread(&worker->thread, handler_main, worker);
		worker->started = !error;
	}
	if (error)
		handlers_stop(pool);
	return error;
}

void handlers_stop(struct secpool *pool)
{
	struct handlers *handlers = &pool->handlers;

	if (!handlers->ready)
		return;
	pthread_mutex_lock(&handlers->lock);
	atomic_store(&pool->stopping, true);
	pthread_cond_broadcast(&handlers->more);
	pthread_mutex_unlock(&handlers->lock);
	for (unsigned i = 0; i < pool->fault_threads; i++) {
		struct worker *worker = &pool->workers.all[i];
		if (worker->started)
			signals_end_thread(worker->thread);
		worker->started = false;
	}
	pthread_mutex_destroy(&handlers->lock);
	pthread_cond_destroy(&handlers->more);
	handlers->ready = false;
}
