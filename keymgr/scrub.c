/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/scrub.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "enclave/prstream.h"
#include "lib/base/guarded_copy.h"
#include "lib/base/os.h"

/* How much is made, stored or compared at a time: fits the processor's first-level cache. */
enum { PIECE_BYTES = PRSTREAM_PIECE_BYTES };

struct job {
	struct job *next;
	int media_fd;
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

struct work {
	struct prstream *stream;
	uint8_t *map, *made, *found;
	uint64_t bytes;
	const _Atomic int *stop;
};

static bool differs(const uint8_t *made, const uint8_t *found, size_t count)
{
	return memcmp(made, found, count) != 0; /* lint: memcmp of public bytes */
}

/* One pass over the range: stores the stream, or compares with it. */
static enum msg_readback pass(struct work *work, bool compare)
{
	for (uint64_t at = 0; at < work->bytes; at += PIECE_BYTES) {
		size_t count = work->bytes - at < PIECE_BYTES ? work->bytes - at : PIECE_BYTES;
		enum secpool_error error;

		if (work->stop && *work->stop)
			return MSG_READBACK_UNREACHABLE;
		if (prstream_bytes(work->stream, at, work->made, count) != SECPOOL_OK)
			return MSG_READBACK_NOT_OVERWRITTEN;
		if (compare) {
			error = guarded_copy(work->found, work->map + at, count);
		} else {
			error = guarded_store(work->map + at, work->made, count);
		}
		if (error)
			return MSG_READBACK_UNREACHABLE;
		if (compare && differs(work->made, work->found, count))
			return MSG_READBACK_DIFFERED;
	}
	return MSG_READBACK_MATCHED;
}

enum msg_readback scrub_mapped(uint8_t *map, uint64_t bytes, bool readback, const _Atomic int *stop)
{
	struct work work = {.map = map, .bytes = bytes, .stop = stop};
	enum msg_readback result = MSG_READBACK_NOT_OVERWRITTEN;

	work.made = calloc(2, PIECE_BYTES);
	if (!work.made || prstream_new(&work.stream) != SECPOOL_OK)
		goto out;
	work.found = work.made + PIECE_BYTES;
	result = pass(&work, false);
	if (result == MSG_READBACK_MATCHED && readback)
		result = pass(&work, true);
out:
	prstream_free(work.stream);
	free(work.made);
	return result;
}

enum msg_readback scrub_range(
	int media_fd, uint64_t offset, uint64_t bytes, const _Atomic int *stop)
{
	enum msg_readback result;
	/* mapped as a whole at once: a fault for each page would cost more than the overwriting */
	void *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, media_fd,
		(off_t)offset);

	if (map == MAP_FAILED)
		return MSG_READBACK_UNREACHABLE;
	result = scrub_mapped(map, bytes, true, stop);
	munmap(map, bytes);
	return result;
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
		job->result.readback = scrub_range(
			job->media_fd, job->result.row.offset, job->result.row.bytes, &scrub->stop);
		os_close(&job->media_fd);
		pthread_mutex_lock(&scrub->lock);
		if (scrub->stop) {
			free_job(job);
			break;
		}
		push(&scrub->done, job);
		eventfd_write(scrub->event_fd, 1);
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

enum secpool_error scrub_submit(struct scrub *scrub, int media_fd, const struct extents_row *row)
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
