/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams that read-ahead should find: every page of a region once, forward, backward, so many pages apart, and by several streams in turn, against random order.
 * And what pages of other sizes cost, and regions of other sizes with the same local memory.
 */
#include "tests/bench/space.h"

#include <stdio.h>

enum { ROUNDS = 3, RANDOM_TIMES = 6000 };

int bench_stride(struct bench *bench)
{
	static const struct {
		const char *metric;
		enum space_work work;
		long count;
	} works[] = {
		{"forward", SPACE_STRIDE, 1},
		{"backward", SPACE_STRIDE, -1},
		{"stride_2", SPACE_STRIDE, 2},
		{"stride_8", SPACE_STRIDE, 8},
		{"stride_32", SPACE_STRIDE, 32},
		{"four_streams", SPACE_STREAMS, 4},
	};
	static const char config[] = "every page of 256 MiB once, 64 MiB local, inline, a page";
	struct space_options options = {.name = "inline",
		.mode = SECPOOL_FAULT_INLINE,
		.bytes = 256u << 20,
		.local_bytes = 64u << 20,
		.copies = 1};
	struct space space, *spaces[] = {&space};
	struct space_times times;
	double random, pages = (double)(options.bytes / SPACE_PAGE);
	char metric[64];

	if (space_open_pool(bench, &options, &space) != 0)
		return 1;
	space_run(&space, SPACE_WRITE, 0);
	space_compare(spaces, 1, SPACE_RANDOM_READ, RANDOM_TIMES, ROUNDS, &times);
	random = space_median(&times) / times.misses;
	bench_report(bench, "random", random * 1e6, "us", 0, 0, config);
	for (unsigned i = 0; i < sizeof works / sizeof *works; i++) {
		space_compare(spaces, 1, works[i].work, works[i].count, ROUNDS, &times);
		space_report_cost(bench, works[i].metric, &times, pages, 1e6, "us", config);
		snprintf(metric, sizeof metric, "%s_per_random", works[i].metric);
		bench_report(
			bench, metric, space_median(&times) / pages / random, "x", 0, 0, config);
	}
	space_close(&space);
	return 0;
}

/* Sequential and random work on one region. */
static int measure(struct bench *bench, const struct space_options *options, const char *config)
{
	struct space space, *spaces[] = {&space};
	struct space_times times;

	if (space_open_pool(bench, options, &space) != 0)
		return 1;
	space_compare(spaces, 1, SPACE_WRITE, 0, ROUNDS, &times);
	space_report_rate(bench, "write", &times, (double)options->bytes / 1e9, "GB/s", config);
	space_compare(spaces, 1, SPACE_READ, 0, ROUNDS, &times);
	space_report_rate(bench, "read", &times, (double)options->bytes / 1e9, "GB/s", config);
	space_compare(spaces, 1, SPACE_RANDOM_READ,
		options->page_bytes > 64u << 10 ? RANDOM_TIMES / 20 : RANDOM_TIMES, ROUNDS, &times);
	bench_report(bench, "random_miss", space_median(&times) / times.misses * 1e6, "us", 0, 0,
		config);
	space_close(&space);
	return 0;
}

int bench_pagesize(struct bench *bench)
{
	struct space_options options = {.name = "inline",
		.mode = SECPOOL_FAULT_INLINE,
		.local_bytes = 64u << 20,
		.copies = 1};
	char config[80];

	options.bytes = 256u << 20;
	for (size_t bytes = 4096; bytes <= 2u << 20; bytes *= bytes < 65536    ? 4
							      : bytes < 524288 ? 8
									       : 4) {
		options.page_bytes = bytes;
		snprintf(config, sizeof config, "page_bytes=%zu 256 MiB, 64 MiB local, inline",
			bytes);
		if (measure(bench, &options, config) != 0)
			return 1;
	}
	options.page_bytes = 4096;
	for (size_t mib = 64; mib <= 1024; mib *= 4) {
		options.bytes = mib << 20;
		options.local_bytes = 16u << 20;
		snprintf(config, sizeof config,
			"region of %zu MiB, 16 MiB local, 4 KiB pages, inline", mib);
		if (measure(bench, &options, config) != 0)
			return 1;
	}
	return 0;
}
