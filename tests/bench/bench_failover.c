/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device is pulled during a loop of random reads: how long until the first right byte, how long every access stalled, and when the program was told. With
 * redundancy or refill every access must be right; without, those to lost pages end in SIGBUS, which is how long they took.
 */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/base/err.h"
#include "tests/bench/removal.h"

enum { PAGE = 4096, PAGES = 16384, ROUNDS = 5, AFTER = 20000, PLUG_MS = 10000 };
static const size_t LOCAL_BYTES = 16u << 20;

struct round {
	double first_us; /* of the first access that began after the pull */
	double longest_us, p99_us, p50_us;
	double told_us;
	unsigned wrong, lost;
};

/* The word of each page that is looked at. */
static uint64_t word_of(uint64_t page)
{
	return page | 1ull << 40;
}

static int refill(void *arg, size_t offset, void *buffer, size_t bytes)
{
	uint64_t word = word_of(offset / PAGE);

	(void)arg;
	(void)bytes;
	memcpy(buffer, &word, sizeof word);
	return 0;
}

static const struct removal_kind kinds[] = {
	{.name = "mirror:2", .redundancy = SECPOOL_REDUNDANCY_MIRROR, .copies = 2},
	{.name = "ec:4+2", .redundancy = SECPOOL_REDUNDANCY_EC, .data = 4, .parity = 2},
	{.name = "none, sigbus",
		.redundancy = SECPOOL_REDUNDANCY_NONE,
		.on_loss = SECPOOL_ON_LOSS_SIGBUS},
	{.name = "none, refill",
		.redundancy = SECPOOL_REDUNDANCY_NONE,
		.on_loss = SECPOOL_ON_LOSS_REFILL,
		.refill = refill},
};

static sigjmp_buf out_of_access;
static volatile sig_atomic_t may_be_lost;

static void on_bus(int number)
{
	if (!may_be_lost) {
		signal(number, SIG_DFL); /* the access is made again, and ends the bench */
		return;
	}
	siglongjmp(out_of_access, 1);
}

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
static uint64_t access_page(const volatile uint64_t *at, uint64_t page, struct round *round)
{
	uint64_t start = clock_now_ns();

	if (may_be_lost && sigsetjmp(out_of_access, 1) != 0)
		round->lost++;
	else if (at[page * PAGE / sizeof *at] != word_of(page))
		round->wrong++;
	return clock_now_ns() - start;
}

static int run_round(
	struct secpool *pool, const volatile uint64_t *at, const char *device, struct round *round)
{
	static double stalls[AFTER];
	uint64_t random = 88172645463325252ull, told;
	struct removal_puller puller;
	pthread_t thread;

	*round = (struct round){.wrong = 0};
	removal_forget_events(pool);
	if (removal_open(&puller, device) != 0 ||
		pthread_create(&thread, NULL, removal_pull, &puller) != 0)
		return -1;
	while (atomic_load(&puller.begun_ns) == 0)
		access_page(at, next(&random) % PAGES, round);
	for (unsigned i = 0; i < AFTER; i++)
		stalls[i] = (double)access_page(at, next(&random) % PAGES, round) / 1e3;
	pthread_join(thread, NULL);
	removal_close(&puller);
	round->first_us = stalls[0];
	qsort(stalls, AFTER, sizeof(double), by_size);
	round->p50_us = stalls[AFTER / 2];
	round->p99_us = stalls[AFTER / 100 * 99];
	round->longest_us = stalls[AFTER - 1];
	told = removal_await(pool, SECPOOL_EVENT_DEVICE_LOST, PLUG_MS);
	round->told_us = told ? (double)(told - atomic_load(&puller.begun_ns)) / 1e3 : -1;
	return puller.failed || !told ? -1 : 0;
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

static int one_round(struct bench *bench, struct secpool *pool, const struct removal_kind *kind,
	struct round *round)
{
	struct secpool_region *region;
	char device[SECPOOL_NAME_BYTES];
	uint64_t *at, used;
	int status;

	if (removal_settle() != 0)
		return bench_failed(bench, "the devices were not scrubbed in time");
	if (removal_open_region(bench, pool, kind, (size_t)PAGES * PAGE, PAGE, &region) != 0)
		return 1;
	at = secpool_region_address(region);
	for (uint64_t page = 0; page < PAGES; page++)
		at[page * PAGE / sizeof *at] = word_of(page);
	status = secpool_flush(region) != SECPOOL_OK || removal_find_device(device, &used) != 0 ||
		 run_round(pool, at, device, round) != 0 || removal_plug(device) != 0;
	if (status != 0) {
		err_set(SECPOOL_E_NOT_FOUND,
			"no device of `secpool up --devices 7` could be pulled and plugged");
		bench_failed(bench, "pull");
	}
	if (secpool_region_release(region, NULL) != SECPOOL_OK)
		status = bench_failed(bench, "release");
	return status;
}

static int run_kind(struct bench *bench, struct secpool *pool, const struct removal_kind *kind)
{
	struct round rounds[ROUNDS];
	unsigned wrong = 0, lost = 0;
	char config[96];

	may_be_lost = kind->on_loss == SECPOOL_ON_LOSS_SIGBUS;
	for (int i = 0; i < ROUNDS; i++) {
		if (one_round(bench, pool, kind, &rounds[i]) != 0)
			return 1;
		wrong += rounds[i].wrong;
		lost += rounds[i].lost;
	}
	snprintf(config, sizeof config, "%s, random reads, 25 %% local, 4 KiB pages", kind->name);
	report(bench, rounds, "pull_to_first_right_byte", offsetof(struct round, first_us), config);
	report(bench, rounds, "longest_stall", offsetof(struct round, longest_us), config);
	report(bench, rounds, "stall_p99", offsetof(struct round, p99_us), config);
	report(bench, rounds, "stall_p50", offsetof(struct round, p50_us), config);
	report(bench, rounds, "pull_to_program_told", offsetof(struct round, told_us), config);
	bench_report(bench, "wrong_bytes", wrong, "reads", 0, 0, config);
	bench_report(bench, "ended_in_sigbus", lost, "reads", 0, 0, config);
	return wrong || (lost && !may_be_lost) ? 1 : 0;
}

int bench_failover(struct bench *bench)
{
	struct secpool_options options = {.size = sizeof options, .local_bytes = LOCAL_BYTES};
	struct secpool *pool;
	int status = 0;

	if (secpool_open("default", &options, &pool) != SECPOOL_OK)
		return bench_failed(bench, "open");
	signal(SIGBUS, on_bus);
	for (size_t i = 0; status == 0 && i < sizeof kinds / sizeof *kinds; i++)
		status = run_kind(bench, pool, &kinds[i]);
	secpool_close(pool);
	return status;
}
