/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sequential writing and reading of 512 MiB with 128 MiB of local memory, in both fault modes and mirrored, against kernel swap on zram under the same limit and
 * against ordinary memory. And of a region that is resident as a whole, against ordinary memory: what no fault costs.
 */
#include "tests/bench/space.h"

#include <stdio.h>
#include <string.h>

static const size_t BYTES = 512u << 20, LOCAL_BYTES = 128u << 20, RESIDENT_BYTES = 32u << 20;
enum { ROUNDS = 3, RESIDENT_ROUNDS = 9, POOLS = 3 };

static const char CONFIG[] = "512 MiB, 128 MiB local, 4 KiB pages, half-compressible data";

static void report(struct bench *bench, struct space *const *spaces,
	const struct space_times *times, unsigned count, const char *what, bool has_zram)
{
	char metric[64];

	for (unsigned i = 0; i < count; i++) {
		snprintf(metric, sizeof metric, "%s_%s", what, spaces[i]->name);
		space_report_rate(bench, metric, &times[i], (double)BYTES / 1e9, "GB/s", CONFIG);
	}
	for (unsigned i = 0; has_zram && i < POOLS; i++) {
		snprintf(metric, sizeof metric, "%s_%s_per_zram", what, spaces[i]->name);
		bench_report(bench, metric,
			space_median(&times[count - 1]) / space_median(&times[i]), "x", 0, 0,
			CONFIG);
	}
}

static int scan(struct bench *bench)
{
	static const struct space_options options[POOLS] = {
		{.name = "thread", .mode = SECPOOL_FAULT_THREAD, .copies = 1},
		{.name = "inline", .mode = SECPOOL_FAULT_INLINE, .copies = 1},
		{.name = "inline_mirror", .mode = SECPOOL_FAULT_INLINE, .copies = 2},
	};
	struct space all[POOLS + 2], *spaces[POOLS + 2];
	struct space_times writes[POOLS + 2], reads[POOLS + 2];
	bool has_zram = space_open_zram(bench, BYTES, LOCAL_BYTES, &all[POOLS + 1]);
	unsigned opened = 0;
	int status = 0;

	for (; status == 0 && opened < POOLS; opened++) {
		struct space_options one = options[opened];
		one.bytes = BYTES;
		one.local_bytes = LOCAL_BYTES;
		status = space_open_pool(bench, &one, &all[opened]);
		if (status != 0)
			break;
	}
	if (status == 0)
		status = space_open_plain(bench, "memory", BYTES, &all[opened]);
	if (status == 0) {
		opened++;
		for (unsigned i = 0; i < POOLS + 2; i++)
			spaces[i] = &all[i];
		space_compare(spaces, POOLS + 1 + has_zram, SPACE_WRITE, 0, ROUNDS, writes);
		space_compare(spaces, POOLS + 1 + has_zram, SPACE_READ, 0, ROUNDS, reads);
		report(bench, spaces, writes, POOLS + 1 + has_zram, "write", has_zram);
		report(bench, spaces, reads, POOLS + 1 + has_zram, "read", has_zram);
	}
	for (unsigned i = 0; i < opened; i++)
		space_close(&all[i]);
	if (has_zram)
		space_close(&all[POOLS + 1]);
	return status;
}

static int resident(struct bench *bench)
{
	static const char config[] = "32 MiB, all of it resident";
	struct space_options options = {.name = "pool",
		.mode = SECPOOL_FAULT_INLINE,
		.bytes = RESIDENT_BYTES,
		.local_bytes = 2 * RESIDENT_BYTES,
		.copies = 1};
	struct space pool, memory, *spaces[] = {&pool, &memory};
	struct space_times times[2];

	if (space_open_pool(bench, &options, &pool) != 0)
		return 1;
	if (space_open_plain(bench, "memory", RESIDENT_BYTES, &memory) != 0) {
		space_close(&pool);
		return 1;
	}
	space_run(&pool, SPACE_WRITE, 0);
	space_run(&memory, SPACE_WRITE, 0);
	space_compare(spaces, 2, SPACE_READ, 0, RESIDENT_ROUNDS, times);
	space_report_rate(bench, "resident_read_pool", &times[0], (double)RESIDENT_BYTES / 1e9,
		"GB/s", config);
	space_report_rate(bench, "resident_read_memory", &times[1], (double)RESIDENT_BYTES / 1e9,
		"GB/s", config);
	bench_report(bench, "resident_per_memory",
		space_median(&times[0]) / space_median(&times[1]), "x", 0, 0, config);
	space_close(&pool);
	space_close(&memory);
	return 0;
}

int bench_scan(struct bench *bench)
{
	int status = scan(bench);

	return status ? status : resident(bench);
}
