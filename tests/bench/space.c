/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bench/space.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/base/os.h"
#include "tests/bench/bare.h"
#include "tests/bench/zram.h"

struct order {
	enum space_work work;
	long count;
};

/* An order's count that ends the child: the end of the pipe does not, for later children have it too. */
enum { NO_MORE = -1000000 };

static struct zram zram = {.device = -1}; /* one at a time */
static struct bare bare;		  /* of a child */

static uint64_t next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* ---- the work ---- */

static void write_all(struct space *space)
{
	for (size_t at = 0; at < space->bytes; at += SPACE_PAGE) {
		uint64_t *words = (uint64_t *)(void *)(space->memory + at);
		for (size_t i = 0; i < SPACE_PAGE / sizeof *words; i++)
			words[i] = i & 1 ? next(&space->random) : at;
	}
}

static void read_all(struct space *space)
{
	uint64_t sum = 0;

	for (size_t at = 0; at < space->bytes; at += sizeof sum)
		sum += *(volatile uint64_t *)(void *)(space->memory + at);
	__asm__ volatile("" : : "r"(sum));
}

static void touch(volatile uint8_t *at, bool write)
{
	if (write)
		*at = (uint8_t)(*at + 1);
	else
		(void)*at;
}

static void touch_randomly(struct space *space, long count, bool write)
{
	size_t pages = space->bytes / SPACE_PAGE;

	for (long i = 0; i < count; i++)
		touch(space->memory + next(&space->random) % pages * SPACE_PAGE, write);
}

/* Pages of a bare range are missing once: after the last one all are dropped. Dropping is not the fault's time, so `count` fits. */
static void touch_missing(struct space *space, long count)
{
	for (long i = 0; i < count; i++)
		(void)*(volatile uint8_t *)(space->memory + (size_t)i * SPACE_PAGE);
}

static void stride(struct space *space, long step)
{
	long pages = (long)(space->bytes / SPACE_PAGE), apart = step < 0 ? -step : step;

	for (long first = 0; first < apart; first++)
		for (long at = first; at < pages; at += apart)
			touch(space->memory + (size_t)(step < 0 ? pages - 1 - at : at) * SPACE_PAGE,
				false);
}

static void streams(struct space *space, long count)
{
	size_t part = space->bytes / SPACE_PAGE / (size_t)count;

	for (size_t i = 0; i < part; i++)
		for (size_t s = 0; s < (size_t)count; s++)
			touch(space->memory + (s * part + i) * SPACE_PAGE, false);
}

struct half {
	struct space space;
	long count;
	pthread_t thread;
};

static void *work_half(void *arg)
{
	struct half *half = arg;

	touch_randomly(&half->space, half->count, false);
	return NULL;
}

static void two_threads(struct space *space, long count)
{
	struct half halves[2];

	for (int i = 0; i < 2; i++) {
		halves[i] = (struct half){.space = *space, .count = count / 2};
		/* far apart in the generator's order, or both would touch the same pages one after the other */
		halves[i].space.random = next(&space->random) * 0x9e3779b97f4a7c15ul + (uint64_t)i;
		if (pthread_create(&halves[i].thread, NULL, work_half, &halves[i]) != 0)
			abort();
	}
	for (int i = 0; i < 2; i++)
		pthread_join(halves[i].thread, NULL);
}

static double work_here(struct space *space, enum space_work work, long count)
{
	uint64_t start;

	if (space->bare)
		bare_drop(&bare);
	start = clock_now_ns();
	switch (work) {
	case SPACE_WRITE:
		write_all(space);
		break;
	case SPACE_READ:
		read_all(space);
		break;
	case SPACE_RANDOM_READ:
	case SPACE_RANDOM_WRITE:
		if (space->bare)
			touch_missing(space, count < BARE_PAGES ? count : BARE_PAGES);
		else
			touch_randomly(space, count, work == SPACE_RANDOM_WRITE);
		break;
	case SPACE_STRIDE:
		stride(space, count);
		break;
	case SPACE_STREAMS:
		streams(space, count);
		break;
	case SPACE_TWO_THREADS:
		two_threads(space, count);
		break;
	}
	return (double)(clock_now_ns() - start) / (double)CLOCK_NS_PER_S;
}

double space_run(struct space *space, enum space_work work, long count)
{
	struct order order = {.work = work, .count = count};
	double seconds;

	if (space->child == 0)
		return work_here(space, work, count);
	if (write(space->to_child, &order, sizeof order) != sizeof order ||
		read(space->from_child, &seconds, sizeof seconds) != sizeof seconds) {
		fprintf(stderr, "secpool-bench: the child that has %s ended\n", space->name);
		waitpid(space->child, NULL, 0);
		exit(1);
	}
	return seconds;
}

/* ---- children ---- */

static void obey(struct space *space, int from, int to)
{
	struct order order;

	while (read(from, &order, sizeof order) == sizeof order && order.count != NO_MORE) {
		double seconds = work_here(space, order.work, order.count);
		if (write(to, &seconds, sizeof seconds) != sizeof seconds)
			break;
	}
	_exit(0);
}

/* Forks; the child prepares its space and says whether it could. */
static bool fork_space(struct space *space, bool (*prepare)(struct space *, void *), void *arg)
{
	int down[2], up[2];
	char ready = 0;

	if (pipe(down) != 0 || pipe(up) != 0)
		return false;
	fflush(NULL);
	space->child = fork();
	if (space->child == 0) {
		close(down[1]);
		close(up[0]);
		ready = prepare(space, arg);
		if (write(up[1], &ready, 1) == 1 && ready)
			obey(space, down[0], up[1]);
		_exit(1);
	}
	close(down[0]);
	close(up[1]);
	space->to_child = down[1];
	space->from_child = up[0];
	if (space->child > 0 && read(up[0], &ready, 1) == 1 && ready)
		return true;
	space_close(space);
	return false;
}

static bool map_plain(struct space *space)
{
	void *at = mmap(
		NULL, space->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED)
		return false;
	madvise(at, space->bytes, MADV_NOHUGEPAGE);
	space->memory = at;
	return true;
}

static bool prepare_zram(struct space *space, void *arg)
{
	return zram_join(arg) && map_plain(space);
}

/* Whatever ends this process in good order, swap space and group are taken back. */
static void close_zram(void)
{
	zram_close(&zram);
}

bool space_open_zram(struct bench *bench, size_t bytes, size_t limit_bytes, struct space *ret_space)
{
	enum secpool_error error = zram_open(2 * bytes, limit_bytes, &zram);
	static bool registered;

	if (!registered)
		registered = atexit(close_zram) == 0;

	*ret_space = (struct space){.name = "zram", .bytes = bytes, .random = 88172645463325252ull};
	if (!error && fork_space(ret_space, prepare_zram, &zram))
		return true;
	zram_close(&zram);
	fprintf(stderr, "secpool-bench: %s: no comparison with kernel swap on zram: %s\n",
		bench->name, error ? err_detail() : "the child could not be limited");
	bench_report(bench, "zram_unavailable", 1, "", 0, 0, "no comparison with kernel swap");
	return false;
}

static void on_bus(int number, siginfo_t *info, void *context)
{
	uintptr_t page = (uintptr_t)info->si_addr & ~(uintptr_t)(SPACE_PAGE - 1);

	(void)number;
	(void)context;
	if (uffd_copy(&bare.uffd, (void *)page, bare.zeros, SPACE_PAGE, false) != SECPOOL_OK)
		_exit(1);
}

static bool prepare_bare(struct space *space, void *arg)
{
	struct sigaction action = {.sa_sigaction = on_bus, .sa_flags = SA_SIGINFO | SA_NODEFER};
	bool is_inline = arg != NULL;

	if (bare_open(&bare, is_inline) != SECPOOL_OK ||
		(is_inline && sigaction(SIGBUS, &action, NULL) != 0))
		return false;
	space->memory = (uint8_t *)(uintptr_t)bare.memory;
	return true;
}

bool space_open_bare(struct bench *bench, bool is_inline, struct space *ret_space)
{
	*ret_space = (struct space){.name = is_inline ? "bare_inline" : "bare_thread",
		.bytes = (size_t)BARE_PAGES * BARE_PAGE_BYTES,
		.bare = true};
	if (fork_space(ret_space, prepare_bare, is_inline ? ret_space : NULL))
		return true;
	fprintf(stderr, "secpool-bench: %s: no bare userfaultfd\n", bench->name);
	return false;
}

/* ---- spaces of this process ---- */

int space_open_plain(struct bench *bench, const char *name, size_t bytes, struct space *ret_space)
{
	*ret_space = (struct space){.name = name, .bytes = bytes, .random = 88172645463325252ull};
	if (map_plain(ret_space))
		return 0;
	(void)!os_error("%zu bytes of memory", bytes);
	return bench_failed(bench, "memory");
}

int space_open_pool(
	struct bench *bench, const struct space_options *wanted, struct space *ret_space)
{
	struct secpool_options options = {.size = sizeof options,
		.local_bytes = wanted->local_bytes,
		.fault_mode = wanted->mode};
	struct secpool_region_options region = {
		.size = sizeof region,
		.bytes = wanted->bytes,
		.page_bytes = wanted->page_bytes,
		.redundancy =
			wanted->copies > 1 ? SECPOOL_REDUNDANCY_MIRROR : SECPOOL_REDUNDANCY_NONE,
		.copies = wanted->copies > 1 ? wanted->copies : 0,
		.name = "bench",
	};
	struct space space = {
		.name = wanted->name, .bytes = wanted->bytes, .random = 88172645463325252ull};

	if (secpool_open("default", &options, &space.pool) != SECPOOL_OK)
		return bench_failed(bench, "open");
	if (secpool_region_create(space.pool, &region, &space.region) != SECPOOL_OK) {
		secpool_close(space.pool);
		return bench_failed(bench, "create");
	}
	space.memory = secpool_region_address(space.region);
	*ret_space = space;
	return 0;
}

void space_close(struct space *space)
{
	struct order end = {.count = NO_MORE};

	if (space->child > 0) {
		if (write(space->to_child, &end, sizeof end) < 0)
			kill(space->child, SIGKILL);
		close(space->to_child);
		close(space->from_child);
		waitpid(space->child, NULL, 0);
		if (strcmp(space->name, "zram") == 0)
			zram_close(&zram);
	} else if (space->pool) {
		secpool_close(space->pool);
	} else if (space->memory) {
		munmap(space->memory, space->bytes);
	}
	*space = (struct space){.name = NULL};
}

/* ---- comparing ---- */

uint64_t space_misses(const struct space *space)
{
	struct secpool_stats stats = {.size = sizeof stats};

	return space->pool && secpool_stats(space->pool, &stats) == SECPOOL_OK ? stats.fills : 0;
}

static int by_size(const void *left, const void *right)
{
	double a = *(const double *)left, b = *(const double *)right;

	return (a > b) - (a < b);
}

void space_compare(struct space *const *spaces, unsigned count, enum space_work work, long times,
	unsigned rounds, struct space_times *ret_times)
{
	uint64_t before[SPACES_MOST];

	for (unsigned i = 0; i < count; i++) {
		space_run(spaces[i], work, times);
		before[i] = space_misses(spaces[i]);
		ret_times[i] = (struct space_times){.rounds = rounds};
	}
	for (unsigned round = 0; round < rounds; round++)
		for (unsigned i = 0; i < count; i++)
			ret_times[i].seconds[round] = space_run(spaces[i], work, times);
	for (unsigned i = 0; i < count; i++) {
		ret_times[i].misses = (double)(space_misses(spaces[i]) - before[i]) / rounds;
		qsort(ret_times[i].seconds, rounds, sizeof(double), by_size);
	}
}

double space_median(const struct space_times *times)
{
	return times->seconds[times->rounds / 2];
}

void space_report_rate(struct bench *bench, const char *metric, const struct space_times *times,
	double per_round, const char *unit, const char *config)
{
	bench_report(bench, metric, per_round / space_median(times), unit,
		per_round / times->seconds[times->rounds - 1], per_round / times->seconds[0],
		config);
}

void space_report_cost(struct bench *bench, const char *metric, const struct space_times *times,
	double per_round, double scale, const char *unit, const char *config)
{
	bench_report(bench, metric, space_median(times) / per_round * scale, unit,
		times->seconds[0] / per_round * scale,
		times->seconds[times->rounds - 1] / per_round * scale, config);
}
