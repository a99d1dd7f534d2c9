/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device is pulled during a loop of random reads on mirror:2: how long until the first right byte, how long any access stalled, and
 * when the program was told. The pull is the moment at which the media file is truncated, here, by the bench itself: hotplugd finds it as it would find anybody's.
 */
#include "tests/bench/bench.h"

#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/base/err.h"
#include "lib/base/os.h"
#include "lib/secpool.h"

enum { PAGE = 4096, PAGES = 16384, ROUNDS = 5, AFTER = 20000 };
static const size_t LOCAL_BYTES = 16u << 20;
extern char **environ;

struct round {
	double first_us; /* of the first access that began after the pull */
	double longest_us, p99_us, p50_us;
	double told_us;
	unsigned wrong;
};

static uint64_t next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static int by_size(const void *left, const void *right)
{
	double a = *(const double *)left, b = *(const double *)right;

	return (a > b) - (a < b);
}

/* One checked access; its time in nanoseconds. */
static uint64_t access_page(const volatile uint64_t *at, uint64_t page, unsigned *wrong)
{
	uint64_t start = clock_now_ns(), found = at[page * PAGE / sizeof *at];

	if (found != (page | 1ull << 40))
		(*wrong)++;
	return clock_now_ns() - start;
}

/* Truncates the media at a moment of its own choice: a device does not wait for its readers. */
struct puller {
	int fd;
	_Atomic uint64_t begun_ns;
	bool failed;
};

static void *pull(void *arg)
{
	struct puller *puller = arg;

	atomic_store(&puller->begun_ns, clock_now_ns());
	puller->failed = ftruncate(puller->fd, 0) != 0;
	return NULL;
}

static int open_media(const char *device)
{
	char runtime[PATH_MAX - 128], media[PATH_MAX];

	if (os_runtime_dir(NULL, runtime, sizeof runtime) != SECPOOL_OK)
		return -1;
	snprintf(media, sizeof media, "%s/devices/%s/media", runtime, device);
	return open(media, O_RDWR | O_CLOEXEC);
}

/* `secpool device plug`, from the folder of this program. */
static int plug(const char *device)
{
	char path[PATH_MAX];
	ssize_t length = readlink("/proc/self/exe", path, sizeof path - 16);
	char *argv[] = {path, (char *)"device", (char *)"plug", (char *)device, NULL};
	posix_spawn_file_actions_t actions;
	bool failed;
	int status;
	pid_t pid;

	if (length < 0)
		return -1;
	path[length] = '\0';
	snprintf(strrchr(path, '/'), 16, "/secpool");
	/* what it says is not a result */
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO);
	failed = posix_spawn(&pid, path, &actions, NULL, argv, environ) != 0;
	posix_spawn_file_actions_destroy(&actions);
	if (failed || waitpid(pid, &status, 0) != pid)
		return -1;
	return status == 0 ? 0 : -1;
}

static double when_told(struct secpool *pool, uint64_t pulled_ns)
{
	struct secpool_event event = {.size = sizeof event};

	while (secpool_event_next(pool, &event) == SECPOOL_OK)
		if (event.type == SECPOOL_EVENT_DEVICE_LOST)
			return (double)(event.time_ns - pulled_ns) / 1e3;
	return -1;
}

static int run_round(
	struct secpool *pool, const volatile uint64_t *at, const char *device, struct round *round)
{
	static double stalls[AFTER];
	struct puller puller = {.fd = open_media(device)};
	uint64_t random = 88172645463325252ull, began = 0;
	struct secpool_event drop = {.size = sizeof drop};
	pthread_t thread;

	*round = (struct round){.wrong = 0};
	while (secpool_event_next(pool, &drop) == SECPOOL_OK)
		;
	if (puller.fd < 0 || pthread_create(&thread, NULL, pull, &puller) != 0)
		return -1;
	while (atomic_load(&puller.begun_ns) == 0)
		access_page(at, next(&random) % PAGES, &round->wrong);
	for (unsigned i = 0; i < AFTER; i++) {
		if (i == 0)
			began = clock_now_ns();
		stalls[i] = (double)access_page(at, next(&random) % PAGES, &round->wrong) / 1e3;
		if (i == 0)
			round->first_us = (double)(clock_now_ns() - began) / 1e3;
	}
	pthread_join(thread, NULL);
	close(puller.fd);
	qsort(stalls, AFTER, sizeof(double), by_size);
	round->p50_us = stalls[AFTER / 2];
	round->p99_us = stalls[AFTER / 100 * 99];
	round->longest_us = stalls[AFTER - 1];
	round->told_us = when_told(pool, atomic_load(&puller.begun_ns));
	return puller.failed ? -1 : 0;
}

static void report(struct bench *bench, const struct round *rounds, const char *metric,
	size_t offset, const char *config)
{
	double values[ROUNDS];

	for (int i = 0; i < ROUNDS; i++)
		memcpy(&values[i], (const char *)&rounds[i] + offset, sizeof values[i]);
	qsort(values, ROUNDS, sizeof(double), by_size);
	bench_report(
		bench, metric, values[ROUNDS / 2], "us", values[0], values[ROUNDS - 1], config);
}

int bench_failover(struct bench *bench)
{
	static const char config[] = "mirror:2, random reads, 25 % local, 4 KiB pages";
	struct secpool_options options = {.size = sizeof options, .local_bytes = LOCAL_BYTES};
	struct secpool_region_options wanted = {.size = sizeof wanted,
		.bytes = (size_t)PAGES * PAGE,
		.redundancy = SECPOOL_REDUNDANCY_MIRROR,
		.copies = 2,
		.name = "bench"};
	struct secpool_region *region;
	struct round rounds[ROUNDS];
	struct secpool *pool;
	unsigned wrong = 0;
	int status = 0;

	if (secpool_open("default", &options, &pool) != SECPOOL_OK)
		return bench_failed(bench, "open");
	for (int i = 0; status == 0 && i < ROUNDS; i++) {
		uint64_t *at;
		if (secpool_region_create(pool, &wanted, &region) != SECPOOL_OK) {
			status = bench_failed(bench, "create");
			break;
		}
		at = secpool_region_address(region);
		for (uint64_t page = 0; page < PAGES; page++)
			at[page * PAGE / sizeof *at] = page | 1ull << 40;
		if (run_round(pool, at, "dev0", &rounds[i]) != 0 || plug("dev0") != 0) {
			err_set(SECPOOL_E_NOT_FOUND,
				"device dev0 of `secpool up` could not be pulled and plugged");
			status = bench_failed(bench, "pull");
		}
		wrong += rounds[i].wrong;
		if (secpool_region_release(region, NULL) != SECPOOL_OK)
			status = bench_failed(bench, "release");
	}
	secpool_close(pool);
	if (status != 0)
		return status;
	report(bench, rounds, "pull_to_first_right_byte", offsetof(struct round, first_us), config);
	report(bench, rounds, "longest_stall", offsetof(struct round, longest_us), config);
	report(bench, rounds, "stall_p99", offsetof(struct round, p99_us), config);
	report(bench, rounds, "stall_p50", offsetof(struct round, p50_us), config);
	report(bench, rounds, "pull_to_program_told", offsetof(struct round, told_us), config);
	bench_report(bench, "wrong_bytes", wrong, "reads", 0, 0, config);
	return wrong ? 1 : 0;
}
