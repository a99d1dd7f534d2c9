/* SPDX-License-Identifier: Apache-2.0 */
/* secpool-bench NAME... [--json]: exit status 0 done, 1 failed, 2 wrong usage. */
#include "tests/bench/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/base/err.h"

static const struct {
	const char *name;
	int (*run)(struct bench *bench);
	const char *about;
} table[] = {
	{"cipher", bench_cipher, "page cipher against OpenSSL alone, memcpy and memset"},
	{"scrub", bench_scrub, "overwriting released space and reading it back, against memset"},
	{"extents", bench_extents, "making and ending up to a million regions in the directory"},
	{"keymgr", bench_keymgr, "keymgrd under load: clients, idle sessions, a hostile neighbour"},
	{"audit", bench_audit, "records of the audit, against bare writes with fdatasync"},
	{"fault", bench_fault, "a miss against a bare userfaultfd fault and kernel swap on zram"},
	{"scan", bench_scan, "sequential reads and writes against kernel swap on zram and memory"},
	{"random", bench_random, "as fault, with writes, and on a busy machine"},
	{"threads", bench_threads, "random reads by two threads against one"},
	{"stride", bench_stride, "streams that read-ahead finds"},
	{"pagesize", bench_pagesize, "pages from 4 KiB to 2 MiB, regions from 64 MiB to 1 GiB"},
	{"metadata", bench_metadata, "memory: metadata a page, plaintext against its limit"},
	{"evict", bench_evict, "miss ratios of the order of eviction, on traces"},
	{"readwrite", bench_readwrite, "secpool_read and secpool_write against the page cipher"},
	{"heap", bench_heap, "secpool_malloc against jemalloc and glibc"},
	{"program", bench_program, "SQLite in pool memory against memory and kernel swap on zram"},
	{"share", bench_share,
		"ten programs that search a sealed tree, or load its file themselves"},
	{"overhead", bench_overhead, "where the time of a miss goes"},
	{"redundancy", bench_redundancy, "what mirrors and erasure codes cost, against none"},
	{"failover", bench_failover,
		"a device pulled during reads: stalls, time to the first right byte"},
	{"rebuild", bench_rebuild, "a device pulled, throughput until the region is whole again"},
};

enum { BENCHES = sizeof table / sizeof *table };

void bench_report(struct bench *bench, const char *metric, double value, const char *unit,
	double least, double most, const char *config)
{
	if (bench->json) {
		printf("{\"bench\":\"%s\",\"metric\":\"%s\",\"value\":%.4g,\"unit\":\"%s\","
		       "\"config\":\"%s\"",
			bench->name, metric, value, unit, config);
		if (most > 0)
			printf(",\"least\":%.4g,\"most\":%.4g", least, most);
		printf("}\n");
		fflush(stdout);
		return;
	}
	if (strncmp(bench->section, config, sizeof bench->section - 1) != 0)
		printf("\n%s  %s\n", bench->name, config);
	snprintf(bench->section, sizeof bench->section, "%s", config);
	printf("  %-28s %10.4g %-5s", metric, value, unit);
	if (most > 0)
		printf("  (%.4g to %.4g)", least, most);
	printf("\n");
	fflush(stdout);
}

int bench_failed(const struct bench *bench, const char *what)
{
	fprintf(stderr, "secpool-bench: %s: %s: %s\n", bench->name, what, err_detail());
	return 1;
}

static int by_size(const void *left, const void *right)
{
	double a = *(const double *)left, b = *(const double *)right;

	return (a > b) - (a < b);
}

void bench_compare(struct bench_candidate *candidates, size_t count, unsigned times)
{
	for (size_t i = 0; i < count; i++)
		candidates[i].run(candidates[i].arg, times);
	for (size_t round = 0; round < BENCH_ROUNDS; round++) {
		for (size_t i = 0; i < count; i++) {
			uint64_t start = clock_now_ns();

			candidates[i].run(candidates[i].arg, times);
			candidates[i].seconds[round] =
				(double)(clock_now_ns() - start) / (double)CLOCK_NS_PER_S;
		}
	}
	for (size_t i = 0; i < count; i++)
		qsort(candidates[i].seconds, BENCH_ROUNDS, sizeof(double), by_size);
}

double bench_median(const struct bench_candidate *candidate)
{
	return candidate->seconds[BENCH_ROUNDS / 2];
}

static int usage(FILE *to, int status)
{
	fprintf(to, "usage: secpool-bench NAME... [--json] [--regions N]\n");
	for (size_t i = 0; i < BENCHES; i++)
		fprintf(to, "  %-10s %s\n", table[i].name, table[i].about);
	return status;
}

static size_t find(const char *name)
{
	size_t i = 0;

	while (i < BENCHES && strcmp(table[i].name, name) != 0)
		i++;
	return i;
}

struct options {
	bool json;
	uint64_t regions;
};

static int run(size_t at, const struct options *options)
{
	struct bench bench = {
		.name = table[at].name, .json = options->json, .regions = options->regions};

	return table[at].run(&bench);
}

/* Several benches have a process each: a child of a process that used the library can't open a pool, and some benches have children that do. */
static int run_apart(size_t at, const struct options *options)
{
	int status = -1;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid == 0)
		exit(run(at, options));
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0)
		return 1;
	return 0;
}

/* The number of --regions: at least a window of bench_extents. */
static bool read_regions(const char *text, uint64_t *ret_regions)
{
	char *end = NULL;
	unsigned long long number = text ? strtoull(text, &end, 10) : 0;

	if (!text || *end || text[0] == '-' || number < BENCH_REGIONS_LEAST ||
		number > BENCH_REGIONS_MOST)
		return false;
	*ret_regions = number;
	return true;
}

/* Takes what names no bench; status is set when it is none. */
static int read_options(int argc, char **argv, struct options *options, int *ret_named)
{
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--json") == 0) {
			options->json = true;
		} else if (strcmp(argv[i], "--regions") == 0) {
			if (!read_regions(argv[++i], &options->regions)) {
				fprintf(stderr, "secpool-bench: --regions takes %d to %d\n",
					BENCH_REGIONS_LEAST, BENCH_REGIONS_MOST);
				return usage(stderr, 2);
			}
		} else if (find(argv[i]) < BENCHES) {
			(*ret_named)++;
		} else {
			fprintf(stderr, "secpool-bench: there is no bench or option '%s'\n",
				argv[i]);
			return usage(stderr, 2);
		}
	}
	return *ret_named == 0 ? usage(stderr, 2) : 0;
}

int main(int argc, char **argv)
{
	struct options options = {.json = false};
	int named = 0, status;

	for (int i = 1; i < argc; i++)
		if (strcmp(argv[i], "--help") == 0)
			return usage(stdout, 0);
	status = read_options(argc, argv, &options, &named);
	if (status != 0)
		return status;
	for (int i = 1; i < argc; i++) {
		size_t at = find(argv[i]);

		if (at < BENCHES && (named > 1 ? run_apart(at, &options) : run(at, &options)) != 0)
			status = 1;
	}
	return status;
}
