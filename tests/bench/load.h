/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many clients of keymgrd in one thread, each a connection of its own over the real socket, each with one request under way at a time; how long each request took, and what the daemon's processes took of the
 * processors and of memory meanwhile. For bench_keymgr.c. Threads: one for each load.
 */
#ifndef SECPOOL_TESTS_LOAD_H
#define SECPOOL_TESTS_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "lib/base/err.h"

enum { LOAD_SESSIONS = 0, LOAD_CREATES, LOAD_RELEASES, LOAD_KINDS };

/* What the requests of one kind took. */
struct load_samples {
	uint32_t *us10; /* tenths of a microsecond */
	size_t count, room;
};

/* What a run does: sessions opened and ended; regions made and kept; those released; regions made and released. */
enum load_run { LOAD_RUN_SESSIONS = 0, LOAD_RUN_CREATES, LOAD_RUN_RELEASES, LOAD_RUN_BOTH };

struct load_client;

struct load {
	const char *path, *tenant;
	int epoll;
	struct load_client *clients;
	size_t count;
	size_t started, wanted; /* of what a run is to do */
	size_t busy;
	enum load_run run;
	uint64_t base_ns, gap_ns; /* paced: a request is due every gap; 0: as soon as its client is free */
	struct load_samples samples[LOAD_KINDS];
	enum secpool_error error; /* of a request that failed: the run ends */
};

/* Clients without connections yet. path, tenant: borrowed. Errors: SECPOOL_E_NO_MEMORY, SECPOOL_E_SYSTEM. */
enum secpool_error load_init(struct load *load, const char *path, const char *tenant, size_t clients) MUST_USE;
/* Ends all connections. */
void load_done(struct load *load);

/* Every client has a session after this. Errors: those of the connection, the daemon's. */
enum secpool_error load_open(struct load *load) MUST_USE;

/* `times` sessions opened and ended by all clients together; latency from connect to SESSION_OPENED. The clients are without one before and afterwards. */
enum secpool_error load_sessions(struct load *load, size_t times) MUST_USE;

/*
 * `times` regions of one page made and released, each by one client, which has a session. per_second: how many are to begin in a second, by turns of the clients, whether or not those before are done (latency counts from when it was due); 0: as many
 * as can.
 */
enum secpool_error load_regions(struct load *load, size_t times, unsigned per_second) MUST_USE;

/* `times` regions made, and kept; and all that are kept released. As many as can. */
enum secpool_error load_creates(struct load *load, size_t times) MUST_USE;
enum secpool_error load_releases(struct load *load) MUST_USE;

/* In microseconds; part: 0 to 1. 0 without samples. Sorts. */
double load_latency(struct load *load, unsigned kind, double part);
void load_forget(struct load *load);

/* What a daemon and all that it started took of the processors so far, in seconds; and its memory that is resident, in bytes. */
struct load_cost {
	double cpu_s;
	uint64_t resident_bytes;
};
struct load_cost load_cost_of(pid_t daemon);

#endif
