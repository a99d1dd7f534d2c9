/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/medialook.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/base/media.h"
#include "lib/base/os.h"

struct look {
	struct look *next;
	int fd;
	uint64_t capacity;
	dev_t dev;
	ino_t ino;
	bool done, left; /* it is back; nobody waits for it any more */
	enum secpool_error error;
	uint64_t canary;
	pthread_cond_t back;
};

/* Protects: looks and what they have of done, left, error, canary. Not: the rest of a look (immutable). */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct look *looks;

/* Holds: lock, unless it never was among them. */
static void free_look(struct look *look)
{
	struct look **at = &looks;

	while (*at && *at != look)
		at = &(*at)->next;
	if (*at)
		*at = look->next;
	os_close(&look->fd);
	pthread_cond_destroy(&look->back);
	free(look);
}

static void *run(void *arg)
{
	struct look *look = arg;
	struct media media = {.control = NULL};
	uint64_t canary = 0;
	enum secpool_error error = media_open(look->fd, look->capacity, &media);

	if (!error)
		error = media_canary(&media, NULL, 0, &canary);
	media_close(&media);
	pthread_mutex_lock(&lock);
	look->error = error;
	look->canary = canary;
	look->done = true;
	if (look->left)
		free_look(look);
	else
		pthread_cond_signal(&look->back);
	pthread_mutex_unlock(&lock);
	return NULL;
}

/* Signals are the loop's, but for those that a load raises. */
static enum secpool_error start_thread(struct look *look)
{
	sigset_t all, before;
	pthread_t thread;
	int failed;

	sigfillset(&all);
	sigdelset(&all, SIGBUS);
	sigdelset(&all, SIGSEGV);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	failed = pthread_create(&thread, NULL, run, look);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (failed)
		return err_set(SECPOOL_E_SYSTEM, "a look at media: no thread (error %d)", failed);
	pthread_detach(thread);
	return SECPOOL_OK;
}

static enum secpool_error make_look(int fd, uint64_t capacity, struct look **ret_look)
{
	struct look *look = calloc(1, sizeof *look);
	pthread_condattr_t attributes;
	struct stat status;
	enum secpool_error error = SECPOOL_OK;

	if (!look)
		return err_set(SECPOOL_E_NO_MEMORY, "a look at media: out of memory");
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&look->back, &attributes);
	pthread_condattr_destroy(&attributes);
	look->capacity = capacity;
	look->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (look->fd < 0)
		error = os_error("dup of media");
	else if (fstat(look->fd, &status) != 0)
		error = os_error("stat of media");
	if (error) {
		free_look(look);
		return error;
	}
	look->dev = status.st_dev;
	look->ino = status.st_ino;
	*ret_look = look;
	return SECPOOL_OK;
}

/* Holds: lock. */
static bool is_under_way(const struct look *look)
{
	for (const struct look *other = looks; other; other = other->next)
		if (other->dev == look->dev && other->ino == look->ino)
			return true;
	return false;
}

/* Holds: lock. Whether it came back in time. */
static bool await(struct look *look, uint64_t most_ns)
{
	struct timespec until;
	int late = 0;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += (time_t)(most_ns / CLOCK_NS_PER_S);
	until.tv_nsec += (long)(most_ns % CLOCK_NS_PER_S);
	if (until.tv_nsec >= (long)CLOCK_NS_PER_S) {
		until.tv_sec++;
		until.tv_nsec -= (long)CLOCK_NS_PER_S;
	}
	while (!look->done && !late)
		late = pthread_cond_timedwait(&look->back, &lock, &until);
	return look->done;
}

/* *ret_tried: whether a look was begun; without one the error is this process's, and says nothing of the media. */
static enum secpool_error look_at(
	int fd, uint64_t capacity, uint64_t most_ns, uint64_t *ret_canary, bool *ret_tried)
{
	struct look *look = NULL;
	enum secpool_error error = make_look(fd, capacity, &look);

	if (error)
		return error;
	pthread_mutex_lock(&lock);
	*ret_tried = true;
	if (is_under_way(look)) {
		error = err_set(SECPOOL_E_TIMEOUT, "an earlier look at these media is not back");
	} else {
		error = start_thread(look);
		*ret_tried = !error;
		if (!error) {
			look->next = looks;
			looks = look;
		}
	}
	if (error) {
		free_look(look);
	} else if (await(look, most_ns)) {
		error = look->error ? err_set(look->error, "the media could not be read")
				    : SECPOOL_OK;
		if (!error)
			*ret_canary = look->canary;
		free_look(look);
	} else {
		look->left = true;
		error = err_set(SECPOOL_E_TIMEOUT, "the media did not answer in time");
	}
	pthread_mutex_unlock(&lock);
	return error;
}

enum secpool_error medialook(int fd, uint64_t capacity, uint64_t most_ns, uint64_t *ret_canary)
{
	bool tried = false;

	return look_at(fd, capacity, most_ns, ret_canary, &tried);
}

bool medialook_there(int fd, uint64_t capacity)
{
	uint64_t canary = 0;
	bool emulated, tried = false;
	enum secpool_error error;

	if (media_is_emulated(fd, &emulated) != SECPOOL_OK)
		return false;
	if (emulated)
		return media_there(fd, capacity);
	error = look_at(fd, capacity, MEDIALOOK_NS, &canary, &tried);
	return !tried || (!error && media_canary_allowed(canary));
}
