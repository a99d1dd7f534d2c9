/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/scrub.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "keymgr/overwrite.h"
#include "lib/base/media.h"
#include "lib/base/os.h"

struct job {
	struct job *next;
	int media_fd;
	uint64_t capacity;
	struct scrub_result result;
};

struct queue {
	struct job *first, *last;
};

struct scrub {
	pthread_t thread;
	pthread_mutex_t
		lock; /* Protects: waiting, done. Not: event_fd (immutable), stop (atomic). */
	pthread_cond_t more;
	struct queue waiting, done;
	_Atomic int stop; /* seq_cst: set once */
	int event_fd;
};

static void push(struct queue *queue, struct job *job)
{
	job->next = NULL;
	if (queue->last)
		queue->last->next = job;
	else
		queue->first = job;
	queue->last = job;
}

static struct job *pop(struct queue *queue)
{
	struct job *job = queue->first;

	if (job) {
		queue->first = job->next;
		if (!queue->first)
			queue->last = NULL;
	}
	return job;
}

static void free_job(struct job *job)
{
	if (!job)
		return;
	os_close(&job->media_fd);
	free(job);
}

static enum secpool_error look(const struct media *media, uint64_t *ret_canary)
{
	enum secpool_error error = media_canary(media, NULL, SCRUB_ANSWER_NS, ret_canary);

	if (!error && !media_canary_allowed(*ret_canary))
		error = err_set(SECPOOL_E_DEVICE_GONE, "the device is silent");
	return error;
}

/* What a silent device was given, and what it gave, is nothing; it does not come back, so that a look afterwards tells. */
static enum msg_readback scrub_range(const struct job *job, const _Atomic int *stop)
{
	struct media media = {.control = NULL};
	uint64_t before = 0, after = 1;
	enum msg_readback result = MSG_READBACK_UNREACHABLE;
	enum secpool_error error = media_open(job->media_fd, job->capacity, &media);

	if (!error)
		error = look(&media, &before);
	if (!error)
		result = overwrite_range(
			job->media_fd, job->result.row.offset, job->result.row.bytes, stop);
	if (!error)
		error = look(&media, &after);
	media_close(&media);
	return error || before != after ? MSG_READBACK_UNREACHABLE : result;
}

/* Holds: scrub.lock. What waits of a device that did not answer is given back. */
static void give_back_locked(struct scrub *scrub, uint64_t slot)
{
	struct queue waiting = scrub->waiting;
	struct job *job;

	scrub->waiting = (struct queue){.first = NULL};
	while ((job = pop(&waiting))) {
		job->result.untried = job->result.row.slot == slot;
		push(job->result.untried ? &scrub->done : &scrub->waiting, job);
		if (job->result.untried)
			eventfd_write(scrub->event_fd, 1);
	}
}

static void *run(void *arg)
{
	struct scrub *scrub = arg;

	pthread_mutex_lock(&scrub->lock);
	while (!scrub->stop) {
		struct job *job = pop(&scrub->waiting);

		if (!job) {
			pthread_cond_wait(&scrub->more, &scrub->lock);
			continue;
		}
		pthread_mutex_unlock(&scrub->lock);
		job->result.readback = scrub_range(job, &scrub->stop);
		os_close(&job->media_fd);
		pthread_mutex_lock(&scrub->lock);
		if (scrub->stop) {
			free_job(job);
			break;
		}
		push(&scrub->done, job);
		eventfd_write(scrub->event_fd, 1);
		if (job->result.readback == MSG_READBACK_UNREACHABLE)
			give_back_locked(scrub, job->result.row.slot);
	}
	pthread_mutex_unlock(&scrub->lock);
	return NULL;
}

/* The thread gets no signal but SIGBUS: all others are the loop's. */
static enum secpool_error start_thread(struct scrub *scrub)
{
	sigset_t all, before;
	int failed;

	sigfillset(&all);
	sigdelset(&all, SIGBUS);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	failed = pthread_create(&scrub->thread, NULL, run, scrub);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (failed)
		return err_set(SECPOOL_E_SYSTEM, "the scrub thread could not be started");
	return SECPOOL_OK;
}

enum secpool_error scrub_new(struct scrub **ret_scrub)
{
	struct scrub *scrub = calloc(1, sizeof *scrub);
	enum secpool_error error = SECPOOL_E_INTERNAL;

	if (!scrub)
		return err_set(SECPOOL_E_NO_MEMORY, "scrub: out of memory");
	pthread_mutex_init(&scrub->lock, NULL);
	pthread_cond_init(&scrub->more, NULL);
	scrub->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE);
	error = scrub->event_fd < 0 ? os_error("eventfd") : start_thread(scrub);
	if (error) {
		os_close(&scrub->event_fd);
		free(scrub);
		return error;
	}
	*ret_scrub = scrub;
	return SECPOOL_OK;
}

void scrub_free(struct scrub *scrub)
{
	struct job *job;

	if (!scrub)
		return;
	pthread_mutex_lock(&scrub->lock);
	scrub->stop = 1;
	pthread_cond_signal(&scrub->more);
	pthread_mutex_unlock(&scrub->lock);
	pthread_join(scrub->thread, NULL);
	while ((job = pop(&scrub->waiting)) || (job = pop(&scrub->done)))
		free_job(job);
	pthread_cond_destroy(&scrub->more);
	pthread_mutex_destroy(&scrub->lock);
	os_close(&scrub->event_fd);
	free(scrub);
}

enum secpool_error scrub_submit(
	struct scrub *scrub, int media_fd, uint64_t capacity, const struct extents_row *row)
{
	struct job *job = calloc(1, sizeof *job);

	if (!job)
		return err_set(SECPOOL_E_NO_MEMORY, "scrub: out of memory");
	job->media_fd = fcntl(media_fd, F_DUPFD_CLOEXEC, 0);
	if (job->media_fd < 0) {
		enum secpool_error error = os_error("duplicate the media's descriptor");

		free_job(job);
		return error;
	}
	job->capacity = capacity;
	job->result.row = *row;
	pthread_mutex_lock(&scrub->lock);
	push(&scrub->waiting, job);
	pthread_cond_signal(&scrub->more);
	pthread_mutex_unlock(&scrub->lock);
	return SECPOOL_OK;
}

int scrub_fd(const struct scrub *scrub)
{
	return scrub->event_fd;
}

enum secpool_error scrub_take(struct scrub *scrub, struct scrub_result *ret_result)
{
	eventfd_t count;
	struct job *job;

	pthread_mutex_lock(&scrub->lock);
	job = pop(&scrub->done);
	if (job && eventfd_read(scrub->event_fd, &count) != 0)
		count = 0; /* the queue is what counts; the descriptor only wakes */
	pthread_mutex_unlock(&scrub->lock);
	if (!job)
		return SECPOOL_E_NO_EVENT;
	*ret_result = job->result;
	free_job(job);
	return SECPOOL_OK;
}
