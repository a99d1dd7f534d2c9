/* SPDX-License-Identifier: Apache-2.0 */
#include "hotplug/work.h"

#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "lib/base/os.h"

struct list {
	struct work_item *first, **end;
};

struct work {
	pthread_mutex_t lock; /* Protects: waiting, finished, ending. Not: the rest (the loop's). */
	pthread_cond_t more;
	struct list waiting, finished;
	bool ending;
	int wake; /* eventfd: finished is not empty */
	sd_event_source *source;
	pthread_t threads[WORK_THREADS_MOST];
	unsigned thread_count;
};

static void list_init(struct list *list)
{
	list->first = NULL;
	list->end = &list->first;
}

static void list_add(struct list *list, struct work_item *item)
{
	item->next = NULL;
	*list->end = item;
	list->end = &item->next;
}

static struct work_item *list_take(struct list *list)
{
	struct work_item *item = list->first;

	if (!item)
		return NULL;
	list->first = item->next;
	if (!list->first)
		list->end = &list->first;
	item->next = NULL;
	return item;
}

static void *thread_main(void *arg)
{
	struct work *work = arg;
	struct work_item *item;

	pthread_mutex_lock(&work->lock);
	for (;;) {
		item = list_take(&work->waiting);
		if (!item && work->ending)
			break;
		if (!item) {
			pthread_cond_wait(&work->more, &work->lock);
			continue;
		}
		pthread_mutex_unlock(&work->lock);
		item->run(item);
		pthread_mutex_lock(&work->lock);
		list_add(&work->finished, item);
		eventfd_write(work->wake, 1);
	}
	pthread_mutex_unlock(&work->lock);
	return NULL;
}

static void finish_all(struct work *work)
{
	for (;;) {
		struct work_item *item;

		pthread_mutex_lock(&work->lock);
		item = list_take(&work->finished);
		pthread_mutex_unlock(&work->lock);
		if (!item)
			return;
		item->done(item);
	}
}

static int on_wake(sd_event_source *source, int fd, uint32_t events, void *arg)
{
	eventfd_t count;

	(void)source;
	(void)events;
	(void)eventfd_read(fd, &count);
	finish_all(arg);
	return 0;
}

/* Signals are the loop's: a thread that took one would hide it from sd-event. SIGBUS and its like
 * can't wait. */
static enum secpool_error start_threads(struct work *work, unsigned threads)
{
	sigset_t all, before;
	int failed = 0;

	sigfillset(&all);
	sigdelset(&all, SIGBUS);
	sigdelset(&all, SIGSEGV);
	sigdelset(&all, SIGFPE);
	sigdelset(&all, SIGILL);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	while (!failed && work->thread_count < threads) {
		failed =
			pthread_create(&work->threads[work->thread_count], NULL, thread_main, work);
		if (!failed)
			work->thread_count++;
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (failed)
		return err_set(SECPOOL_E_SYSTEM, "can't start a thread (error %d)", failed);
	return SECPOOL_OK;
}

enum secpool_error work_new(sd_event *loop, unsigned threads, struct work **ret_work)
{
	struct work *work = calloc(1, sizeof *work);
	enum secpool_error error = SECPOOL_OK;

	assert(threads >= 1 && threads <= WORK_THREADS_MOST);
	if (!work)
		return err_set(SECPOOL_E_NO_MEMORY, "worker threads: out of memory");
	pthread_mutex_init(&work->lock, NULL);
	pthread_cond_init(&work->more, NULL);
	list_init(&work->waiting);
	list_init(&work->finished);
	work->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (work->wake < 0)
		error = os_error("eventfd");
	else if (sd_event_add_io(loop, &work->source, work->wake, EPOLLIN, on_wake, work) < 0)
		error = err_set(SECPOOL_E_SYSTEM, "worker threads: can't watch their eventfd");
	if (!error)
		error = start_threads(work, threads);
	if (error)
		work_free(work);
	else
		*ret_work = work;
	return error;
}

void work_start(struct work *work, struct work_item *item)
{
	pthread_mutex_lock(&work->lock);
	list_add(&work->waiting, item);
	pthread_cond_signal(&work->more);
	pthread_mutex_unlock(&work->lock);
}

/* What `done` started when the threads had ended: an ending can take several steps. */
static void run_rest(struct work *work)
{
	struct work_item *item;

	while ((item = list_take(&work->waiting)) != NULL) {
		item->run(item);
		item->done(item);
	}
}

void work_free(struct work *work)
{
	if (!work)
		return;
	pthread_mutex_lock(&work->lock);
	work->ending = true;
	pthread_cond_broadcast(&work->more);
	pthread_mutex_unlock(&work->lock);
	for (unsigned i = 0; i < work->thread_count; i++)
		pthread_join(work->threads[i], NULL);
	finish_all(work);
	if (work->thread_count > 0)
		run_rest(work);
	sd_event_source_disable_unref(work->source);
	os_close(&work->wake);
	pthread_cond_destroy(&work->more);
	pthread_mutex_destroy(&work->lock);
	free(work);
}
