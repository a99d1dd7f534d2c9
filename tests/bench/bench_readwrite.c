/* SPDX-License-Identifier: Apache-2.0 */
/*
 * secpool_read and secpool_write of pages that are not resident, in calls of 64 KiB, 1 MiB and 4 MiB at places in random order, in both fault modes, against the
 * page cipher's own speed in the same rounds, each way. What a page costs beyond the cipher stands beside it, with a copy of a page for comparison: a read
 * copies ciphertext from the device, a write copies it there.
 */
#include "tests/bench/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/base/err.h"
#include "lib/secpool.h"
#include "tests/bench/crypt.h"
#include "tests/bench/space.h"

enum { ROUNDS = 5, CIPHER_PASSES = 4, CALL_MOST = 4 << 20 };
#define CIPHER_BYTES ((size_t)CIPHER_PASSES * CRYPT_BYTES)
enum { READ, WRITE, OPEN, SEAL, COPY, SERIES };
static const size_t BYTES = 256u << 20, LOCAL_BYTES = 16u << 20;

struct calls {
	struct space space;
	struct crypt crypt;
	uint8_t *buffer; /* of CALL_MOST */
	size_t call_bytes;
	struct space_times
		times[SERIES]; /* of all BYTES; of the cipher and the copy, of CIPHER_BYTES */
};

/* Each word of even number says where it is. */
static void fill(uint8_t *buffer, size_t offset, size_t bytes)
{
	for (size_t at = 0; at < bytes; at += 2 * sizeof(uint64_t)) {
		uint64_t where = offset + at;

		memcpy(buffer + at, &where, sizeof where);
	}
}

static bool is_right(const uint8_t *buffer, size_t offset, size_t bytes)
{
	for (size_t at = 0; at < bytes; at += SPACE_PAGE) {
		uint64_t where;

		memcpy(&where, buffer + at, sizeof where);
		if (where != offset + at)
			return false;
	}
	return true;
}

/* All of the region once, the places in an order without neighbours: an odd stride meets each of a power of two. Only the calls are timed. */
static enum secpool_error pass(struct calls *calls, bool write, double *ret_seconds)
{
	size_t count = BYTES / calls->call_bytes, stride = (count / 2 + 5) | 1;
	struct secpool_region *region = calls->space.region;
	enum secpool_error error = SECPOOL_OK;
	uint64_t spent = 0;

	for (size_t i = 0; i < count && !error; i++) {
		size_t offset = i * stride % count * calls->call_bytes;
		uint64_t start;

		if (write)
			fill(calls->buffer, offset, calls->call_bytes);
		start = clock_now_ns();
		error = write ? secpool_write(region, offset, calls->buffer, calls->call_bytes)
			      : secpool_read(region, offset, calls->buffer, calls->call_bytes);
		spent += clock_now_ns() - start;
		if (!error && !write && !is_right(calls->buffer, offset, calls->call_bytes))
			error = err_set(SECPOOL_E_INTEGRITY, "wrong bytes at %zu", offset);
	}
	*ret_seconds = (double)spent / (double)CLOCK_NS_PER_S;
	return error;
}

static void note(struct space_times *times, double seconds)
{
	unsigned at = times->rounds++;

	for (; at > 0 && times->seconds[at - 1] > seconds; at--)
		times->seconds[at] = times->seconds[at - 1];
	times->seconds[at] = seconds;
}

/* Adds one pass each way and one of copying to the seconds. */
static enum secpool_error cipher_pass(struct crypt *crypt, double seconds[SERIES])
{
	double seal = 0, open = 0, copy = 0;
	enum secpool_error error = crypt_seal(crypt, &seal);

	if (!error)
		error = crypt_unseal(crypt, &open);
	crypt_copy(crypt, &copy);
	seconds[SEAL] += seal;
	seconds[OPEN] += open;
	seconds[COPY] += copy;
	return error;
}

static enum secpool_error one_round(struct calls *calls, bool counts)
{
	double seconds[SERIES] = {0};
	enum secpool_error error = pass(calls, true, &seconds[WRITE]);

	if (!error)
		error = pass(calls, false, &seconds[READ]);
	for (int i = 0; i < CIPHER_PASSES && !error; i++)
		error = cipher_pass(&calls->crypt, seconds);
	for (int i = 0; i < SERIES && counts && !error; i++)
		note(&calls->times[i], seconds[i]);
	return error;
}

static double page_ns(const struct space_times *times, size_t bytes)
{
	return space_median(times) / (double)(bytes / SPACE_PAGE) * 1e9;
}

static void report(struct bench *bench, const struct calls *calls)
{
	static const struct {
		const char *rate, *cipher, *ratio, *rest;
	} names[2] = {
		{"read", "page_open", "read_vs_cipher", "read_page_beyond_cipher"},
		{"write", "page_seal", "write_vs_cipher", "write_page_beyond_cipher"},
	};
	char config[96];

	snprintf(config, sizeof config, "%s mode, calls of %zu KiB, 256 MiB, 16 MiB local",
		calls->space.name, calls->call_bytes >> 10);
	for (int way = READ; way <= WRITE; way++) {
		const struct space_times *mine = &calls->times[way];
		const struct space_times *cipher = &calls->times[OPEN + way];

		space_report_rate(
			bench, names[way].rate, mine, (double)BYTES / 1e9, "GB/s", config);
		space_report_rate(bench, names[way].cipher, cipher, (double)CIPHER_BYTES / 1e9,
			"GB/s", config);
		bench_report(bench, names[way].ratio,
			page_ns(cipher, CIPHER_BYTES) / page_ns(mine, BYTES), "x", 0, 0, config);
		bench_report(bench, names[way].rest,
			page_ns(mine, BYTES) - page_ns(cipher, CIPHER_BYTES), "ns", 0, 0, config);
	}
	bench_report(bench, "copy_of_a_page", page_ns(&calls->times[COPY], CIPHER_BYTES), "ns", 0,
		0, config);
}

static int measure(struct bench *bench, struct calls *calls, size_t call_bytes)
{
	calls->call_bytes = call_bytes;
	memset(calls->times, 0, sizeof calls->times);
	for (int round = -1; round < ROUNDS; round++)
		if (one_round(calls, round >= 0) != SECPOOL_OK)
			return bench_failed(bench, "secpool_read and secpool_write");
	report(bench, calls);
	return 0;
}

static int run_mode(struct bench *bench, struct calls *calls, enum secpool_fault_mode mode)
{
	static const size_t sizes[] = {64u << 10, 1u << 20, CALL_MOST};
	struct space_options options = {.name = mode == SECPOOL_FAULT_INLINE ? "inline" : "thread",
		.mode = mode,
		.bytes = BYTES,
		.local_bytes = LOCAL_BYTES,
		.copies = 1};
	int status;

	if (space_open_pool(bench, &options, &calls->space) != 0)
		return 1;
	/* now that the self-test has run, it is the engine that the library uses */
	if (crypt_open(&calls->crypt, SPACE_PAGE) != SECPOOL_OK) {
		space_close(&calls->space);
		return bench_failed(bench, "cipher");
	}
	status = 0;
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes && status == 0; i++)
		status = measure(bench, calls, sizes[i]);
	crypt_close(&calls->crypt);
	space_close(&calls->space);
	return status;
}

int bench_readwrite(struct bench *bench)
{
	struct calls calls = {.buffer = calloc(1, CALL_MOST)};
	int status;

	if (!calls.buffer)
		abort();
	status = run_mode(bench, &calls, SECPOOL_FAULT_THREAD);
	if (status == 0)
		status = run_mode(bench, &calls, SECPOOL_FAULT_INLINE);
	free(calls.buffer);
	return status;
}
