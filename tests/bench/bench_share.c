/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ten programs that search one structure: a balanced tree of a million records, which each of them makes for itself out of a text file, or which one process made in a sealed region and all of them attach (docs/sealed.md). All ten
 * run at a time; each says how long it took until it could search, how long a search takes, and how much memory of its own it has (Pss_Anon: the pool's devices are not local memory).
 */
#include "tests/bench/bench.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/base/os.h"
#include "lib/secpool.h"

enum { RECORDS = 1000000, READERS = 10, SEARCHES = 20000, LOCAL_BYTES = 16 << 20 };
#define NAME "bench-share"

struct record {
	const struct record *less, *more;
	uint64_t key, value[5];
};

struct result {
	double ready_s, search_us, memory_mib;
	bool right;
};

/* Different for each i, and easily checked (an odd factor is a bijection on 64 bits). */
static uint64_t key_of(uint64_t i)
{
	return i * 0x9e3779b97f4a7c15u;
}

static int by_key(const void *left, const void *right)
{
	const struct record *a = left, *b = right;

	return (a->key > b->key) - (a->key < b->key);
}

/* Links sorted records to a balanced tree. */
static const struct record *link_tree(struct record *records, size_t count)
{
	struct record *middle = &records[count / 2];

	if (count == 0)
		return NULL;
	middle->less = link_tree(records, count / 2);
	middle->more = link_tree(middle + 1, count - count / 2 - 1);
	return middle;
}

/* The whole work that a sealed region saves: reading, sorting, linking. The root is the middle record. */
static bool load(const char *path, struct record *records)
{
	FILE *file = fopen(path, "r");
	size_t count = 0;

	while (file && count < RECORDS &&
		fscanf(file, "%" SCNx64 " %" SCNu64, &records[count].key,
			&records[count].value[0]) == 2)
		count++;
	if (file)
		fclose(file);
	if (count < RECORDS)
		return false;
	qsort(records, count, sizeof *records, by_key);
	return link_tree(records, count) == &records[RECORDS / 2];
}

static bool search(const struct record *records, struct result *result)
{
	uint64_t began = clock_now_ns(), random = (uint64_t)getpid();

	for (unsigned i = 0; i < SEARCHES; i++) {
		const struct record *at = &records[RECORDS / 2];
		uint64_t wanted;
		random = random * 6364136223846793005u + 1442695040888963407u; /* Knuth, MMIX */
		wanted = (random >> 33) % RECORDS;
		while (at && at->key != key_of(wanted))
			at = key_of(wanted) < at->key ? at->less : at->more;
		if (!at || at->value[0] != wanted)
			return false;
	}
	result->search_us = (double)(clock_now_ns() - began) / 1e3 / SEARCHES;
	return true;
}

static double own_mib(void)
{
	FILE *file = fopen("/proc/self/smaps_rollup", "r");
	unsigned long kib = 0;
	char line[128];

	while (file && fgets(line, sizeof line, file))
		sscanf(line, "Pss_Anon: %lu", &kib);
	if (file)
		fclose(file);
	return (double)kib / 1024;
}

/* ---- the two kinds of readers ---- */

static void read_file(const char *path, struct result *result)
{
	uint64_t began = clock_now_ns();
	struct record *records = calloc(RECORDS, sizeof *records);

	if (!records || !load(path, records))
		return;
	result->ready_s = (double)(clock_now_ns() - began) / 1e9;
	result->right = search(records, result);
	result->memory_mib = own_mib();
}

static void read_shared(const char *path, struct result *result)
{
	struct secpool_options options = {.size = sizeof options,
		.local_bytes = LOCAL_BYTES,
		.fault_mode = SECPOOL_FAULT_INLINE,
		.read_only = 1};
	uint64_t began = clock_now_ns();
	struct secpool_region *region;
	struct secpool *pool;

	(void)path;
	if (secpool_open("default", &options, &pool) != SECPOOL_OK)
		return;
	if (secpool_region_attach(pool, NAME, 0, &region) == SECPOOL_OK) {
		result->ready_s = (double)(clock_now_ns() - began) / 1e9;
		result->right = search(secpool_region_address(region), result);
		result->memory_mib = own_mib();
	}
	secpool_close(pool);
}

/* ---- the builder, and its end ---- */

static void build_shared(const char *path, struct result *result)
{
	struct secpool_options options = {.size = sizeof options, .local_bytes = 128 << 20};
	struct secpool_region_options wanted = {
		.size = sizeof wanted, .bytes = RECORDS * sizeof(struct record)};
	uint64_t began = clock_now_ns();
	struct secpool_region *region;
	struct secpool *pool;

	if (secpool_open("default", &options, &pool) != SECPOOL_OK)
		return;
	result->right = secpool_region_create(pool, &wanted, &region) == SECPOOL_OK &&
			load(path, secpool_region_address(region)) &&
			secpool_region_seal(region, NAME) == SECPOOL_OK;
	result->ready_s = (double)(clock_now_ns() - began) / 1e9;
	secpool_close(pool);
}

static void end_shared(const char *path, struct result *result)
{
	struct secpool_options options = {.size = sizeof options, .read_only = 1};
	struct secpool_region *region;
	struct secpool *pool;

	(void)path;
	if (secpool_open("default", &options, &pool) != SECPOOL_OK)
		return;
	result->right =
		secpool_region_attach(pool, NAME, SECPOOL_ATTACH_OWNER, &region) == SECPOOL_OK &&
		secpool_region_release(region, NULL) == SECPOOL_OK;
	secpool_close(pool);
}

/* Runs it in so many processes at a time. Whether all were right. */
static bool run(void (*work)(const char *path, struct result *result), const char *path,
	unsigned count, struct result *results)
{
	int ends[2];
	unsigned got = 0;
	bool right = true;

	if (pipe(ends) != 0)
		return false;
	for (unsigned i = 0; i < count; i++) {
		pid_t pid = fork();
		if (pid == 0) {
			struct result result = {.right = false};
			work(path, &result);
			if (!result.right)
				fprintf(stderr, "secpool-bench: share: %s\n",
					secpool_error_detail());
			_exit(write(ends[1], &result, sizeof result) == sizeof result ? 0 : 1);
		}
		right = right && pid > 0;
	}
	os_close(&ends[1]);
	while (got < count && read(ends[0], &results[got], sizeof *results) == sizeof *results)
		right = results[got++].right && right;
	os_close(&ends[0]);
	while (wait(NULL) > 0)
		;
	return right && got == count;
}

static bool write_file(const char *path)
{
	FILE *file = fopen(path, "w");

	for (uint64_t i = 0; file && i < RECORDS; i++)
		fprintf(file, "%" PRIx64 " %" PRIu64 "\n", key_of(i), i);
	return file && fclose(file) == 0;
}

static void report(struct bench *bench, const char *side, const struct result *results)
{
	struct result sum = {0}, least = results[0], most = results[0];
	char metric[64];

	for (unsigned i = 0; i < READERS; i++) {
		const struct result *r = &results[i];
		sum.ready_s += r->ready_s;
		sum.search_us += r->search_us;
		sum.memory_mib += r->memory_mib;
		least.ready_s = r->ready_s < least.ready_s ? r->ready_s : least.ready_s;
		most.ready_s = r->ready_s > most.ready_s ? r->ready_s : most.ready_s;
		least.search_us = r->search_us < least.search_us ? r->search_us : least.search_us;
		most.search_us = r->search_us > most.search_us ? r->search_us : most.search_us;
	}
	snprintf(metric, sizeof metric, "ready_%s", side);
	bench_report(bench, metric, sum.ready_s / READERS, "s", least.ready_s, most.ready_s,
		"ten readers");
	snprintf(metric, sizeof metric, "search_%s", side);
	bench_report(bench, metric, sum.search_us / READERS, "us", least.search_us, most.search_us,
		"ten readers");
	snprintf(metric, sizeof metric, "memory_%s", side);
	bench_report(bench, metric, sum.memory_mib, "MiB", 0, 0, "ten readers");
}

int bench_share(struct bench *bench)
{
	struct result files[READERS], shares[READERS], built, ended;
	const char *folder = getenv("TMPDIR");
	char path[256];
	bool done;

	snprintf(path, sizeof path, "%.200s/secpool-share-%d", folder ? folder : "/tmp", getpid());
	done = write_file(path) && run(read_file, path, READERS, files);
	if (done && run(build_shared, path, 1, &built)) {
		done = run(read_shared, path, READERS, shares);
		done = run(end_shared, path, 1, &ended) && done;
	} else {
		done = false;
	}
	unlink(path);
	if (!done) {
		fprintf(stderr, "secpool-bench: share: a reader or the builder failed\n");
		return 1;
	}
	report(bench, "file", files);
	report(bench, "sealed", shares);
	bench_report(bench, "build_and_seal", built.ready_s, "s", 0, 0, "ten readers");
	return 0;
}
