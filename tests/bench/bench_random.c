/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random pages of 512 MiB with a quarter of it local: what an access costs, and a miss, in both fault modes, against kernel swap on zram under the same limit and
 * against a bare userfaultfd fault of the same mode; on an idle machine and on one where every CPU has another process to run; and by two threads against one.
 */
#include "tests/bench/space.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const size_t BYTES = 512u << 20, LOCAL_BYTES = 128u << 20;
enum { ROUNDS = 5, TIMES = 6000, HOGS_MOST = 16 };
enum { THREAD, INLINE, BARE_THREAD, BARE_INLINE, ZRAM, SPACES };

struct setting {
	struct space all[SPACES], *spaces[SPACES];
	bool has_zram;
};

static void close_all(struct setting *setting)
{
	for (unsigned i = 0; i < SPACES; i++)
		space_close(&setting->all[i]);
}

static int open_all(struct bench *bench, struct setting *setting)
{
	struct space_options options = {.bytes = BYTES, .local_bytes = LOCAL_BYTES, .copies = 1};
	int status;

	*setting = (struct setting){.has_zram = false};
	for (unsigned i = 0; i < SPACES; i++)
		setting->spaces[i] = &setting->all[i];
	if (!space_open_bare(bench, false, &setting->all[BARE_THREAD]) ||
		!space_open_bare(bench, true, &setting->all[BARE_INLINE]))
		return 1;
	setting->has_zram = space_open_zram(bench, BYTES, LOCAL_BYTES, &setting->all[ZRAM]);
	options.name = "thread";
	options.mode = SECPOOL_FAULT_THREAD;
	status = space_open_pool(bench, &options, &setting->all[THREAD]);
	options.name = "inline";
	options.mode = SECPOOL_FAULT_INLINE;
	if (status == 0)
		status = space_open_pool(bench, &options, &setting->all[INLINE]);
	for (unsigned i = 0; status == 0 && i < SPACES; i++)
		if (i == THREAD || i == INLINE || (i == ZRAM && setting->has_zram)) {
			space_run(&setting->all[i], SPACE_WRITE, 0);
			space_run(&setting->all[i], SPACE_READ, 0); /* what was written has left */
		}
	return status;
}

static void report(struct bench *bench, struct setting *setting, const struct space_times *times,
	const char *config)
{
	unsigned count = setting->has_zram ? SPACES : ZRAM;
	char metric[64];

	for (unsigned i = 0; i < count; i++) {
		snprintf(metric, sizeof metric, "access_%s", setting->all[i].name);
		space_report_cost(bench, metric, &times[i], TIMES, 1e6, "us", config);
	}
	for (unsigned mode = THREAD; mode <= INLINE; mode++) {
		const char *name = setting->all[mode].name;
		double bare = space_median(&times[BARE_THREAD + mode]) / TIMES;
		double miss = space_median(&times[mode]) / times[mode].misses;
		snprintf(metric, sizeof metric, "miss_%s", name);
		bench_report(bench, metric, miss * 1e6, "us", 0, 0, config);
		snprintf(metric, sizeof metric, "miss_%s_per_bare", name);
		bench_report(bench, metric, miss / bare, "x", 0, 0, config);
		if (!setting->has_zram)
			continue;
		snprintf(metric, sizeof metric, "access_%s_per_zram", name);
		bench_report(bench, metric, space_median(&times[mode]) / space_median(&times[ZRAM]),
			"x", 0, 0, config);
	}
}

/* A process at normal priority for every CPU, that does nothing but run. */
static unsigned start_hogs(pid_t *hogs)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned count = 0;

	fflush(NULL);
	for (; count < HOGS_MOST && count < (unsigned)cpus; count++) {
		hogs[count] = fork();
		if (hogs[count] == 0)
			for (;;)
				__asm__ volatile("");
	}
	return count;
}

static void stop_hogs(const pid_t *hogs, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		kill(hogs[i], SIGKILL);
		waitpid(hogs[i], NULL, 0);
	}
}

static void compare(
	struct bench *bench, struct setting *setting, enum space_work work, const char *config)
{
	struct space_times times[SPACES];

	space_compare(
		setting->spaces, setting->has_zram ? SPACES : ZRAM, work, TIMES, ROUNDS, times);
	report(bench, setting, times, config);
}

static int run(struct bench *bench, bool all)
{
	struct setting setting;
	pid_t hogs[HOGS_MOST];
	unsigned count;
	int status = open_all(bench, &setting);

	if (status == 0)
		compare(bench, &setting, SPACE_RANDOM_READ,
			"random reads, 25 % local, 4 KiB pages, idle machine");
	if (status == 0 && all) {
		compare(bench, &setting, SPACE_RANDOM_WRITE,
			"random writes, 25 % local, 4 KiB pages, idle machine");
		count = start_hogs(hogs);
		compare(bench, &setting, SPACE_RANDOM_READ,
			"random reads, 25 % local, 4 KiB pages, every CPU busy");
		stop_hogs(hogs, count);
	}
	close_all(&setting);
	return status;
}

int bench_fault(struct bench *bench)
{
	return run(bench, false);
}

int bench_random(struct bench *bench)
{
	return run(bench, true);
}

int bench_threads(struct bench *bench)
{
	static const char config[] = "random reads, 25 % local, 4 KiB pages, in all";
	struct space_options options = {.bytes = BYTES, .local_bytes = LOCAL_BYTES, .copies = 1};
	char metric[64];

	for (unsigned mode = SECPOOL_FAULT_THREAD; mode <= SECPOOL_FAULT_INLINE; mode++) {
		struct space space, *spaces[] = {&space};
		struct space_times one, two;
		options.name = mode == SECPOOL_FAULT_INLINE ? "inline" : "thread";
		options.mode = (enum secpool_fault_mode)mode;
		if (space_open_pool(bench, &options, &space) != 0)
			return 1;
		space_run(&space, SPACE_WRITE, 0);
		space_run(&space, SPACE_READ, 0);
		space_compare(spaces, 1, SPACE_RANDOM_READ, 2 * TIMES, ROUNDS, &one);
		space_compare(spaces, 1, SPACE_TWO_THREADS, 2 * TIMES, ROUNDS, &two);
		snprintf(metric, sizeof metric, "one_thread_%s", options.name);
		space_report_cost(bench, metric, &one, 2 * TIMES, 1e6, "us", config);
		snprintf(metric, sizeof metric, "two_threads_%s", options.name);
		space_report_cost(bench, metric, &two, 2 * TIMES, 1e6, "us", config);
		snprintf(metric, sizeof metric, "throughput_two_per_one_%s", options.name);
		bench_report(
			bench, metric, space_median(&one) / space_median(&two), "x", 0, 0, config);
		space_close(&space);
	}
	return 0;
}
