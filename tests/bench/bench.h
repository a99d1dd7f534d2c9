/* SPDX-License-Identifier: Apache-2.0 */
/*
 * secpool-bench: what the benches share. A bench measures a thing and what it is compared with in the same run, in rounds that
 * take turns, so that ratios hold on a noisy machine; it reports medians and how far the rounds spread.
 *
 * A new bench is a function `int bench_NAME(struct bench *)` in bench_NAME.c, declared here and listed in bench.c's table.
 * Threads: one, unless a bench starts more.
 */
#ifndef SECPOOL_TESTS_BENCH_H
#define SECPOOL_TESTS_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { BENCH_ROUNDS = 15 };

/* What --regions takes. */
enum { BENCH_REGIONS_LEAST = 2000, BENCH_REGIONS_MOST = 1000000 };

/* Where results go: a JSON object a line, or a table. */
struct bench {
	const char *name;
	bool json;
	uint64_t regions;  /* of --regions, for bench_extents and bench_keymgr; 0: their own number */
	char section[64]; /* of the table: the config of the last line */
};

/* One value with its config ("page_bytes=4096"; no character that JSON escapes). least and most: of the rounds; both 0 when there was one. */
void bench_report(struct bench *bench, const char *metric, double value, const char *unit, double least, double most, const char *config);

/* A failure, on stderr; returns 1, which a bench returns. */
int bench_failed(const struct bench *bench, const char *what);

/* One candidate of a comparison: `run` does the work `times` times. */
struct bench_candidate {
	const char *metric;
	void (*run)(void *arg, unsigned times);
	void *arg;
	double seconds[BENCH_ROUNDS]; /* of each round, sorted after bench_compare */
};

/* Runs all candidates in turn, BENCH_ROUNDS times after one round to warm up, each with `times`. */
void bench_compare(struct bench_candidate *candidates, size_t count, unsigned times);

/* The median of a compared candidate's rounds, in seconds. */
double bench_median(const struct bench_candidate *candidate);

/* ---- the benches: 0 done, 1 failed ---- */

/* Page cipher, its parts, OpenSSL alone, memcpy and memset, one core. */
int bench_cipher(struct bench *bench);

/* The page cipher's engines against each other: the second half of bench_cipher. */
int bench_engines(struct bench *bench);

/* Simulation of the order of eviction. */
int bench_evict(struct bench *bench);

/* Overwriting of released space and its read-back against memset. Needs no daemons. */
int bench_scrub(struct bench *bench);

/* Making and ending very many regions in keymgrd's directory. Needs no daemons. */
int bench_extents(struct bench *bench);

/* keymgrd under load: many clients, idle sessions, a hostile neighbour. Starts daemons of its own; SECPOOL_RUNTIME_DIR is not used afterwards. */
int bench_keymgr(struct bench *bench);

/* Records of the audit a second, with and without the disk. Needs no daemons. */
int bench_audit(struct bench *bench);

/* These need `secpool up`; failover, rebuild and redundancy seven devices of it, which they pull and plug. */
int bench_fault(struct bench *bench);
int bench_scan(struct bench *bench);
int bench_random(struct bench *bench);
int bench_threads(struct bench *bench);
int bench_stride(struct bench *bench);
int bench_pagesize(struct bench *bench);
int bench_metadata(struct bench *bench);
int bench_overhead(struct bench *bench);
int bench_readwrite(struct bench *bench);
int bench_heap(struct bench *bench);
int bench_program(struct bench *bench);
int bench_share(struct bench *bench);
int bench_failover(struct bench *bench);
int bench_rebuild(struct bench *bench);
int bench_redundancy(struct bench *bench);

#endif
