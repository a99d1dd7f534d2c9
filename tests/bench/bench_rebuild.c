/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device is pulled under a program that reads and writes at random, and there is spare space: throughput over time through whole, degraded, rebuilding and whole again, how fast the
 * rebuild is, and what the program loses meanwhile.
 */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "lib/base/clock.h"
#include "tests/bench/removal.h"

static const size_t BYTES = 256u << 20, LOCAL_BYTES = 64u << 20;
enum {
	PAGE = 4096,
	PAGES = (256 << 20) / PAGE,
	SLOT_MS = 50,
	SLOTS_MOST = 1200,
	BEFORE_MS = 2000,
	AFTER_MS = 2000,
	WAIT_MS = 60000
};

static const struct removal_kind kinds[] = {
	{.name = "mirror:2", .redundancy = SECPOOL_REDUNDANCY_MIRROR, .copies = 2},
	{.name = "ec:4+2", .redundancy = SECPOOL_REDUNDANCY_EC, .data = 4, .parity = 2},
};

/* The program: one access of four is a write; counts what it does in each slot of time. */
struct program {
	volatile uint64_t *at;
	uint64_t start_ns;
	_Atomic bool over;
	unsigned counts[SLOTS_MOST];
	unsigned wrong;
};

static void *work(void *arg)
{
	struct program *program = arg;
	uint64_t random = 88172645463325252ull;

	while (!atomic_load_explicit(&program->over, memory_order_relaxed)) {
		uint64_t slot = (clock_now_ns() - program->start_ns) / (SLOT_MS * CLOCK_NS_PER_MS);
		uint64_t page;
		random ^= random << 13;
		random ^= random >> 7;
		random ^= random << 17;
		page = random % PAGES;
		if (program->at[page * PAGE / sizeof page] != (page | 1ull << 40))
			program->wrong++;
		if ((random >> 40) % 4 == 0)
			program->at[page * PAGE / sizeof page] = page | 1ull << 40;
		if (slot < SLOTS_MOST)
			program->counts[slot]++;
	}
	return NULL;
}

/* Accesses a second between two times. */
static double rate_between(const struct program *program, uint64_t from_ns, uint64_t to_ns)
{
	uint64_t slot_ns = SLOT_MS * CLOCK_NS_PER_MS;
	uint64_t first = (from_ns - program->start_ns + slot_ns - 1) / slot_ns;
	uint64_t end = (to_ns - program->start_ns) / slot_ns;
	double sum = 0;

	for (uint64_t slot = first; slot < end && slot < SLOTS_MOST; slot++)
		sum += program->counts[slot];
	return end > first ? sum / ((double)(end - first) * SLOT_MS / 1e3) : 0;
}

static void report(struct bench *bench, const struct removal_kind *kind,
	const struct program *program, uint64_t pulled_ns, uint64_t whole_ns, uint64_t end_ns,
	uint64_t lost_bytes)
{
	double seconds = (double)(whole_ns - pulled_ns) / 1e9;
	double before = rate_between(
		program, program->start_ns + BEFORE_MS / 2 * CLOCK_NS_PER_MS, pulled_ns);
	double during = rate_between(program, pulled_ns, whole_ns);
	char config[96];

	snprintf(config, sizeof config, "%s, 256 MiB, 25 %% local, random, one write in four",
		kind->name);
	bench_report(bench, "pull_to_whole", seconds, "s", 0, 0, config);
	bench_report(bench, "rebuilt", (double)lost_bytes / 1e6, "MB", 0, 0, config);
	bench_report(
		bench, "rebuild_speed", (double)lost_bytes / 1e9 / seconds, "GB/s", 0, 0, config);
	bench_report(bench, "accesses_before", before, "/s", 0, 0, config);
	bench_report(bench, "accesses_during", during, "/s", 0, 0, config);
	bench_report(bench, "accesses_after", rate_between(program, whole_ns, end_ns), "/s", 0, 0,
		config);
	if (before > 0)
		bench_report(bench, "during_per_before", during / before, "x", 0, 0, config);
	bench_report(bench, "wrong_bytes", program->wrong, "reads", 0, 0, config);
	for (uint64_t slot = 0;
		bench->json && slot < (end_ns - program->start_ns) / (SLOT_MS * CLOCK_NS_PER_MS) &&
		slot < SLOTS_MOST;
		slot++) {
		uint64_t at_ns = program->start_ns + slot * SLOT_MS * CLOCK_NS_PER_MS;
		snprintf(config, sizeof config, "%s, %s, t=%.2f", kind->name,
			at_ns < pulled_ns  ? "before"
			: at_ns < whole_ns ? "rebuilding"
					   : "whole again",
			(double)slot * SLOT_MS / 1e3);
		bench_report(bench, "timeline", program->counts[slot] * 1e3 / SLOT_MS, "/s", 0, 0,
			config);
	}
}

static int through_a_pull(struct bench *bench, struct secpool *pool,
	const struct removal_kind *kind, struct program *program)
{
	char device[SECPOOL_NAME_BYTES];
	struct removal_puller puller;
	uint64_t lost_bytes, whole_ns, end_ns;
	pthread_t thread;

	if (removal_find_device(device, &lost_bytes) != 0 || removal_open(&puller, device) != 0)
		return bench_failed(bench, "no device to pull: is it `secpool up --devices 7`?");
	removal_forget_events(pool);
	program->start_ns = clock_now_ns();
	if (pthread_create(&thread, NULL, work, program) != 0)
		return bench_failed(bench, "thread");
	clock_sleep_ns(BEFORE_MS * CLOCK_NS_PER_MS);
	removal_pull(&puller);
	removal_close(&puller);
	whole_ns = removal_await(pool, SECPOOL_EVENT_REGION_WHOLE, WAIT_MS);
	clock_sleep_ns(AFTER_MS * CLOCK_NS_PER_MS);
	atomic_store(&program->over, true);
	pthread_join(thread, NULL);
	end_ns = clock_now_ns();
	if (removal_plug(device) != 0 || !whole_ns)
		return bench_failed(bench, "the region did not get whole again");
	report(bench, kind, program, atomic_load(&puller.begun_ns), whole_ns, end_ns, lost_bytes);
	return program->wrong ? 1 : 0;
}

int bench_rebuild(struct bench *bench)
{
	struct secpool_options options = {.size = sizeof options, .local_bytes = LOCAL_BYTES};
	struct secpool *pool;
	int status = 0;

	if (secpool_open("default", &options, &pool) != SECPOOL_OK)
		return bench_failed(bench, "open");
	for (size_t i = 0; status == 0 && i < sizeof kinds / sizeof *kinds; i++) {
		static struct program program;
		struct secpool_region *region;
		if (removal_settle() != 0)
			status = bench_failed(bench, "the devices were not scrubbed in time");
		else
			status = removal_open_region(bench, pool, &kinds[i], BYTES, PAGE, &region);
		if (status != 0)
			break;
		program = (struct program){.at = secpool_region_address(region)};
		for (uint64_t page = 0; page < PAGES; page++)
			program.at[page * PAGE / sizeof page] = page | 1ull << 40;
		status = through_a_pull(bench, pool, &kinds[i], &program);
		if (secpool_region_release(region, NULL) != SECPOOL_OK)
			status = bench_failed(bench, "release");
	}
	secpool_close(pool);
	return status;
}
