/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The overwriting of released space and its read-back against memset of the same range, on one core, in GB/s of the range (10^9 bytes). The range is mapped and
 * populated before for all of them, as a device's memory mapped by large pages is; the last two metrics take a mapping of their own each time, by pages of 4 KiB, as scrub
 * does of an emulated device.
 */
#include "tests/bench/bench.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "enclave/secmem.h"
#include "keymgr/overwrite.h"
#include "lib/base/err.h"

enum {
	RANGE_BYTES = 256 << 20,
	MEMSET_BYTE = 0x5a /* some CPUs store zeros faster than anything else */
};

struct work {
	int media;
	uint8_t *map;
	bool failed;
};

/* A stream a time, as a scrub has. */
static void overwrite(struct work *work, bool compare)
{
	struct prstream *stream = NULL;

	if (prstream_new(&stream) != SECPOOL_OK ||
		overwrite_store(stream, work->map, RANGE_BYTES, NULL) != MSG_READBACK_MATCHED ||
		(compare && overwrite_compare(stream, work->map, RANGE_BYTES, NULL) !=
				    MSG_READBACK_MATCHED))
		work->failed = true;
	prstream_free(stream);
}

static void run_memset(void *arg, unsigned times)
{
	struct work *work = arg;

	for (unsigned t = 0; t < times; t++) {
		memset(work->map, MEMSET_BYTE, RANGE_BYTES);
		__asm__ volatile("" : : "r"(work->map) : "memory");
	}
}

static void run_overwrite(void *arg, unsigned times)
{
	for (unsigned t = 0; t < times; t++)
		overwrite(arg, false);
}

static void run_overwrite_readback(void *arg, unsigned times)
{
	for (unsigned t = 0; t < times; t++)
		overwrite(arg, true);
}

static void run_memset_mapping(void *arg, unsigned times)
{
	struct work *work = arg;

	for (unsigned t = 0; t < times; t++) {
		void *map =
			mmap(NULL, RANGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, work->media, 0);

		if (map == MAP_FAILED) {
			work->failed = true;
			return;
		}
		memset(map, MEMSET_BYTE, RANGE_BYTES);
		munmap(map, RANGE_BYTES);
	}
}

static void run_scrub_mapping(void *arg, unsigned times)
{
	struct work *work = arg;

	for (unsigned t = 0; t < times; t++) {
		if (overwrite_range(work->media, 0, RANGE_BYTES, NULL) != MSG_READBACK_MATCHED)
			work->failed = true;
	}
}

static void report(struct bench *bench, const struct bench_candidate *candidate, const char *config)
{
	double gigabytes = RANGE_BYTES / 1e9;

	bench_report(bench, candidate->metric, gigabytes / bench_median(candidate), "GB/s",
		gigabytes / candidate->seconds[BENCH_ROUNDS - 1], gigabytes / candidate->seconds[0],
		config);
}

static void measure(struct bench *bench, struct work *work)
{
	static const char config[] = "range=256MiB threads=1";
	struct bench_candidate candidates[] = {
		{.metric = "memset", .run = run_memset, .arg = work},
		{.metric = "overwrite", .run = run_overwrite, .arg = work},
		{.metric = "overwrite_readback", .run = run_overwrite_readback, .arg = work},
		{.metric = "memset_mapping", .run = run_memset_mapping, .arg = work},
		{.metric = "scrub_mapping", .run = run_scrub_mapping, .arg = work},
	};
	double unit;

	bench_compare(candidates, sizeof candidates / sizeof *candidates, 1);
	unit = bench_median(&candidates[0]);
	for (size_t i = 0; i < sizeof candidates / sizeof *candidates; i++)
		report(bench, &candidates[i], config);
	bench_report(bench, "overwrite_vs_memset", unit / bench_median(&candidates[1]), "ratio", 0,
		0, config);
	bench_report(bench, "readback_vs_memset", unit / bench_median(&candidates[2]), "ratio", 0,
		0, config);
}

int bench_scrub(struct bench *bench)
{
	struct work work = {.map = MAP_FAILED};
	int status = 1;

	if (secmem_init(SECMEM_ALLOW_LOCKED) != SECPOOL_OK)
		return bench_failed(bench, "secret memory");
	work.media = memfd_create("media", MFD_CLOEXEC);
	if (work.media >= 0 && ftruncate(work.media, RANGE_BYTES) == 0)
		work.map =
			mmap(NULL, RANGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, work.media, 0);
	if (work.map == MAP_FAILED) {
		fprintf(stderr, "secpool-bench: scrub: no 256 MiB of memory for media\n");
	} else {
		memset(work.map, 1, RANGE_BYTES);
		measure(bench, &work);
		munmap(work.map, RANGE_BYTES);
		status = work.failed ? bench_failed(bench, "a scrub") : 0;
	}
	close(work.media);
	return status;
}
