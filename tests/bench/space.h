/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A space: memory under test, of the pool or of what the pool is compared with. The same work is done on all spaces of a bench in turn, so that ratios hold on a
 * noisy machine. Spaces that would meddle with this process (kernel swap under a memory limit, a bare userfaultfd with faults as signals) are a child, which does
 * its work when it is told by a pipe. Open children before pools: a child must not inherit one.
 *
 * Data are half compressible: every other word is random, the others say where they are.
 * Threads: one, unless a work has more.
 */
#ifndef SECPOOL_TESTS_SPACE_H
#define SECPOOL_TESTS_SPACE_H

#include <sys/types.h>

#include "lib/base/err.h"
#include "lib/secpool.h"
#include "tests/bench/bench.h"

enum { SPACE_PAGE = 4096 };

enum space_work {
	SPACE_WRITE,        /* all of it, in order */
	SPACE_READ,         /* every word of it, in order */
	SPACE_RANDOM_READ,  /* `count` random pages, one byte each; of a bare space: missing pages */
	SPACE_RANDOM_WRITE,
	SPACE_STRIDE,       /* every page once, `count` pages apart (negative: backwards), one byte each */
	SPACE_STREAMS,      /* every page once, by `count` streams that take turns */
	SPACE_TWO_THREADS,  /* as SPACE_RANDOM_READ, half of it by each of two threads */
};

struct space {
	const char *name;
	uint8_t *memory;
	size_t bytes;
	uint64_t random;
	pid_t child;          /* 0: this process */
	int to_child, from_child;
	struct secpool *pool; /* of a pool's space */
	struct secpool_region *region;
	bool bare;
};

/* Of the pool: set name, fault mode and so on in the options. Errors: bench_failed's. */
struct space_options {
	const char *name;
	enum secpool_fault_mode mode;
	size_t bytes, local_bytes, page_bytes;
	unsigned copies; /* 1: no redundancy */
};
int space_open_pool(struct bench *bench, const struct space_options *options, struct space *ret_space) MUST_USE;

/* Ordinary memory of this process. */
int space_open_plain(struct bench *bench, const char *name, size_t bytes, struct space *ret_space) MUST_USE;

/* Ordinary memory of a child under a limit, with swap on a zram device. False, with the reason on stderr and a line of metric zram_unavailable, where that can't be had. */
bool space_open_zram(struct bench *bench, size_t bytes, size_t limit_bytes, struct space *ret_space) MUST_USE;

/* A bare userfaultfd range of a child: pages of zeros, mapped by a handler thread or, inline, in a SIGBUS handler. */
bool space_open_bare(struct bench *bench, bool is_inline, struct space *ret_space) MUST_USE;

void space_close(struct space *space);

/* Does the work and returns the seconds that it took. */
double space_run(struct space *space, enum space_work work, long count);

/* Pages that were read from devices so far. */
uint64_t space_misses(const struct space *space);

enum { SPACE_ROUNDS_MOST = 9, SPACES_MOST = 8 };

struct space_times {
	double seconds[SPACE_ROUNDS_MOST]; /* sorted */
	unsigned rounds;
	double misses; /* a round's */
};

/* The same work on all spaces in turn, `rounds` times after one to warm up. */
void space_compare(struct space *const *spaces, unsigned count, enum space_work work, long times, unsigned rounds, struct space_times *ret_times);
double space_median(const struct space_times *times);

/* Reports `per_round / seconds` (a rate) or `seconds / per_round * scale` (a cost). */
void space_report_rate(struct bench *bench, const char *metric, const struct space_times *times, double per_round, const char *unit, const char *config);
void space_report_cost(struct bench *bench, const char *metric, const struct space_times *times, double per_round, double scale, const char *unit, const char *config);

#endif
