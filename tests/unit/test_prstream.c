/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "enclave/prstream.h"
#include "enclave/secmem.h"

enum { BYTES = 8192 };

static void test_seekable(void **state)
{
	uint8_t whole[BYTES], part[BYTES];
	struct prstream *stream = NULL;

	(void)state;
	assert_int_equal(prstream_new(&stream), SECPOOL_OK);
	assert_int_equal(prstream_bytes(stream, 1 << 20, whole, BYTES), SECPOOL_OK);
	for (uint64_t at = 0; at < BYTES; at += 1008) {
		size_t count = BYTES - at < 777 ? BYTES - at : 777;

		assert_int_equal(prstream_bytes(stream, (1 << 20) + at, part, count), SECPOOL_OK);
		assert_memory_equal(part, whole + at, count);
	}
	/* what was in the buffer does not matter */
	memset(part, 0xff, sizeof part);
	assert_int_equal(prstream_bytes(stream, 1 << 20, part, BYTES), SECPOOL_OK);
	assert_memory_equal(part, whole, BYTES);
	prstream_free(stream);
	prstream_free(NULL);
}

static void test_streams_and_places_differ(void **state)
{
	uint8_t here[64], there[64], far[64];
	struct prstream *one = NULL, *two = NULL;

	(void)state;
	assert_int_equal(prstream_new(&one), SECPOOL_OK);
	assert_int_equal(prstream_new(&two), SECPOOL_OK);
	assert_int_equal(prstream_bytes(one, 0, here, 64), SECPOOL_OK);
	assert_int_equal(prstream_bytes(two, 0, there, 64), SECPOOL_OK);
	assert_memory_not_equal(here, there, 64);
	/* beyond 2^36 bytes, where a counter of 32 bits would have come round */
	assert_int_equal(prstream_bytes(one, 1ull << 36, far, 64), SECPOOL_OK);
	assert_memory_not_equal(here, far, 64);
	prstream_free(one);
	prstream_free(two);
}

static void test_looks_random(void **state)
{
	static uint8_t bytes[1 << 20];
	struct prstream *stream = NULL;
	size_t counts[256] = {0};

	(void)state;
	assert_int_equal(prstream_new(&stream), SECPOOL_OK);
	assert_int_equal(prstream_bytes(stream, 0, bytes, sizeof bytes), SECPOOL_OK);
	for (size_t i = 0; i < sizeof bytes; i++)
		counts[bytes[i]]++;
	/* 4096 of each expected, with a deviation of 64; 10 deviations */
	for (size_t i = 0; i < 256; i++)
		assert_in_range(counts[i], 4096 - 640, 4096 + 640);
	prstream_free(stream);
}

/* Any position and count give the same bytes as one call does, over the ends of pieces, of the base and of spans. */
static void test_any_part(void **state)
{
	enum { AROUND = 4096 };
	static const uint64_t ends[] = {PRSTREAM_PIECE_BYTES, PRSTREAM_BASE_BYTES,
		PRSTREAM_SPAN_BYTES, 5ull * PRSTREAM_SPAN_BYTES};
	static const size_t steps[] = {1, 63, 64, 65, 128, 1000};
	uint8_t whole[2 * AROUND], part[1000];
	struct prstream *stream = NULL;

	(void)state;
	assert_int_equal(prstream_new(&stream), SECPOOL_OK);
	for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
		uint64_t first = ends[i] - AROUND;

		assert_int_equal(prstream_bytes(stream, first, whole, sizeof whole), SECPOOL_OK);
		for (size_t k = 0; k < sizeof steps / sizeof *steps; k++) {
			for (size_t at = 0; at + steps[k] <= sizeof whole; at += steps[k]) {
				assert_int_equal(prstream_bytes(stream, first + at, part, steps[k]),
					SECPOOL_OK);
				assert_memory_equal(part, whole + at, steps[k]);
			}
		}
	}
	memset(part, 0x42, 16);
	assert_int_equal(prstream_bytes(stream, 16, part, 0), SECPOOL_OK);
	assert_int_equal(part[0], 0x42);
	prstream_free(stream);
}

static void test_piece_is_what_the_bytes_are_made_of(void **state)
{
	enum { PIECES = 3 };
	static const uint64_t positions[PIECES] = {
		0, 7ull * PRSTREAM_BASE_BYTES + PRSTREAM_PIECE_BYTES, 1ull << 40};
	static uint8_t bytes[PRSTREAM_PIECE_BYTES];
	struct prstream_piece piece, other;
	struct prstream *stream = NULL;

	(void)state;
	assert_int_equal(prstream_new(&stream), SECPOOL_OK);
	for (size_t i = 0; i < PIECES; i++) {
		assert_int_equal(
			prstream_bytes(stream, positions[i], bytes, sizeof bytes), SECPOOL_OK);
		assert_int_equal(prstream_piece(stream, positions[i] + 5, &piece), SECPOOL_OK);
		for (size_t k = 0; k < sizeof bytes; k++)
			assert_int_equal(
				bytes[k], piece.slice[k] ^ piece.mask[k % PRSTREAM_MASK_BYTES]);
	}
	/* a base apart: the same slice, another mask; and the first stays valid */
	assert_int_equal(prstream_piece(stream, 0, &piece), SECPOOL_OK);
	assert_int_equal(prstream_piece(stream, PRSTREAM_BASE_BYTES, &other), SECPOOL_OK);
	assert_ptr_equal(piece.slice, other.slice);
	assert_memory_not_equal(piece.mask, other.mask, PRSTREAM_MASK_BYTES);
	prstream_free(stream);
}

static int by_bytes(const void *left, const void *right)
{
	return memcmp(left, right, 64);
}

/* No line of 64 bytes comes twice: within a piece, between pieces of the same slice, and between spans. */
static void test_no_line_comes_twice(void **state)
{
	enum { PART = 1 << 20, PARTS = 3 };
	static uint8_t bytes[PARTS][PART];
	static const uint64_t positions[PARTS] = {
		0, PRSTREAM_SPAN_BYTES - PART, PRSTREAM_SPAN_BYTES};
	struct prstream *stream = NULL;

	(void)state;
	assert_int_equal(prstream_new(&stream), SECPOOL_OK);
	for (size_t i = 0; i < PARTS; i++)
		assert_int_equal(prstream_bytes(stream, positions[i], bytes[i], PART), SECPOOL_OK);
	qsort(bytes, sizeof bytes / 64, 64, by_bytes);
	for (size_t i = 64; i < sizeof bytes; i += 64)
		assert_memory_not_equal(&bytes[0][0] + i - 64, &bytes[0][0] + i, 64);
	prstream_free(stream);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_seekable),
		cmocka_unit_test(test_streams_and_places_differ),
		cmocka_unit_test(test_looks_random),
		cmocka_unit_test(test_any_part),
		cmocka_unit_test(test_piece_is_what_the_bytes_are_made_of),
		cmocka_unit_test(test_no_line_comes_twice),
	};

	if (secmem_init(SECMEM_ALLOW_LOCKED)) {
		fprintf(stderr, "secmem_init: %s\n", err_detail());
		return 1;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
