/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The page cipher's engines beside each other on one core: AES-256-XTS alone and with its tag, both ways, in GB/s (10^9 bytes), and their ratios to
 * OpenSSL and to the cipher without tag. All work on the same pages, which stay in the second-level cache: so the engines are
 * measured and not the memory; the rest of `cipher` measures both. Part of the bench `cipher`.
 */
#include "tests/bench/bench.h"

#include <stdio.h>
#include <string.h>

#include "enclave/engine.h"
#include "enclave/secmem.h"
#include "lib/base/os.h"

/* What one call goes through: from one half of the room to the other, together below the second-level cache; and how often: a CPU takes up to half a millisecond to change to wide vectors. */
enum { SPAN_BYTES = 256 << 10, PASSES = 128, ENGINES_MOST = 4 };

enum task { XTS_SEAL, XTS_OPEN, SEAL, OPEN, TASKS };

static const char *const task_names[TASKS] = {
	[XTS_SEAL] = "xts_seal", [XTS_OPEN] = "xts_open", [SEAL] = "seal", [OPEN] = "open"};

struct lane {
	const struct engine *engine;
	struct engine_key *key;
	size_t page_bytes;
	enum task task;
	bool *failed;
	char name[40];
};

/* The other half is what was sealed, page after page, with the tags beside. */
static uint8_t plain[SPAN_BYTES], sealed[SPAN_BYTES], other[SPAN_BYTES];
static uint8_t tags[SPAN_BYTES / PAGECIPHER_PAGE_BYTES_LEAST][16];

static enum secpool_error one_page(const struct lane *lane, size_t i)
{
	const struct engine *engine = lane->engine;
	size_t bytes = lane->page_bytes, at = i * bytes;
	uint8_t tweak[16] = {0};

	memcpy(tweak, &i, sizeof i);
	switch (lane->task) {
	case XTS_SEAL:
		return engine->xts_seal(lane->key, 0, tweak, plain + at, other + at, bytes);
	case XTS_OPEN:
		return engine->xts_open(lane->key, 0, tweak, sealed + at, other + at, bytes);
	case SEAL:
		return engine->page_seal(
			lane->key, 0, tweak, plain + at, sealed + at, bytes, tags[i]);
	case OPEN:
		return engine->page_open(
			lane->key, 0, tweak, sealed + at, other + at, bytes, tags[i]);
	case TASKS:
	default:
		return SECPOOL_E_INTERNAL;
	}
}

static void run(void *arg, unsigned times)
{
	struct lane *lane = arg;

	for (unsigned t = 0; t < times * PASSES; t++)
		for (size_t i = 0; i < SPAN_BYTES / lane->page_bytes; i++)
			if (one_page(lane, i))
				*lane->failed = true;
}

static void report(
	struct bench *bench, const struct bench_candidate *all, size_t engines, const char *config)
{
	char metric[80];

	for (size_t i = 0; i < engines * TASKS; i++) {
		const double bytes = (double)SPAN_BYTES * PASSES / 1e9;
		const double *seconds = all[i].seconds;

		bench_report(bench, all[i].metric, bytes / bench_median(&all[i]), "GB/s",
			bytes / seconds[BENCH_ROUNDS - 1], bytes / seconds[0], config);
	}
	for (size_t e = 0; e < engines; e++) {
		const struct bench_candidate *mine = all + e * TASKS;
		const struct bench_candidate *openssl = all + (engines - 1) * TASKS;
		const char *name = ((struct lane *)mine->arg)->engine->name;

		for (size_t t = 0; t < TASKS && e + 1 < engines; t++) {
			snprintf(metric, sizeof metric, "%s_vs_openssl", mine[t].metric);
			bench_report(bench, metric,
				bench_median(&openssl[t]) / bench_median(&mine[t]), "x", 0, 0,
				config);
		}
		snprintf(metric, sizeof metric, "%s_seal_vs_without_tag", name);
		bench_report(bench, metric,
			bench_median(&mine[XTS_SEAL]) / bench_median(&mine[SEAL]), "x", 0, 0,
			config);
		snprintf(metric, sizeof metric, "%s_open_vs_without_tag", name);
		bench_report(bench, metric,
			bench_median(&mine[XTS_OPEN]) / bench_median(&mine[OPEN]), "x", 0, 0,
			config);
	}
}

/* OpenSSL is the last engine; those that this CPU can't run have no rows. */
static int measure(struct bench *bench, const struct region_keys *keys, size_t page_bytes)
{
	struct engine_key *key[ENGINES_MOST] = {NULL};
	static struct lane lanes[ENGINES_MOST * TASKS];
	struct bench_candidate all[ENGINES_MOST * TASKS] = {0};
	size_t engines = 0;
	bool failed = false;
	char config[48];

	for (size_t i = 0; engine_at(i) && engines < ENGINES_MOST; i++) {
		const struct engine *engine = engine_at(i);

		if (!engine->usable())
			continue;
		failed |= engine_key_new(engine, keys, page_bytes, 1, &key[engines]) != SECPOOL_OK;
		for (enum task t = 0; t < TASKS; t++) {
			struct lane *lane = &lanes[engines * TASKS + t];

			*lane = (struct lane){engine, key[engines], page_bytes, t, &failed, ""};
			snprintf(lane->name, sizeof lane->name, "%s_%s", engine->name,
				task_names[t]);
			all[engines * TASKS + t] = (struct bench_candidate){
				.metric = lane->name, .run = run, .arg = lane};
		}
		engines++;
	}
	if (!failed) {
		run(&lanes[SEAL], 1); /* what all of them open */
		bench_compare(all, engines * TASKS, 1);
	}
	if (!failed && memcmp(other, plain, SPAN_BYTES) == 0) {
		snprintf(config, sizeof config, "page_bytes=%zu span_bytes=%d", page_bytes,
			(int)SPAN_BYTES);
		report(bench, all, engines, config);
	} else {
		failed = true;
	}
	for (size_t e = 0; e < engines; e++)
		((struct lane *)all[e * TASKS].arg)->engine->key_free(key[e]);
	return failed ? bench_failed(bench, "an engine could not seal or open a page") : 0;
}

int bench_engines(struct bench *bench)
{
	struct region_keys *keys;
	int status = 0;

	if (secmem_init(SECMEM_ALLOW_LOCKED))
		return bench_failed(bench, "secret memory");
	keys = secmem_new(sizeof *keys);
	if (!keys)
		return bench_failed(bench, "secret memory for keys");
	os_random(keys, sizeof *keys);
	os_random(plain, sizeof plain);
	for (size_t bytes = PAGECIPHER_PAGE_BYTES_LEAST; bytes <= SPAN_BYTES && status == 0;
		bytes *= 4)
		status = measure(bench, keys, bytes);
	secmem_free(keys);
	return status;
}
