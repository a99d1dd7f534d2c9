/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A real program: SQLite with a database of about 96 MiB in memory (shop.h), all of whose memory is secpool_malloc's, with 100, 75, 50 and 25 % of what it needs in
 * local memory, in both fault modes; against the same with malloc in ordinary memory, and under the same limits with swap on zram. Each side is a process
 * that answers the same questions in turn, and must come to the same sums.
 *
 * Redis, which can't be linked with the library, comes with `secpool run`.
 */
#include "tests/bench/bench.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/base/os.h"
#include "lib/secpool.h"
#include "tests/bench/peer.h"
#include "tests/bench/shop.h"
#include "tests/bench/space.h"

enum { PLAIN, ZRAM, THREAD, INLINE, SIDES, LEVELS = 4, ROUNDS = 3, ORDERS = 420000 };
enum { AMPLE_BYTES = 256 << 20, MIB = 1 << 20, WARM_UP = 1 };
static const int levels[LEVELS] = {100, 75, 50, 25};
static const char *const names[SIDES] = {"memory", "zram", "thread", "inline"};

/* ---- SQLite's memory (https://sqlite.org/c3ref/mem_methods.html): the pool's heap ---- */
static struct secpool *memory_pool;

static void *get(int bytes)
{
	return secpool_malloc(memory_pool, (size_t)bytes);
}

static void give(void *memory)
{
	secpool_free(memory_pool, memory);
}

static void *resize(void *memory, int bytes)
{
	return secpool_realloc(memory_pool, memory, (size_t)bytes);
}

static int measure_one(void *memory)
{
	return memory ? (int)secpool_usable_size(memory_pool, memory) : 0;
}

static int round_up(int bytes)
{
	return (bytes + 7) & ~7;
}

static int start(void *arg)
{
	(void)arg;
	return SQLITE_OK;
}

static void end(void *arg)
{
	(void)arg;
}

static const sqlite3_mem_methods pool_memory = {
	.xMalloc = get,
	.xFree = give,
	.xRealloc = resize,
	.xSize = measure_one,
	.xRoundup = round_up,
	.xInit = start,
	.xShutdown = end,
};

/* ---- a side's process ---- */
struct side {
	int which;
	size_t local_bytes; /* of a pool */
	struct shop *shop;
};

struct request {
	uint64_t seed; /* 0: take back what passes changed, and say how much memory there is */
};

struct answer {
	struct shop_pass pass;
	uint64_t resident_bytes, database_bytes;
};

static enum secpool_error use_pool(const struct side *side)
{
	struct secpool_options options = {.size = sizeof options,
		.local_bytes = side->local_bytes,
		.fault_mode = side->which == INLINE ? SECPOOL_FAULT_INLINE : SECPOOL_FAULT_THREAD};
	enum secpool_error error = secpool_open("default", &options, &memory_pool);

	if (error)
		return err_set(error, "%s", secpool_error_detail());
	if (sqlite3_config(SQLITE_CONFIG_MALLOC, &pool_memory) != SQLITE_OK)
		return err_set(SECPOOL_E_SYSTEM, "SQLite takes no other memory");
	return SECPOOL_OK;
}

/* One thread: SQLite needs no locks, which in fault mode inline must not lie in pool memory. */
static enum secpool_error open_side(void *arg)
{
	struct side *side = arg;
	enum secpool_error error = SECPOOL_OK;

	if (sqlite3_config(SQLITE_CONFIG_SINGLETHREAD) != SQLITE_OK ||
		sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0) != SQLITE_OK)
		return err_set(SECPOOL_E_SYSTEM, "SQLite was started already");
	if (side->which >= THREAD)
		error = use_pool(side);
	return error ? error : shop_open(ORDERS, &side->shop);
}

/* What the heap of this side holds in local memory: of the pool, or by statm's second number (proc(5)). */
static uint64_t resident_bytes(void)
{
	struct secpool_stats stats = {.size = sizeof stats};
	unsigned long pages = 0;
	FILE *file;

	if (memory_pool && secpool_stats(memory_pool, &stats) == SECPOOL_OK)
		return stats.resident_bytes;
	file = fopen("/proc/self/statm", "re");
	if (!file || fscanf(file, "%*u %lu", &pages) != 1)
		pages = 0;
	if (file)
		fclose(file);
	return pages * SPACE_PAGE;
}

static enum secpool_error serve_side(void *arg, const void *request, void *answer)
{
	struct side *side = arg;
	struct request asked;
	struct answer said = {
		.resident_bytes = resident_bytes(), .database_bytes = shop_bytes(side->shop)};
	enum secpool_error error;

	memcpy(&asked, request, sizeof asked);
	error = asked.seed != 0 ? shop_run(side->shop, asked.seed, &said.pass)
				: shop_restore(side->shop);
	if (!error)
		memcpy(answer, &said, sizeof said);
	return error;
}

/* ---- the bench ---- */
struct program {
	struct peer peers[SIDES];
	size_t need_bytes; /* 100 %: what the pool's heap holds when all is resident */
	struct space_times queries[SIDES][SHOP_QUERIES], all[SIDES];
	uint64_t sums[ROUNDS + WARM_UP];
	bool has_zram;
};

_Static_assert(sizeof(struct answer) <= PEER_MESSAGE_BYTES, "an answer fits a message");

static enum secpool_error start_side(struct peer *peer, int which, size_t local_bytes)
{
	struct side side = {.which = which, .local_bytes = local_bytes};
	struct peer_work work = {.open = open_side, .serve = serve_side, .arg = &side};

	return peer_start(peer, &work, which == ZRAM ? local_bytes : 0);
}

static enum secpool_error restore(struct peer *peer, struct answer *ret_answer)
{
	return peer_ask(peer, &(struct request){.seed = 0}, sizeof(struct request), ret_answer,
		sizeof *ret_answer);
}

/* How much memory it needs, from a pool that holds all of it. Memory's own side is started too: it serves all levels. */
static int begin(struct bench *bench, struct program *program)
{
	static const char config[] = "SQLite, database in memory";
	struct peer *peer = &program->peers[THREAD];
	struct answer answer;

	if (start_side(&program->peers[PLAIN], PLAIN, 0) != SECPOOL_OK ||
		start_side(peer, THREAD, AMPLE_BYTES) != SECPOOL_OK ||
		restore(peer, &answer) != SECPOOL_OK)
		return bench_failed(bench, "a process with the database");
	peer_stop(peer);
	program->need_bytes = (answer.resident_bytes / MIB + 1) * MIB;
	bench_report(bench, "database", (double)answer.database_bytes / MIB, "MiB", 0, 0, config);
	bench_report(bench, "heap", (double)answer.resident_bytes / MIB, "MiB", 0, 0, config);
	return 0;
}

static int start_level(struct bench *bench, struct program *program, int percent)
{
	size_t local = program->need_bytes / 100 * (size_t)percent / MIB * MIB;
	struct answer answer;

	if (percent == 100)
		local += local /
			 8; /* the heap wants a little more than its pages when all is to stay */
	if (restore(&program->peers[PLAIN], &answer) != SECPOOL_OK)
		return bench_failed(bench, names[PLAIN]);
	for (int i = PLAIN + 1; i < SIDES; i++) {
		if ((i == ZRAM && !program->has_zram) ||
			start_side(&program->peers[i], i, local) == SECPOOL_OK)
			continue;
		if (i != ZRAM)
			return bench_failed(bench, names[i]);
		program->has_zram = false;
		fprintf(stderr, "secpool-bench: %s: no comparison with kernel swap on zram: %s\n",
			bench->name, err_detail());
		bench_report(
			bench, "zram_unavailable", 1, "", 0, 0, "no comparison with kernel swap");
	}
	return 0;
}

static void note(struct space_times *times, double seconds)
{
	unsigned at = times->rounds++;

	for (; at > 0 && times->seconds[at - 1] > seconds; at--)
		times->seconds[at] = times->seconds[at - 1];
	times->seconds[at] = seconds;
}

/* All sides in turn; the first round warms up. Memory's sums are what the others must come to. */
static int run_round(struct bench *bench, struct program *program, int round)
{
	struct request request = {.seed = 88172645463325252ul + (unsigned)round};

	for (int i = 0; i < SIDES; i++) {
		struct answer answer;
		enum secpool_error error;
		double all = 0;

		if (i == ZRAM && !program->has_zram)
			continue;
		error = peer_ask(
			&program->peers[i], &request, sizeof request, &answer, sizeof answer);
		if (i == PLAIN)
			program->sums[round] = answer.pass.sum;
		else if (!error && answer.pass.sum != program->sums[round])
			error = err_set(SECPOOL_E_INTEGRITY, "other answers than from memory");
		if (error)
			return bench_failed(bench, names[i]);
		for (int kind = 0; kind < SHOP_QUERIES; kind++) {
			all += answer.pass.seconds[kind];
			if (round >= WARM_UP)
				note(&program->queries[i][kind], answer.pass.seconds[kind]);
		}
		if (round >= WARM_UP)
			note(&program->all[i], all);
	}
	return 0;
}

static void report(struct bench *bench, const struct program *program, int percent)
{
	const struct space_times *all = program->all;
	char config[64], metric[64];

	snprintf(config, sizeof config, "SQLite, %d %% local", percent);
	for (int i = 0; i < SIDES; i++) {
		if (i == ZRAM && !program->has_zram)
			continue;
		for (int kind = 0; kind < SHOP_QUERIES; kind++) {
			snprintf(metric, sizeof metric, "%s_%s", shop_name((enum shop_query)kind),
				names[i]);
			space_report_cost(bench, metric, &program->queries[i][kind],
				shop_count((enum shop_query)kind), 1e6, "us", config);
		}
		snprintf(metric, sizeof metric, "all_%s", names[i]);
		space_report_cost(bench, metric, &all[i], 1, 1e3, "ms", config);
		if (i != PLAIN) {
			snprintf(metric, sizeof metric, "all_%s_per_memory", names[i]);
			bench_report(bench, metric,
				space_median(&all[i]) / space_median(&all[PLAIN]), "x", 0, 0,
				config);
		}
		if (i >= THREAD && program->has_zram) {
			snprintf(metric, sizeof metric, "all_%s_per_zram", names[i]);
			bench_report(bench, metric,
				space_median(&all[i]) / space_median(&all[ZRAM]), "x", 0, 0,
				config);
		}
	}
}

int bench_program(struct bench *bench)
{
	struct program *program = calloc(1, sizeof *program);
	int status;

	if (!program)
		abort();
	program->has_zram = true;
	status = begin(bench, program);
	for (int level = 0; level < LEVELS && status == 0; level++) {
		memset(program->queries, 0, sizeof program->queries);
		memset(program->all, 0, sizeof program->all);
		status = start_level(bench, program, levels[level]);
		for (int round = 0; round < ROUNDS + WARM_UP && status == 0; round++)
			status = run_round(bench, program, round);
		if (status == 0)
			report(bench, program, levels[level]);
		for (int i = PLAIN + 1; i < SIDES; i++)
			peer_stop(&program->peers[i]);
	}
	for (int i = 0; i < SIDES; i++)
		peer_stop(&program->peers[i]);
	free(program);
	return status;
}
