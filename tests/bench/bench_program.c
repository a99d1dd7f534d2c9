/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A real program: SQLite with a database of about 96 MiB in memory (shop.h), all of whose memory is secpool_malloc's, with 100, 75, 50 and 25 % of what it needs in
 * local memory, in both fault modes; against the same over ordinary memory, and under the same limits with swap on zram. Each side is a process
 * that answers the same questions in turn, and must come to the same sums.
 *
 * Redis, which can't be linked with the library, comes with `secpool run`.
 */
#include "tests/bench/bench.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/base/os.h"
#include "lib/secpool.h"
#include "tests/bench/peer.h"
#include "tests/bench/shop.h"
#include "tests/bench/space.h"

/* A page of 4 KiB with what SQLite keeps beside it, in jemalloc's size class. */
enum { SLOT_BYTES = 5120 };
enum { PLAIN, ZRAM, THREAD, INLINE, SIDES, LEVELS = 4, ROUNDS = 3, ORDERS = 460000 };
enum { MIB = 1 << 20, WARM_UP = 1 };
/* Of SQLite's other memory; of a limited process, which the limit counts and local_bytes does not. */
enum { REST_MIB = 3, PROCESS_BYTES = 4 << 20 };
static const int levels[LEVELS] = {100, 75, 50, 25};
static const char *const names[SIDES] = {"memory", "zram", "thread", "inline"};

/*
 * ---- SQLite's memory (https://sqlite.org/c3ref/mem_methods.html) ----
 * The pool's heap, or the same jemalloc over ordinary memory (by its private names, lib/jemalloc.syms): so that a page of the database takes as much on all sides.
 */
static struct secpool *memory_pool; /* NULL: ordinary memory */
void *secpool_je_malloc(size_t bytes);
void *secpool_je_realloc(void *memory, size_t bytes);
void secpool_je_free(void *memory);
size_t secpool_je_malloc_usable_size(void *memory);

static void *get(int bytes)
{
	return memory_pool ? secpool_malloc(memory_pool, (size_t)bytes)
			   : secpool_je_malloc((size_t)bytes);
}

static void give(void *memory)
{
	if (memory_pool)
		secpool_free(memory_pool, memory);
	else
		secpool_je_free(memory);
}

static void *resize(void *memory, int bytes)
{
	return memory_pool ? secpool_realloc(memory_pool, memory, (size_t)bytes)
			   : secpool_je_realloc(memory, (size_t)bytes);
}

static int measure_one(void *memory)
{
	if (!memory)
		return 0;
	return (int)(memory_pool ? secpool_usable_size(memory_pool, memory)
				 : secpool_je_malloc_usable_size(memory));
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

static const sqlite3_mem_methods heap = {
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
	uint64_t pages; /* of the database */
};

static enum secpool_error use_pool(const struct side *side)
{
	struct secpool_options options = {.size = sizeof options,
		.local_bytes = side->local_bytes,
		.fault_mode = side->which == INLINE ? SECPOOL_FAULT_INLINE : SECPOOL_FAULT_THREAD};
	enum secpool_error error = secpool_open("default", &options, &memory_pool);

	return error ? err_set(error, "%s", secpool_error_detail()) : SECPOOL_OK;
}

/* One thread: SQLite needs no locks, which in fault mode inline must not lie in pool memory. */
static enum secpool_error open_side(void *arg)
{
	struct side *side = arg;
	enum secpool_error error = SECPOOL_OK;

	if (sqlite3_config(SQLITE_CONFIG_SINGLETHREAD) != SQLITE_OK ||
		sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0) != SQLITE_OK ||
		sqlite3_config(SQLITE_CONFIG_MALLOC, &heap) != SQLITE_OK)
		return err_set(SECPOOL_E_SYSTEM, "SQLite was started already");
	if (side->which >= THREAD)
		error = use_pool(side);
	return error ? error : shop_open(ORDERS, &side->shop);
}

static enum secpool_error serve_side(void *arg, const void *request, void *answer)
{
	struct side *side = arg;
	struct request asked;
	struct answer said = {.pages = shop_pages(side->shop)};
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
	size_t need_bytes; /* 100 %: all of the database, and a little for the rest of SQLite */
	struct space_times queries[SIDES][SHOP_QUERIES], all[SIDES];
	uint64_t sums[ROUNDS + WARM_UP];
	bool has_zram;
	int percent; /* the level */
};

_Static_assert(sizeof(struct answer) <= PEER_MESSAGE_BYTES, "an answer fits a message");

static enum secpool_error start_side(struct peer *peer, int which, size_t local_bytes)
{
	struct side side = {.which = which, .local_bytes = local_bytes};
	struct peer_work work = {.open = open_side, .serve = serve_side, .arg = &side};

	return peer_start(peer, &work, which == ZRAM ? local_bytes + PROCESS_BYTES : 0);
}

static enum secpool_error restore(struct peer *peer, struct answer *ret_answer)
{
	return peer_ask(peer, &(struct request){.seed = 0}, sizeof(struct request), ret_answer,
		sizeof *ret_answer);
}

/* Memory's own side serves all levels, and says how much memory the database needs. */
static int begin(struct bench *bench, struct program *program)
{
	struct answer answer;

	if (start_side(&program->peers[PLAIN], PLAIN, 0) != SECPOOL_OK ||
		restore(&program->peers[PLAIN], &answer) != SECPOOL_OK)
		return bench_failed(bench, "a process with the database");
	program->need_bytes = (answer.pages * SLOT_BYTES / MIB + REST_MIB) * MIB;
	bench_report(bench, "database", (double)(answer.pages * SPACE_PAGE) / MIB, "MiB", 0, 0,
		"SQLite, database in memory");
	bench_report(bench, "memory_needed", (double)program->need_bytes / MIB, "MiB", 0, 0,
		"SQLite, database in memory");
	return 0;
}

/* For this level: under a limit, the kernel's out-of-memory killer has been seen at work although there was swap enough. */
static void without_zram(struct bench *bench, struct program *program, const char *reason)
{
	char config[64];

	snprintf(config, sizeof config, "SQLite, %d %% local", program->percent);
	program->has_zram = false;
	fprintf(stderr, "secpool-bench: %s: no comparison with kernel swap on zram: %s\n",
		bench->name, reason);
	bench_report(bench, "zram_unavailable", 1, "", 0, 0, config);
}

static int start_level(struct bench *bench, struct program *program, int percent)
{
	size_t local = program->need_bytes / 100 * (size_t)percent / MIB * MIB;
	struct answer answer;

	if (percent == 100)
		local += local / 4; /* building leaves as much behind, and all is to stay */
	program->has_zram = true;
	program->percent = percent;
	if (restore(&program->peers[PLAIN], &answer) != SECPOOL_OK)
		return bench_failed(bench, names[PLAIN]);
	for (int i = PLAIN + 1; i < SIDES; i++) {
		if ((i == ZRAM && !program->has_zram) ||
			start_side(&program->peers[i], i, local) == SECPOOL_OK)
			continue;
		if (i != ZRAM)
			return bench_failed(bench, names[i]);
		without_zram(bench, program, err_detail());
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
		if (error == SECPOOL_E_CLOSED && i == ZRAM) {
			without_zram(bench, program, "the kernel ended the limited process");
			continue;
		}
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
