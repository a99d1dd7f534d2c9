/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What each redundancy costs: sequential and random writing through a quarter of local memory, against none, in one run; the devices' space, the metadata, and what reads cost while a device is gone
 * and nothing can take its place.
 */
#include <stdio.h>
#include <string.h>

#include "lib/base/clock.h"
#include "tests/bench/removal.h"
#include "tests/bench/space.h"

static const size_t BYTES = 128u << 20, LOCAL_BYTES = 32u << 20;
enum { ROUNDS = 5, TOUCHES = 20000, KINDS = 6 };
static const char CONFIG[] = "128 MiB, 25 % local, 4 KiB pages, inline";

/* The widest first: what is measured with a device gone has no spare one then. */
static const struct removal_kind kinds[KINDS] = {
	{.name = "none", .redundancy = SECPOOL_REDUNDANCY_NONE},
	{.name = "mirror:2", .redundancy = SECPOOL_REDUNDANCY_MIRROR, .copies = 2},
	{.name = "mirror:3", .redundancy = SECPOOL_REDUNDANCY_MIRROR, .copies = 3},
	{.name = "ec:2+1", .redundancy = SECPOOL_REDUNDANCY_EC, .data = 2, .parity = 1},
	{.name = "ec:4+2", .redundancy = SECPOOL_REDUNDANCY_EC, .data = 4, .parity = 2},
	{.name = "ec:5+2", .redundancy = SECPOOL_REDUNDANCY_EC, .data = 5, .parity = 2},
};

static int open_space(struct bench *bench, const struct removal_kind *kind, struct space *ret_space)
{
	struct secpool_options options = {.size = sizeof options,
		.local_bytes = LOCAL_BYTES,
		.fault_mode = SECPOOL_FAULT_INLINE};

	*ret_space =
		(struct space){.name = kind->name, .bytes = BYTES, .random = 88172645463325252ull};
	if (secpool_open("default", &options, &ret_space->pool) != SECPOOL_OK)
		return bench_failed(bench, "open");
	if (removal_open_region(
		    bench, ret_space->pool, kind, BYTES, SPACE_PAGE, &ret_space->region) != 0) {
		secpool_close(ret_space->pool);
		return 1;
	}
	ret_space->memory = secpool_region_address(ret_space->region);
	return 0;
}

static void report_kind(struct bench *bench, const char *what, const struct space_times *times,
	unsigned kind, bool rate, double per_round)
{
	char metric[64];

	snprintf(metric, sizeof metric, "%s_%s", what, kinds[kind].name);
	if (rate)
		space_report_rate(bench, metric, &times[kind], per_round / 1e9, "GB/s", CONFIG);
	else
		space_report_cost(bench, metric, &times[kind], per_round, 1e6, "us", CONFIG);
	snprintf(metric, sizeof metric, "%s_%s_per_none", what, kinds[kind].name);
	bench_report(bench, metric, space_median(&times[kind]) / space_median(&times[0]), "x", 0, 0,
		CONFIG);
}

static int whole(struct bench *bench)
{
	struct space all[KINDS], *spaces[KINDS];
	struct space_times writes[KINDS], reads[KINDS], touches[KINDS];
	unsigned opened = 0;

	while (opened < KINDS && open_space(bench, &kinds[opened], &all[opened]) == 0) {
		spaces[opened] = &all[opened];
		opened++;
	}
	if (opened == KINDS) {
		space_compare(spaces, KINDS, SPACE_WRITE, 0, ROUNDS, writes);
		space_compare(spaces, KINDS, SPACE_READ, 0, ROUNDS, reads);
		space_compare(spaces, KINDS, SPACE_RANDOM_WRITE, TOUCHES, ROUNDS, touches);
		for (unsigned i = 0; i < KINDS; i++)
			report_kind(bench, "write", writes, i, true, (double)BYTES);
		for (unsigned i = 0; i < KINDS; i++)
			report_kind(bench, "read", reads, i, true, (double)BYTES);
		for (unsigned i = 0; i < KINDS; i++)
			report_kind(bench, "random_write", touches, i, false, TOUCHES);
	}
	for (unsigned i = 0; i < opened; i++)
		space_close(&all[i]);
	return opened == KINDS ? 0 : 1;
}

/* ec:5+2 is on all seven devices: with one of them gone there is no spare space. */
static int degraded(struct bench *bench)
{
	struct space space, *spaces[] = {&space};
	char device[SECPOOL_NAME_BYTES];
	struct space_times before, after;
	struct removal_puller puller;
	uint64_t used;
	int status = 0;

	if (open_space(bench, &kinds[KINDS - 1], &space) != 0)
		return 1;
	space_run(&space, SPACE_WRITE, 0);
	space_compare(spaces, 1, SPACE_RANDOM_READ, TOUCHES, ROUNDS, &before);
	if (removal_find_device(device, &used) != 0 || removal_open(&puller, device) != 0) {
		status = bench_failed(bench, "no device to pull");
	} else {
		removal_pull(&puller);
		removal_close(&puller);
		space_compare(spaces, 1, SPACE_RANDOM_READ, TOUCHES, ROUNDS, &after);
		space_report_cost(bench, "random_read_whole", &before, TOUCHES, 1e6, "us",
			"ec:5+2 of seven devices");
		space_report_cost(bench, "random_read_degraded", &after, TOUCHES, 1e6, "us",
			"ec:5+2 with one of seven devices gone");
		if (removal_plug(device) != 0)
			status = bench_failed(bench, "plug");
	}
	space_close(&space);
	return status;
}

/* By arithmetic: what the formats say (docs/redundancy.md). */
static void costs(struct bench *bench)
{
	char config[64];

	for (unsigned i = 0; i < KINDS; i++) {
		double data = kinds[i].data ? kinds[i].data : 1;
		double lanes = kinds[i].data	 ? kinds[i].data + kinds[i].parity
			       : kinds[i].copies ? kinds[i].copies
						 : 1;
		snprintf(config, sizeof config, "%s", kinds[i].name);
		bench_report(bench, "device_bytes_per_byte", lanes / data, "x", 0, 0, config);
		bench_report(bench, "metadata_per_page", data > 1 ? 24 + 8 / data : 24, "B", 0, 0,
			config);
	}
}

int bench_redundancy(struct bench *bench)
{
	int status = whole(bench);

	if (status == 0)
		status = degraded(bench);
	if (status == 0)
		costs(bench);
	return status;
}
