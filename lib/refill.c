/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/refill.h"

#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/base/os.h"
#include "lib/evict.h"
#include "lib/fault.h"
#include "lib/fill.h"
#include "lib/loss.h"
#include "lib/service.h"
#include "lib/signals.h"
#include "lib/spinlock.h"

/* Pages that may wait at once. */
enum { JOBS = 64 };

/* How long a callback that is under way is waited for when the pool is closed. */
enum { END_SECONDS = 2 };

enum job_state {
	JOB_FREE = 0,
	JOB_QUEUED = 1,
	JOB_RUNNING = 2, /* in the callback */
	JOB_PLACING = 3, /* the callback has returned in time: the page is the refiller's to end */
	JOB_ABANDONED = 4, /* in the callback still; the page was ended without it */
};

struct job {
	enum job_state state;
	struct secpool_region *region;
	uint64_t pgno, due_ns;
};

struct refiller {
	struct secpool *pool;
	pthread_t thread;
	pthread_mutex_t lock; /* Protects: jobs. Held with all signals blocked */
	struct job jobs[JOBS];
	_Atomic uint32_t work; /* a futex: counts what was queued */
	_Atomic bool stop;
	uint8_t *buffer; /* plaintext: locked */
};

/* The page stays lost for good, unless the program writes it anew. */
static void give_up(struct worker *worker, struct secpool_region *region, uint64_t pgno)
{
	atomic_fetch_or(&region->pages[pgno].word, PAGE_BARRED);
	fill_end_as_lost(worker, region, pgno, SECPOOL_CAUSE_REMOVED, NULL);
}

/* ---- the refiller's thread ---- */

static bool take_job(struct refiller *refiller, unsigned *ret_job)
{
	bool found = false;

	pthread_mutex_lock(&refiller->lock);
	for (unsigned i = 0; i < JOBS && !found; i++) {
		if (refiller->jobs[i].state != JOB_QUEUED)
			continue;
		refiller->jobs[i].state = JOB_RUNNING;
		*ret_job = i;
		found = true;
	}
	pthread_mutex_unlock(&refiller->lock);
	return found;
}

/* Returns the state that the job was in. */
static enum job_state set_state(struct refiller *refiller, struct job *job, enum job_state next)
{
	enum job_state before;

	pthread_mutex_lock(&refiller->lock);
	before = job->state;
	job->state = before == JOB_ABANDONED ? JOB_FREE : next;
	pthread_mutex_unlock(&refiller->lock);
	return before;
}

static void place(struct refiller *refiller, const struct job *job, bool made)
{
	struct worker *worker = worker_borrow(refiller->pool);

	if (made && evict_make_room(worker, job->region->page_bytes) != SECPOOL_OK)
		made = false;
	if (!made || !fill_place(worker, job->region, job->pgno, refiller->buffer))
		give_up(worker, job->region, job->pgno);
	worker_give_back(worker);
}

static void run(struct refiller *refiller, struct job *job)
{
	struct secpool_region *region = job->region;
	size_t bytes = region->page_bytes;
	uint64_t due_ns = job->due_ns;
	bool made =
		region->refill(region->refill_arg, job->pgno * bytes, refiller->buffer, bytes) == 0;

	/* one that is late is late, also where the service was not run in time to say so */
	made = made && clock_now_ns() <= due_ns;

	/* when it was abandoned, the region may be gone by now */
	if (set_state(refiller, job, JOB_PLACING) != JOB_ABANDONED) {
		place(refiller, job, made);
		set_state(refiller, job, JOB_FREE);
	}
	explicit_bzero(refiller->buffer, bytes);
}

static void *refiller_main(void *arg)
{
	struct refiller *refiller = arg;

	signals_enter_handler();
	while (!atomic_load(&refiller->stop)) {
		uint32_t work = atomic_load(&refiller->work);
		unsigned job;

		if (take_job(refiller, &job))
			run(refiller, &refiller->jobs[job]);
		else
			spinlock_futex_wait(&refiller->work, work);
	}
	return NULL;
}

/* ---- start and stop ---- */

enum secpool_error refill_start(struct secpool *pool)
{
	static pthread_mutex_t one =
		PTHREAD_MUTEX_INITIALIZER; /* Protects: that a pool gets one refiller */
	struct refiller *refiller;
	enum secpool_error error = SECPOOL_OK;

	pthread_mutex_lock(&one);
	if (atomic_load(&pool->refiller))
		goto out;
	refiller = calloc(1, sizeof *refiller);
	if (!refiller) {
		error = os_error("a refiller");
		goto out;
	}
	refiller->pool = pool;
	pthread_mutex_init(&refiller->lock, NULL);
	error = pool_new_locked(pool, PAGECIPHER_PAGE_BYTES_MOST, &refiller->buffer);
	if (!error)
		error = signals_start_thread(&refiller->thread, refiller_main, refiller);
	if (!error) {
		atomic_store(&pool->refiller, refiller);
	} else {
		if (refiller->buffer)
			syscall(SYS_munmap, refiller->buffer, PAGECIPHER_PAGE_BYTES_MOST);
		free(refiller);
	}
out:
	pthread_mutex_unlock(&one);
	return error;
}

void refill_stop(struct secpool *pool)
{
	struct refiller *refiller = atomic_load(&pool->refiller);
	struct timespec until;

	if (!refiller)
		return;
	atomic_store(&refiller->stop, true);
	atomic_fetch_add(&refiller->work, 1);
	spinlock_futex_wake(&refiller->work, 1);
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += END_SECONDS;
	if (pthread_timedjoin_np(refiller->thread, NULL, &until) != 0) {
		pthread_detach(refiller->thread); /* with all that it may still touch */
		return;
	}
	atomic_store(&pool->refiller, NULL);
	syscall(SYS_munmap, refiller->buffer, PAGECIPHER_PAGE_BYTES_MOST);
	pthread_mutex_destroy(&refiller->lock);
	free(refiller);
}

/* ---- workers ---- */

static bool queue(
	struct refiller *refiller, struct secpool_region *region, uint64_t pgno, uint64_t seen)
{
	struct job *job = NULL;
	bool queued = false;

	pthread_mutex_lock(&refiller->lock);
	for (unsigned i = 0; i < JOBS && !job; i++)
		if (refiller->jobs[i].state == JOB_FREE)
			job = &refiller->jobs[i];
	if (job &&
		page_step(&region->pages[pgno], &seen, PAGE_REWRITE_BEGIN, 0, page_version(seen))) {
		*job = (struct job){.state = JOB_QUEUED,
			.region = region,
			.pgno = pgno,
			.due_ns = clock_now_ns() + region->refill_ns};
		queued = true;
	}
	pthread_mutex_unlock(&refiller->lock);
	return queued;
}

void refill_ask(struct worker *worker, struct secpool_region *region, uint64_t pgno, uint64_t seen)
{
	struct refiller *refiller = atomic_load(&worker->pool->refiller);

	if (!queue(refiller, region, pgno, seen)) {
		fault_wake_page(worker, region, pgno);
		return;
	}
	atomic_fetch_sub(&region->lost_pages, 1);
	atomic_fetch_add(&refiller->work, 1);
	spinlock_futex_wake(&refiller->work, 1);
	loss_noticed(worker); /* the service sees to the deadline */
}

/* ---- the service ---- */

/* Takes a job away from the refiller, if its page is still to be ended by somebody. *ret_placing: the refiller is about to. */
static bool take_away(struct refiller *refiller, struct job *job, bool *ret_placing)
{
	*ret_placing = job->state == JOB_PLACING;
	if (job->state != JOB_QUEUED && job->state != JOB_RUNNING)
		return false;
	job->state = job->state == JOB_QUEUED ? JOB_FREE : JOB_ABANDONED;
	(void)refiller;
	return true;
}

uint64_t refill_expire(struct secpool *pool)
{
	struct refiller *refiller = atomic_load(&pool->refiller);
	uint64_t now = clock_now_ns(), next = 0;

	for (unsigned i = 0; refiller && i < JOBS; i++) {
		struct job *job = &refiller->jobs[i], late;
		bool placing, taken = false;

		pthread_mutex_lock(&refiller->lock);
		late = *job;
		if (late.state == JOB_QUEUED || late.state == JOB_RUNNING) {
			if (late.due_ns <= now)
				taken = take_away(refiller, job, &placing);
			else if (next == 0 || late.due_ns < next)
				next = late.due_ns;
		}
		pthread_mutex_unlock(&refiller->lock);
		if (taken)
			give_up(pool_service_worker(pool), late.region, late.pgno);
	}
	return next;
}

void refill_cancel(struct secpool *pool, struct secpool_region *region)
{
	struct refiller *refiller = atomic_load(&pool->refiller);

	for (unsigned i = 0; refiller && i < JOBS;) {
		struct job *job = &refiller->jobs[i], late;
		bool placing = false, taken = false;

		pthread_mutex_lock(&refiller->lock);
		late = *job;
		if (late.region == region)
			taken = take_away(refiller, job, &placing);
		pthread_mutex_unlock(&refiller->lock);
		if (taken)
			give_up(pool_service_worker(pool), region, late.pgno);
		if (placing)
			clock_sleep_ns(CLOCK_NS_PER_MS); /* it ends by itself: look again */
		else
			i++;
	}
}
