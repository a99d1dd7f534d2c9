/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the time of a miss goes (lib/overhead.h), and what the library holds in memory: metadata a page, and plaintext, by the kernel's own count.
 */
#include "tests/bench/space.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/overhead.h"

enum { TIMES = 20000, ROUNDS = 5, RANGES = 2 * WORKERS_MOST + 1 };

int bench_overhead(struct bench *bench)
{
	static const char config[] = "random reads, 25 % local, 4 KiB pages, inline, of a miss";
	struct space_options options = {.name = "inline",
		.mode = SECPOOL_FAULT_INLINE,
		.bytes = 256u << 20,
		.local_bytes = 64u << 20,
		.copies = 1};
	struct space space, *spaces[] = {&space};
	struct space_times off, on;
	double misses, served = 0;
	uint64_t before[OVERHEAD_STAGES];

	if (space_open_pool(bench, &options, &space) != 0)
		return 1;
	space_run(&space, SPACE_WRITE, 0);
	space_compare(spaces, 1, SPACE_RANDOM_READ, TIMES, ROUNDS, &off);
	overhead_set(space.pool, true);
	space_run(&space, SPACE_RANDOM_READ, TIMES);
	for (int i = 0; i < OVERHEAD_STAGES; i++)
		before[i] = overhead_ns(space.pool, (enum overhead_stage)i);
	misses = (double)space_misses(&space);
	on = (struct space_times){.rounds = 1};
	on.seconds[0] = space_run(&space, SPACE_RANDOM_READ, TIMES);
	misses = (double)space_misses(&space) - misses;
	overhead_set(space.pool, false);
	bench_report(bench, "miss_counters_off", space_median(&off) / off.misses * 1e9, "ns", 0, 0,
		config);
	bench_report(bench, "miss_counters_on", on.seconds[0] / misses * 1e9, "ns", 0, 0, config);
	for (int i = 0; i < OVERHEAD_STAGES; i++) {
		double ns = (double)(overhead_ns(space.pool, (enum overhead_stage)i) - before[i]) /
			    misses;
		if (i < OVERHEAD_HOLD) /* the cleaner evicts, on another CPU where there is one */
			served += ns;
		bench_report(bench, overhead_name((enum overhead_stage)i), ns, "ns", 0, 0, config);
	}
	bench_report(bench, "trap_and_return", on.seconds[0] / misses * 1e9 - served, "ns", 0, 0,
		config);
	space_close(&space);
	return 0;
}

/* ---- memory ---- */

struct range {
	uintptr_t start, end;
};

struct watch {
	struct range ranges[RANGES];
	unsigned count;
	size_t most_bytes;
};

static void add_range(struct watch *watch, const void *start, size_t bytes)
{
	if (start)
		watch->ranges[watch->count++] =
			(struct range){.start = (uintptr_t)start, .end = (uintptr_t)start + bytes};
}

/* What the kernel counts as resident in our ranges: proc(5), smaps. */
static size_t resident_bytes(const struct watch *watch)
{
	FILE *file = fopen("/proc/self/smaps", "re");
	char line[512];
	size_t bytes = 0, kib;
	bool ours = false;

	while (file && fgets(line, sizeof line, file)) {
		unsigned long start, end;
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2) {
			ours = false;
			for (unsigned i = 0; i < watch->count; i++)
				ours = ours || (start < watch->ranges[i].end &&
						       end > watch->ranges[i].start);
		} else if (ours && sscanf(line, "Rss: %zu kB", &kib) == 1) {
			bytes += kib << 10;
		}
	}
	if (file)
		fclose(file);
	return bytes;
}

/*
 * Works in bursts and looks after each: the look takes milliseconds, in which nothing is brought in, so that it is not a sum over different moments. What is
 * cleaned meanwhile can only make it less.
 */
static void work_and_look(
	struct space *space, struct watch *watch, enum space_work work, long times, int bursts)
{
	for (int i = 0; i < bursts; i++) {
		size_t bytes;
		space_run(space, work, times);
		bytes = resident_bytes(watch);
		if (bytes > watch->most_bytes)
			watch->most_bytes = bytes;
	}
}

int bench_metadata(struct bench *bench)
{
	static const char config[] =
		"512 MiB, 64 MiB local, 4 KiB pages, reads and writes, in order and random";
	struct space_options options = {.name = "inline",
		.mode = SECPOOL_FAULT_INLINE,
		.bytes = 512u << 20,
		.local_bytes = 64u << 20,
		.copies = 1};
	struct secpool_stats stats = {.size = sizeof stats};
	struct watch watch = {.count = 0};
	struct space space;

	if (space_open_pool(bench, &options, &space) != 0)
		return 1;
	add_range(&watch, space.memory, space.bytes);
	for (unsigned i = 0; i < space.pool->workers.count; i++) {
		const struct worker *worker = &space.pool->workers.all[i];
		add_range(&watch, worker->plain, worker->staging_bytes);
		add_range(&watch, worker->moved, PAGECIPHER_PAGE_BYTES_MOST);
	}
	work_and_look(&space, &watch, SPACE_WRITE, 0, 2);
	work_and_look(&space, &watch, SPACE_TWO_THREADS, 3000, 100);
	work_and_look(&space, &watch, SPACE_RANDOM_WRITE, 1000, 100);
	work_and_look(&space, &watch, SPACE_READ, 0, 2);
	if (secpool_stats(space.pool, &stats) != SECPOOL_OK)
		return bench_failed(bench, "stats");
	bench_report(bench, "metadata_per_page",
		(double)stats.metadata_bytes / (double)(space.bytes / SPACE_PAGE), "bytes", 0, 0,
		config);
	bench_report(bench, "local_limit", (double)stats.local_bytes_limit / 1048576, "MiB", 0, 0,
		config);
	bench_report(bench, "most_resident_by_smaps", (double)watch.most_bytes / 1048576, "MiB", 0,
		0, config);
	bench_report(bench, "resident_per_limit",
		(double)watch.most_bytes / (double)stats.local_bytes_limit, "x", 0, 0, config);
	space_close(&space);
	return 0;
}
