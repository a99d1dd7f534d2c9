/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What keymgrd does in its directory for each region, with few regions and with very many: regions of 2 to 78 MiB, every other one with two copies, on 64 devices
 * of 1 TiB that are not there. It is the daemon's own code on a store of its own on tmpfs; keys, messages and the overwriting are left out.
 *
 * A region is made; then some are ended and others made in their place, so that holes of all sizes come up; then all are ended in random order, each scrubbed as
 * the daemon would, one range after the other. All bytes must be free at the end.
 */
#include "tests/bench/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "keymgr/regions.h"
#include "lib/base/os.h"

enum { DEVICES = 64, WINDOW = 1000, UNITS_MOST = 39, EXTENTS_MOST = 64, REPLACED_OF = 50 };
#define DEVICE_BYTES (1ull << 40)
#define WINDOW_BASE  0x110000000000ull
#define WINDOW_BYTES (64ull << 40)

struct store {
	struct bench *bench;
	struct directory *directory;
	struct extents_device devices[DEVICES];
	char domains[DEVICES][16];
	char folder[64], config[64];
	uint64_t *regions; /* their numbers */
	uint64_t count, receipts, random;
};

/* splitmix64: the same regions in each run */
static uint64_t next_random(struct store *store)
{
	uint64_t z = store->random += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static enum secpool_error add_device(struct store *store, unsigned at)
{
	char id[16];
	enum secpool_error error;

	snprintf(id, sizeof id, "dev%u", at);
	snprintf(store->domains[at], sizeof store->domains[at], "domain%u", at);
	store->devices[at] = (struct extents_device){.slot = at + 1, .domain = store->domains[at]};
	error = directory_run(store->directory,
		"INSERT INTO devices (slot, id, media, bytes, domain, state, boot, file_dev,"
		" file_ino) VALUES (?1, ?2, 1, ?3, ?4, 3, '', 0, 0)",
		DIRECTORY_VALUES(DIRECTORY_N(at + 1), DIRECTORY_T(id), DIRECTORY_N(DEVICE_BYTES),
			DIRECTORY_T(store->domains[at])));
	if (!error)
		error = extents_reset_device(store->directory, at + 1, DEVICE_BYTES);
	return error;
}

static enum secpool_error open_store(struct store *store)
{
	char path[96];
	enum secpool_error error;

	snprintf(store->folder, sizeof store->folder, "/dev/shm/secpool-bench-XXXXXX");
	if (!mkdtemp(store->folder))
		return os_error("a folder on tmpfs");
	snprintf(path, sizeof path, "%s/directory.db", store->folder);
	error = directory_open(path, &store->directory);
	if (!error)
		error = directory_begin(store->directory);
	if (error)
		return error;
	for (unsigned i = 0; i < DEVICES && !error; i++)
		error = add_device(store, i);
	/* as if all of it had been scrubbed */
	if (!error)
		error = directory_run(store->directory, "UPDATE extents SET state = ?1",
			DIRECTORY_VALUES(DIRECTORY_N(EXTENTS_FREE)));
	return directory_finish(store->directory, error);
}

static enum secpool_error make_region(struct store *store, uint64_t *ret_region)
{
	uint64_t random = next_random(store);
	struct regions_row row = {.bytes = (random % UNITS_MOST + 1) * EXTENTS_UNIT_BYTES,
		.page_bytes = 4096,
		.data = 1,
		.lanes = random >> 63 ? 2 : 1,
		.on_loss = MSG_ON_LOSS_SIGBUS,
		.process = {.pid = (int)(random >> 32 & 0xff) + 1, .start_ticks = 1}};
	enum secpool_error error;

	MSG_SET(row.tenant, "default");
	error = regions_create(
		store->directory, &row, WINDOW_BASE, WINDOW_BYTES, store->devices, DEVICES);
	if (!error)
		error = regions_set_live(store->directory, row.id, row.id);
	if (!error)
		*ret_region = row.id;
	return error;
}

/* One range that was released, as releases.c has it done. */
static enum secpool_error scrub_one(struct store *store, uint64_t slot)
{
	struct extents_row row;
	bool done = false;
	enum secpool_error error = directory_begin(store->directory);

	if (error)
		return error;
	error = directory_finish(
		store->directory, extents_scrub_next(store->directory, slot, true, &row));
	if (!error)
		error = directory_begin(store->directory);
	if (error)
		return error;
	error = extents_scrub_end(store->directory, &row, MSG_READBACK_MATCHED, &done);
	if (!error)
		error = regions_add_scrubbed(
			store->directory, row.region, MSG_READBACK_MATCHED, row.bytes);
	return directory_finish(store->directory, error);
}

static enum secpool_error end_region(struct store *store, uint64_t region)
{
	static const uint8_t digest[32];
	struct extents_row rows[EXTENTS_MOST];
	uint64_t total = 0;
	size_t count = 0;
	enum secpool_error error =
		extents_list(store->directory, region, 0, rows, EXTENTS_MOST, &count, &total);

	if (!error && count != total)
		error = err_set(
			SECPOOL_E_LIMIT, "a region has %llu extents", (unsigned long long)total);
	if (!error)
		error = regions_release(store->directory, region, MSG_CLIENT_ACKNOWLEDGED);
	for (size_t i = 0; i < count && !error; i++)
		error = scrub_one(store, rows[i].slot);
	if (!error)
		error = regions_finish(
			store->directory, region, ++store->receipts, "a receipt", digest);
	return error;
}

/* Whether the regions with so many of them are the last of a window that is reported. */
static bool is_mark(const struct store *store, uint64_t count)
{
	return count == WINDOW || count == 10 * WINDOW || count == 100 * WINDOW ||
	       count == store->count;
}

/* Of the processor: on tmpfs nothing waits for a disk, and what else the machine does must not count. */
static double processor_seconds(void)
{
	struct timespec now = {.tv_sec = 0};

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void report_rate(struct store *store, const char *what, uint64_t count, double seconds)
{
	char metric[48];

	snprintf(metric, sizeof metric, "%s_at_%llu", what, (unsigned long long)count);
	bench_report(store->bench, metric, WINDOW / seconds, "/s", 0, 0, store->config);
}

/* Makes all regions; *ret_ratio: of the time for one at the end and with ten windows of them, or with one where there are no more. */
static enum secpool_error make_all(struct store *store, double *ret_ratio)
{
	double start = 0;
	enum secpool_error error = SECPOOL_OK;
	double base = 0, last = 0;

	for (uint64_t i = 0; i < store->count && !error; i++) {
		if (is_mark(store, i + WINDOW))
			start = processor_seconds();
		error = make_region(store, &store->regions[i]);
		if (error || !is_mark(store, i + 1))
			continue;
		last = processor_seconds() - start;
		if (base == 0 || (i + 1 == 10 * WINDOW && i + 1 < store->count))
			base = last;
		report_rate(store, "create", i + 1, last);
	}
	*ret_ratio = last / base;
	return error;
}

static enum secpool_error replace_some(struct store *store)
{
	uint64_t turns = store->count / REPLACED_OF;
	double start = processor_seconds();
	enum secpool_error error = SECPOOL_OK;

	for (uint64_t i = 0; i < turns && !error; i++) {
		uint64_t *region = &store->regions[next_random(store) % store->count];

		error = end_region(store, *region);
		if (!error)
			error = make_region(store, region);
	}
	if (!error)
		bench_report(store->bench, "replace", (double)turns / (processor_seconds() - start),
			"/s", 0, 0, store->config);
	return error;
}

static enum secpool_error end_all(struct store *store)
{
	double start = 0;
	enum secpool_error error = SECPOOL_OK;

	for (uint64_t left = store->count; left > 0 && !error; left--) {
		uint64_t at = next_random(store) % left, region = store->regions[at];

		store->regions[at] = store->regions[left - 1];
		if (is_mark(store, left))
			start = processor_seconds();
		error = end_region(store, region);
		if (!error && is_mark(store, left + WINDOW - 1))
			report_rate(
				store, "release", left + WINDOW - 1, processor_seconds() - start);
	}
	return error;
}

/* Bytes that are in no extent or in two, and in no region although they are in use; a recount of all. */
static enum secpool_error check_all(struct store *store)
{
	static const char cover_sql[] =
		"SELECT IFNULL(SUM(ABS(next - offset - bytes)), 0) FROM (SELECT offset, bytes,"
		" LEAD(offset, 1, ?1) OVER (PARTITION BY slot ORDER BY offset) AS next FROM "
		"extents)";
	static const char lanes_sql[] =
		"SELECT COUNT(*) FROM (SELECT SUM(e.bytes) AS held, r.lanes * r.bytes AS whole"
		" FROM regions r JOIN extents e ON e.region = r.id GROUP BY r.id) WHERE held != "
		"whole";
	uint64_t torn = 0, wrong = 0;
	enum secpool_error error = directory_number(
		store->directory, cover_sql, DIRECTORY_VALUES(DIRECTORY_N(DEVICE_BYTES)), &torn);

	if (!error)
		error = directory_number(store->directory, lanes_sql, DIRECTORY_VALUES(), &wrong);
	if (!error && (torn != 0 || wrong != 0))
		error = err_set(SECPOOL_E_INTEGRITY,
			"%llu bytes are in no extent or in two, %llu regions have not what they "
			"should",
			(unsigned long long)torn, (unsigned long long)wrong);
	return error;
}

static enum secpool_error report_store(struct store *store)
{
	uint64_t pages = 0, page_bytes = 0;
	enum secpool_error error =
		directory_number(store->directory, "PRAGMA page_count", DIRECTORY_VALUES(), &pages);

	if (!error)
		error = directory_number(
			store->directory, "PRAGMA page_size", DIRECTORY_VALUES(), &page_bytes);
	if (!error)
		bench_report(store->bench, "store", (double)(pages * page_bytes) / (1 << 20), "MiB",
			0, 0, store->config);
	return error;
}

/* How the free space lies, and how much of all there is that is not free although no region is left. */
static enum secpool_error report_free(struct store *store, bool at_the_end)
{
	uint64_t free_bytes = 0, extents = 0;
	double fragmentation = 0;
	enum secpool_error error = SECPOOL_OK;

	for (unsigned i = 0; i < DEVICES && !error; i++) {
		struct extents_use use = {0};

		error = extents_count_use(store->directory, store->devices[i].slot, &use);
		free_bytes += use.free;
		extents += use.free_extents;
		if (use.free > 0)
			fragmentation += 1 - (double)use.largest_free / (double)use.free;
	}
	if (error)
		return error;
	bench_report(store->bench, at_the_end ? "free_extents_at_end" : "free_extents",
		(double)extents, "", 0, 0, store->config);
	bench_report(store->bench, at_the_end ? "fragmentation_at_end" : "fragmentation",
		fragmentation / DEVICES, "", 0, 0, store->config);
	if (!at_the_end)
		return SECPOOL_OK;
	bench_report(store->bench, "leak", (double)(DEVICES * DEVICE_BYTES - free_bytes), "bytes",
		0, 0, store->config);
	if (free_bytes != DEVICES * DEVICE_BYTES || extents != DEVICES)
		error = err_set(SECPOOL_E_INTEGRITY,
			"%llu bytes in %llu extents are free at the end",
			(unsigned long long)free_bytes, (unsigned long long)extents);
	return error;
}

static enum secpool_error run(struct store *store)
{
	double ratio = 0;
	enum secpool_error error = open_store(store);

	if (!error)
		error = make_all(store, &ratio);
	if (error)
		return error;
	bench_report(store->bench, "create_slowdown", ratio, "x", 0, 0, store->config);
	error = report_store(store);
	if (!error)
		error = check_all(store);
	if (!error)
		error = replace_some(store);
	if (!error)
		error = check_all(store);
	if (!error)
		error = report_free(store, false);
	if (!error)
		error = end_all(store);
	if (!error)
		error = check_all(store);
	if (!error)
		error = report_free(store, true);
	return error;
}

int bench_extents(struct bench *bench)
{
	struct store *store = calloc(1, sizeof *store);
	int status = 1;

	if (!store)
		abort();
	store->bench = bench;
	store->count = bench->regions ? bench->regions : BENCH_REGIONS_MOST;
	store->regions = calloc(store->count, sizeof *store->regions);
	snprintf(store->config, sizeof store->config, "devices=%d capacity=64TiB", DEVICES);
	if (!store->regions)
		abort();
	status = run(store) == SECPOOL_OK ? 0 : bench_failed(bench, "the directory");
	directory_close(store->directory);
	if (os_remove_tree(store->folder) != SECPOOL_OK)
		status = bench_failed(bench, "the store's folder");
	free(store->regions);
	free(store);
	return status;
}
