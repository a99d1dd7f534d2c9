/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sequential writing and reading of a region with a quarter of it local, with and without a mirror, against memcpy and against a bare userfaultfd range
 * that is filled page by page with zeros.
 */
#include "tests/bench/bench.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "lib/base/clock.h"
#include "lib/base/err.h"
#include "lib/secpool.h"
#include "tests/bench/bare.h"

enum { PAGE = 4096, ROUNDS = 5 };
static const size_t REGION_BYTES = 256u << 20, LOCAL_BYTES = 64u << 20;

struct times {
	double seconds[ROUNDS];
};

static double since(uint64_t start)
{
	return (double)(clock_now_ns() - start) / (double)CLOCK_NS_PER_S;
}

static int by_size(const void *left, const void *right)
{
	double a = *(const double *)left, b = *(const double *)right;

	return (a > b) - (a < b);
}

/* Reports bytes a second and returns the median. */
static double report(struct bench *bench, const char *metric, struct times *times, size_t bytes,
	const char *config)
{
	double giga = (double)bytes / 1e9;

	qsort(times->seconds, ROUNDS, sizeof(double), by_size);
	bench_report(bench, metric, giga / times->seconds[ROUNDS / 2], "GB/s",
		giga / times->seconds[ROUNDS - 1], giga / times->seconds[0], config);
	return giga / times->seconds[ROUNDS / 2];
}

static double scan_bare(struct bare *bare)
{
	uint64_t start;

	bare_drop(bare);
	start = clock_now_ns();
	for (size_t i = 0; i < BARE_PAGES; i++)
		(void)bare->memory[i * PAGE];
	return since(start);
}

static double write_all(uint8_t *at, int value)
{
	uint64_t start = clock_now_ns();

	memset(at, value, REGION_BYTES);
	return since(start);
}

/* Reads every word, so that the time is that of the data's way and not of one byte a page. */
static double read_all(const uint8_t *at)
{
	uint64_t start = clock_now_ns(), sum = 0, word;

	for (size_t i = 0; i < REGION_BYTES; i += sizeof word) {
		memcpy(&word, at + i, sizeof word);
		sum += word;
	}
	__asm__ volatile("" : : "r"(sum));
	return since(start);
}

static int scan(struct bench *bench, unsigned copies, struct bare *bare, const char *config)
{
	struct secpool_options options = {.size = sizeof options, .local_bytes = LOCAL_BYTES};
	struct secpool_region_options wanted = {
		.size = sizeof wanted,
		.bytes = REGION_BYTES,
		.redundancy = copies > 1 ? SECPOOL_REDUNDANCY_MIRROR : SECPOOL_REDUNDANCY_NONE,
		.copies = copies > 1 ? copies : 0,
		.name = "bench",
	};
	struct times reads, writes, bares, copying;
	struct secpool_region *region;
	uint8_t *at, *plain, *other;
	struct secpool *pool;
	double bare_rate;

	if (secpool_open("default", &options, &pool) != SECPOOL_OK)
		return bench_failed(bench, "open");
	if (secpool_region_create(pool, &wanted, &region) != SECPOOL_OK) {
		secpool_close(pool);
		return bench_failed(bench, "create");
	}
	at = secpool_region_address(region);
	plain = malloc(LOCAL_BYTES);
	other = malloc(LOCAL_BYTES);
	if (!plain || !other)
		abort();
	memset(plain, 1, LOCAL_BYTES);
	memset(other, 2, LOCAL_BYTES);
	write_all(at, 1);
	for (int round = 0; round < ROUNDS; round++) {
		uint64_t start;
		writes.seconds[round] = write_all(at, round);
		reads.seconds[round] = read_all(at);
		bares.seconds[round] = scan_bare(bare);
		start = clock_now_ns();
		memcpy(other, plain, LOCAL_BYTES);
		__asm__ volatile("" : : "r"(other) : "memory");
		copying.seconds[round] = since(start);
	}
	bare_rate = report(bench, "bare_fault", &bares, (size_t)BARE_PAGES * PAGE, config);
	report(bench, "memcpy", &copying, LOCAL_BYTES, config);
	bench_report(bench, "write_per_bare",
		report(bench, "write", &writes, REGION_BYTES, config) / bare_rate, "x", 0, 0,
		config);
	bench_report(bench, "read_per_bare",
		report(bench, "read", &reads, REGION_BYTES, config) / bare_rate, "x", 0, 0, config);
	free(plain);
	free(other);
	secpool_close(pool);
	return 0;
}

int bench_scan(struct bench *bench)
{
	struct bare bare;
	int status;

	if (bare_open(&bare) != SECPOOL_OK)
		return bench_failed(bench, "userfaultfd");
	status = scan(
		bench, 1, &bare, "sequential, 256 MiB, 64 MiB local, 4 KiB pages, no redundancy");
	if (status == 0)
		status = scan(bench, 2, &bare,
			"sequential, 256 MiB, 64 MiB local, 4 KiB pages, mirror:2");
	bare_close(&bare);
	return status;
}
