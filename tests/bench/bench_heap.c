/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The heap over the pool, all of it resident, in both fault modes, against jemalloc alone (the same code under its private names, lib/jemalloc.syms: as it comes,
 * with its cache for each thread, and without that cache) and against glibc. Objects of 16 to 4096 bytes, small ones more often: a random one of a live
 * set gives way to a new one, which is written from end to end.
 */
#include "tests/bench/bench.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define mallocx secpool_je_mallocx
#define dallocx secpool_je_dallocx
#include <jemalloc/jemalloc.h>

#include "lib/secpool.h"

enum { OBJECTS = 16384, TIMES = 50000, LEAST_SHIFT = 4, SHIFTS = 8, CHECKED = 8 };
static const size_t LOCAL_BYTES = 128u << 20;

/* jemalloc's plain functions by their private names: its header declares only those that it is told to. */
void *secpool_je_malloc(size_t bytes);
void secpool_je_free(void *memory);

struct heap_side {
	const char *name;
	void *(*get)(void *pool, size_t bytes);
	void (*give)(void *pool, void *memory);
	struct secpool *pool;
	uint8_t *objects[OBJECTS];
	uint64_t random;
	bool failed;
};

static void *get_pool(void *pool, size_t bytes)
{
	return secpool_malloc(pool, bytes);
}

static void give_pool(void *pool, void *memory)
{
	secpool_free(pool, memory);
}

static void *get_jemalloc(void *pool, size_t bytes)
{
	(void)pool;
	return secpool_je_malloc(bytes);
}

static void give_jemalloc(void *pool, void *memory)
{
	(void)pool;
	secpool_je_free(memory);
}

static void *get_uncached(void *pool, size_t bytes)
{
	(void)pool;
	return mallocx(bytes, MALLOCX_TCACHE_NONE);
}

static void give_uncached(void *pool, void *memory)
{
	(void)pool;
	dallocx(memory, MALLOCX_TCACHE_NONE);
}

static void *get_glibc(void *pool, size_t bytes)
{
	(void)pool;
	return malloc(bytes);
}

static void give_glibc(void *pool, void *memory)
{
	(void)pool;
	free(memory);
}

static uint64_t next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* 16 to 4096: the power of two is drawn first, so that half of the objects are below 256 bytes. */
static size_t choose_bytes(uint64_t random)
{
	size_t least = (size_t)1 << (LEAST_SHIFT + (random >> 20) % SHIFTS);

	return least + (random >> 32) % (least + 1);
}

/* An object that goes still holds its place's number: two objects that overlap are found out. */
static void replace(void *arg, unsigned times)
{
	struct heap_side *side = arg;

	for (unsigned i = 0; i < times; i++) {
		uint64_t random = next(&side->random);
		size_t bytes = choose_bytes(random), place = random % OBJECTS;
		uint8_t *object = side->objects[place];

		if (object) {
			side->failed |= object[CHECKED] != (uint8_t)place;
			side->give(side->pool, object);
		}
		object = side->get(side->pool, bytes);
		if (object)
			memset(object, (int)place, bytes);
		side->failed |= !object;
		side->objects[place] = object;
	}
}

static void give_all(struct heap_side *side)
{
	for (size_t i = 0; i < OBJECTS; i++) {
		if (side->objects[i])
			side->give(side->pool, side->objects[i]);
		side->objects[i] = NULL;
	}
}

static void report(struct bench *bench, const struct bench_candidate *all, size_t count)
{
	static const char config[] = "16384 objects of 16 to 4096 bytes, resident, free and malloc";
	enum { THREAD, INLINE, JEMALLOC, UNCACHED, GLIBC };

	for (size_t i = 0; i < count; i++)
		bench_report(bench, all[i].metric, bench_median(&all[i]) / TIMES * 1e9, "ns",
			all[i].seconds[0] / TIMES * 1e9,
			all[i].seconds[BENCH_ROUNDS - 1] / TIMES * 1e9, config);
	for (size_t i = THREAD; i <= INLINE; i++) {
		static const char *const names[][3] = {
			{"heap_thread_vs_jemalloc", "heap_thread_vs_jemalloc_uncached",
				"heap_thread_vs_glibc"},
			{"heap_inline_vs_jemalloc", "heap_inline_vs_jemalloc_uncached",
				"heap_inline_vs_glibc"},
		};
		double mine = bench_median(&all[i]);

		for (size_t k = JEMALLOC; k <= GLIBC; k++)
			bench_report(bench, names[i][k - JEMALLOC], bench_median(&all[k]) / mine,
				"x", 0, 0, config);
	}
}

static int open_pool(struct bench *bench, enum secpool_fault_mode mode, struct secpool **ret_pool)
{
	struct secpool_options options = {
		.size = sizeof options, .local_bytes = LOCAL_BYTES, .fault_mode = mode};

	if (secpool_open("default", &options, ret_pool) != SECPOOL_OK)
		return bench_failed(bench, "open");
	return 0;
}

int bench_heap(struct bench *bench)
{
	static struct heap_side sides[] = {
		{.name = "heap_thread", .get = get_pool, .give = give_pool},
		{.name = "heap_inline", .get = get_pool, .give = give_pool},
		{.name = "jemalloc", .get = get_jemalloc, .give = give_jemalloc},
		{.name = "jemalloc_uncached", .get = get_uncached, .give = give_uncached},
		{.name = "glibc", .get = get_glibc, .give = give_glibc},
	};
	enum { SIDES = sizeof sides / sizeof *sides };
	struct bench_candidate candidates[SIDES];
	int status = open_pool(bench, SECPOOL_FAULT_THREAD, &sides[0].pool);

	if (status == 0)
		status = open_pool(bench, SECPOOL_FAULT_INLINE, &sides[1].pool);
	for (size_t i = 0; i < SIDES; i++) {
		sides[i].random = 88172645463325252ull;
		candidates[i] = (struct bench_candidate){
			.metric = sides[i].name, .run = replace, .arg = &sides[i]};
	}
	if (status == 0)
		bench_compare(candidates, SIDES, TIMES);
	for (size_t i = 0; i < SIDES; i++) {
		if (sides[i].failed)
			status = bench_failed(bench, sides[i].name);
		give_all(&sides[i]);
	}
	if (status == 0)
		report(bench, candidates, SIDES);
	for (size_t i = 0; i < 2; i++) {
		secpool_close(sides[i].pool);
		sides[i].pool = NULL;
	}
	return status;
}
