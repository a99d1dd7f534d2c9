/* SPDX-License-Identifier: Apache-2.0 */
/* Overwriting released space, and reading it back, against memset of the same mapped range. */
#include "tests/bench/bench.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "keymgr/scrub.h"
#include "lib/base/os.h"

enum { BYTES = 256 << 20 };
enum { MEMSET, OVERWRITE, READBACK, CANDIDATES };

static void run_memset(void *arg, unsigned times)
{
	for (unsigned i = 0; i < times; i++) {
		memset(arg, (int)i, BYTES);
		__asm__ volatile("" : : "r"(arg) : "memory");
	}
}

static void run_overwrite(void *arg, unsigned times)
{
	for (unsigned i = 0; i < times; i++)
		if (scrub_mapped(arg, BYTES, false, NULL) != MSG_READBACK_MATCHED)
			abort();
}

static void run_readback(void *arg, unsigned times)
{
	for (unsigned i = 0; i < times; i++)
		if (scrub_mapped(arg, BYTES, true, NULL) != MSG_READBACK_MATCHED)
			abort();
}

int bench_scrub(struct bench *bench)
{
	static const char config[] = "256 MiB of a memfd, mapped and populated";
	int fd = memfd_create("scrub", MFD_CLOEXEC);
	void *map = MAP_FAILED;

	if (fd >= 0 && ftruncate(fd, BYTES) == 0)
		map = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
	if (map == MAP_FAILED) {
		(void)!os_error("256 MiB of a memfd");
		os_close(&fd);
		return bench_failed(bench, "memory");
	}
	struct bench_candidate candidates[CANDIDATES] = {
		[MEMSET] = {.metric = "memset", .run = run_memset, .arg = map},
		[OVERWRITE] = {.metric = "overwrite", .run = run_overwrite, .arg = map},
		[READBACK] = {.metric = "overwrite_and_readback", .run = run_readback, .arg = map},
	};
	bench_compare(candidates, CANDIDATES, 1);
	for (int i = 0; i < CANDIDATES; i++)
		bench_report(bench, candidates[i].metric,
			BYTES / 1e9 / bench_median(&candidates[i]), "GB/s",
			BYTES / 1e9 / candidates[i].seconds[BENCH_ROUNDS - 1],
			BYTES / 1e9 / candidates[i].seconds[0], config);
	for (int i = OVERWRITE; i < CANDIDATES; i++)
		bench_report(bench, i == OVERWRITE ? "overwrite_vs_memset" : "readback_vs_memset",
			bench_median(&candidates[MEMSET]) / bench_median(&candidates[i]), "x", 0, 0,
			config);
	munmap(map, BYTES);
	os_close(&fd);
	return 0;
}
