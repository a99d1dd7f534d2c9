/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Miss ratios of the order of eviction (lib/cache.h), by simulation: the library's own queues against first in first out, and, to show what is lost by not knowing when a resident page is used,
 * against LRU and CLOCK that know it and Belady's MIN that knows the future. Traces: a loop, uniform and zipf accesses, zipf with a scan through it, and what a
 * real program did (traces/README.md). Needs no daemons.
 */
#include "tests/bench/bench.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/os.h"
#include "lib/cache.h"

enum {
	PAGES = 20000,
	LENGTH = 400000,
	PAGE_BYTES = 4096,
	TRACE_BYTES_MOST = 4 << 20,
	DISTINCT_LEAST = 100
};

struct trace {
	const char *name;
	uint32_t *pages; /* in order of their use */
	size_t length, distinct;
};

enum policy { SECPOOL, FIFO, CLOCK, LRU, MIN, POLICIES };
static const char *const policy_names[POLICIES] = {"secpool", "fifo", "clock", "lru", "min"};

/* What a simulation knows of a page. */
struct state {
	bool resident, used, was;
	uint16_t era;
	uint64_t when; /* LRU: used last; MIN: used next */
};

struct simulation {
	const struct trace *trace;
	enum policy policy;
	size_t room, resident, misses;
	struct state *states;
	struct cache cache; /* of SECPOOL and FIFO */
	uint32_t *ring;	    /* of the others: resident pages */
	size_t hand;
	const uint64_t *next; /* of MIN: when the page of each access is used next */
};

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* ---- policies ---- */

/* The place in the ring of the page to leave. */
static size_t choose(struct simulation *s)
{
	size_t found = 0;

	if (s->policy == CLOCK) {
		while (s->states[s->ring[s->hand]].used) {
			s->states[s->ring[s->hand]].used = false;
			s->hand = (s->hand + 1) % s->room;
		}
		found = s->hand;
		s->hand = (s->hand + 1) % s->room;
		return found;
	}
	/* a sample finds nearly the one that all would: LRU and MIN are for reference only, and a full search of each would take minutes */
	static uint64_t random = 88172645463325252ull;
	enum { SAMPLE = 64 };
	for (int i = 0; i < SAMPLE; i++) {
		size_t at = next_random(&random) % s->room;
		uint64_t a = s->states[s->ring[at]].when, b = s->states[s->ring[found]].when;
		if (i == 0 || (s->policy == LRU ? a < b : a > b))
			found = at;
	}
	return found;
}

static void evict_queued(struct simulation *s)
{
	struct cache_entry entry;

	if (cache_pop(&s->cache, &entry, 1) != 1)
		abort();
	s->states[entry.pgno].resident = false;
	s->states[entry.pgno].was = true;
	s->states[entry.pgno].era = cache_era(&s->cache);
}

static void miss(struct simulation *s, uint32_t page)
{
	struct state *state = &s->states[page];
	bool queued = s->policy == SECPOOL || s->policy == FIFO;

	s->misses++;
	if (queued) {
		struct cache_entry entry = {.pgno = page, .queue = CACHE_NEW};
		if (s->resident == s->room)
			evict_queued(s);
		else
			s->resident++;
		if (s->policy == SECPOOL && state->was)
			entry.queue = cache_queue_for(&s->cache, state->era);
		cache_push(&s->cache, 0, entry);
	} else if (s->resident < s->room) {
		s->ring[s->resident++] = page;
	} else {
		size_t at = choose(s);
		s->states[s->ring[at]].resident = false;
		s->ring[at] = page;
	}
	state->resident = true;
}

static void simulate(struct simulation *s)
{
	for (size_t i = 0; i < s->trace->length; i++) {
		uint32_t page = s->trace->pages[i];
		struct state *state = &s->states[page];
		if (!state->resident)
			miss(s, page);
		state->used = true;
		state->when = s->policy == MIN ? s->next[i] : i;
	}
}

static uint64_t *find_next(const struct trace *trace)
{
	uint64_t *next = calloc(trace->length, sizeof *next);
	uint64_t *last = malloc(trace->distinct * sizeof *last);

	if (!next || !last)
		abort();
	memset(last, 0xff, trace->distinct * sizeof *last);
	for (size_t i = trace->length; i-- > 0;) {
		next[i] = last[trace->pages[i]];
		last[trace->pages[i]] = i;
	}
	free(last);
	return next;
}

static double miss_ratio(
	const struct trace *trace, enum policy policy, size_t room, const uint64_t *next)
{
	static struct simulation s; /* the cache is large */

	s = (struct simulation){.trace = trace, .policy = policy, .room = room, .next = next};
	s.states = calloc(trace->distinct, sizeof *s.states);
	s.ring = calloc(room, sizeof *s.ring);
	if (!s.states || !s.ring || cache_init(&s.cache, room * PAGE_BYTES) != SECPOOL_OK)
		abort();
	simulate(&s);
	cache_done(&s.cache);
	free(s.states);
	free(s.ring);
	return (double)s.misses / (double)trace->length;
}

/* ---- traces ---- */

static void make(struct trace *trace, const char *name)
{
	*trace = (struct trace){.name = name, .length = LENGTH, .distinct = PAGES};
	trace->pages = calloc(LENGTH, sizeof *trace->pages);
	if (!trace->pages)
		abort();
}

/* Ranks of a zipf distribution, each a page of a random order. */
static void fill_zipf(struct trace *trace, double skew)
{
	double *sums = calloc(PAGES, sizeof *sums), sum = 0;
	uint64_t random = 88172645463325252ull;

	if (!sums)
		abort();
	for (size_t i = 0; i < PAGES; i++)
		sums[i] = sum += pow((double)(i + 1), -skew);
	for (size_t i = 0; i < trace->length; i++) {
		double at = (double)(next_random(&random) >> 11) / 9007199254740992.0 * sum;
		size_t low = 0, high = PAGES - 1;
		while (low < high) {
			size_t middle = (low + high) / 2;
			if (sums[middle] < at)
				low = middle + 1;
			else
				high = middle;
		}
		trace->pages[i] = (uint32_t)(low * 7919 % PAGES);
	}
	free(sums);
}

/* A third of the accesses walks through pages that nothing else uses. */
static void add_scan(struct trace *trace)
{
	uint32_t at = 0;

	for (size_t i = 0; i < trace->length; i += 3)
		trace->pages[i] = PAGES + at++ % (5 * PAGES);
	trace->distinct = 6 * PAGES;
}

static void free_trace(struct trace *trace)
{
	free(trace->pages);
	trace->pages = NULL;
}

/* One number of the file: 7 bits a byte, the lowest first, the top bit says that more come. False at the end, or where it is cut off. */
static bool get_number(const uint8_t **at, const uint8_t *end, uint64_t *ret_number)
{
	uint64_t number = 0;

	for (unsigned shift = 0; *at < end && shift < 63; shift += 7) {
		uint8_t byte = *(*at)++;
		number |= (uint64_t)(byte & 127) << shift;
		if (byte < 128) {
			*ret_number = number;
			return true;
		}
	}
	return false;
}

/* Errors: SECPOOL_E_NOT_FOUND, SECPOOL_E_PROTOCOL (not such a file, or damaged). */
static enum secpool_error read_trace(const char *path, struct trace *ret_trace)
{
	static const char magic[] = "SPTRACE1";
	enum { MAGIC_BYTES = sizeof magic - 1 };
	struct trace trace = {.name = "sqlite3"};
	const uint8_t *at, *end;
	int64_t page = 0;
	size_t count;
	char *text;
	enum secpool_error error = os_read_file(path, TRACE_BYTES_MOST, &text, &count);

	if (error)
		return error;
	trace.pages = calloc(count + 1, sizeof *trace.pages);
	if (!trace.pages)
		abort();
	at = (const uint8_t *)text + MAGIC_BYTES;
	end = (const uint8_t *)text + count;
	if (count < MAGIC_BYTES || memcmp(text, magic, MAGIC_BYTES) != 0)
		error = err_set(SECPOOL_E_PROTOCOL, "%s is not a trace", path);
	while (!error && at < end) {
		uint64_t number = 0;
		bool whole = get_number(&at, end, &number);
		page += number & 1 ? -(int64_t)(number / 2) - 1 : (int64_t)(number / 2);
		if (!whole || page < 0 || (uint64_t)page > trace.distinct)
			error = err_set(SECPOOL_E_PROTOCOL, "%s is damaged at byte %td", path,
				at - (const uint8_t *)text);
		else if ((uint64_t)page == trace.distinct)
			trace.distinct++; /* pages are numbered in the order of their first use */
		trace.pages[trace.length++] = (uint32_t)page;
	}
	free(text);
	if (!error && trace.distinct < DISTINCT_LEAST)
		error = err_set(SECPOOL_E_PROTOCOL, "%s has %zu pages, too few to take parts of",
			path, trace.distinct);
	if (error)
		free_trace(&trace);
	else
		*ret_trace = trace;
	return error;
}

static void report(struct bench *bench, const struct trace *trace)
{
	static const unsigned shares[] = {50, 25, 10};
	uint64_t *next = find_next(trace);

	for (size_t i = 0; i < sizeof shares / sizeof *shares; i++) {
		double ratios[POLICIES];
		char config[80], metric[40];
		snprintf(config, sizeof config, "%s, %zu pages, %u %% local", trace->name,
			trace->distinct, shares[i]);
		for (int policy = 0; policy < POLICIES; policy++) {
			ratios[policy] = miss_ratio(trace, (enum policy)policy,
				trace->distinct * shares[i] / 100, next);
			snprintf(metric, sizeof metric, "miss_ratio_%s", policy_names[policy]);
			bench_report(bench, metric, ratios[policy], "", 0, 0, config);
		}
		bench_report(bench, "misses_per_fifo", ratios[SECPOOL] / ratios[FIFO], "x", 0, 0,
			config);
	}
	free(next);
}

int bench_evict(struct bench *bench)
{
	const char *path = getenv("SECPOOL_TRACE");
	struct trace trace;

	make(&trace, "loop");
	for (size_t i = 0; i < LENGTH; i++)
		trace.pages[i] = (uint32_t)(i % PAGES);
	report(bench, &trace);
	free_trace(&trace);
	make(&trace, "uniform");
	fill_zipf(&trace, 0);
	report(bench, &trace);
	free_trace(&trace);
	make(&trace, "zipf 0.8");
	fill_zipf(&trace, 0.8);
	report(bench, &trace);
	free_trace(&trace);
	make(&trace, "zipf 0.99");
	fill_zipf(&trace, 0.99);
	report(bench, &trace);
	add_scan(&trace);
	trace.name = "zipf 0.99 with a scan";
	report(bench, &trace);
	free_trace(&trace);
	if (read_trace(path ? path : "tests/bench/traces/sqlite3.trace", &trace) != SECPOOL_OK)
		return bench_failed(bench, "the trace of a real program (run from the project's "
					   "folder, or set SECPOOL_TRACE)");
	report(bench, &trace);
	free_trace(&trace);
	return 0;
}
