/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a miss costs: random pages of a region with a quarter of it local, against a bare userfaultfd fault that one handler thread
 * serves with a page of zeros. Both in the same run, in rounds that take turns.
 */
#include "tests/bench/bench.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "lib/base/err.h"
#include "lib/secpool.h"
#include "lib/uffd.h"
#include "tests/bench/bare.h"

enum { PAGE = 4096, PAGES = 16384, LOCAL_BYTES = PAGES / 4 * PAGE, TIMES = 2000 };

struct pool_side {
	struct secpool *pool;
	struct secpool_region *region;
	volatile uint8_t *at;
	uint64_t random;
	bool write;
};

static uint64_t next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static uint64_t count_misses(const struct pool_side *side)
{
	struct secpool_stats stats = {.size = sizeof stats};

	return secpool_stats(side->pool, &stats) == SECPOOL_OK ? stats.fills : 0;
}

static void touch_pool(void *arg, unsigned times)
{
	struct pool_side *side = arg;

	for (unsigned i = 0; i < times; i++) {
		uint64_t page = next(&side->random) % PAGES;
		if (side->write)
			side->at[page * PAGE] = (uint8_t)i;
		else
			(void)side->at[page * PAGE];
	}
}

static void touch_bare(void *arg, unsigned times)
{
	struct bare *bare = arg;
	static unsigned at;

	for (unsigned i = 0; i < times; i++) {
		if (at == BARE_PAGES) {
			bare_drop(bare);
			at = 0;
		}
		(void)bare->memory[(size_t)at++ * PAGE];
	}
}

static int open_side(struct bench *bench, struct pool_side *side)
{
	struct secpool_options options = {.size = sizeof options, .local_bytes = LOCAL_BYTES};
	struct secpool_region_options region = {
		.size = sizeof region, .bytes = (size_t)PAGES * PAGE, .name = "bench"};

	if (secpool_open("default", &options, &side->pool) != SECPOOL_OK)
		return bench_failed(bench, "open");
	if (secpool_region_create(side->pool, &region, &side->region) != SECPOOL_OK)
		return bench_failed(bench, "create");
	side->at = secpool_region_address(side->region);
	for (size_t i = 0; i < PAGES; i++)
		memset((void *)(side->at + i * PAGE), (int)i, PAGE);
	return 0;
}

static void report(struct bench *bench, const struct bench_candidate *candidates, double miss_share,
	const char *config)
{
	double per_access = bench_median(&candidates[0]) / TIMES * 1e6;
	double bare = bench_median(&candidates[1]) / TIMES * 1e6;

	bench_report(bench, "access", per_access, "us", candidates[0].seconds[0] / TIMES * 1e6,
		candidates[0].seconds[BENCH_ROUNDS - 1] / TIMES * 1e6, config);
	bench_report(bench, "miss", per_access / miss_share, "us", 0, 0, config);
	bench_report(bench, "bare_fault", bare, "us", candidates[1].seconds[0] / TIMES * 1e6,
		candidates[1].seconds[BENCH_ROUNDS - 1] / TIMES * 1e6, config);
	bench_report(
		bench, "miss_per_bare_fault", per_access / miss_share / bare, "x", 0, 0, config);
}

int bench_fault(struct bench *bench)
{
	struct pool_side side = {.random = 88172645463325252ull};
	struct bare bare;
	int status;

	if (bare_open(&bare) != SECPOOL_OK)
		return bench_failed(bench, "userfaultfd");
	status = open_side(bench, &side);
	for (int write = 0; status == 0 && write < 2; write++) {
		struct bench_candidate candidates[] = {
			{.metric = "access", .run = touch_pool, .arg = &side},
			{.metric = "bare_fault", .run = touch_bare, .arg = &bare},
		};
		uint64_t before = count_misses(&side);
		double share;
		side.write = write;
		bench_compare(candidates, 2, TIMES);
		share = (double)(count_misses(&side) - before) /
			((BENCH_ROUNDS + 1) * (double)TIMES);
		report(bench, candidates, share,
			write ? "thread mode, random writes, 25 % local, 4 KiB pages"
			      : "thread mode, random reads, 25 % local, 4 KiB pages");
	}
	secpool_close(side.pool);
	bare_close(&bare);
	return status;
}
