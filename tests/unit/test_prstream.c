/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
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
	for (uint64_t at = 0; at < BYTES; at += 1024) {
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
	/* the same part of the base, in pieces of their own */
	assert_int_equal(prstream_bytes(one, 256 << 10, far, 64), SECPOOL_OK);
	assert_memory_not_equal(here, far, 64);
	assert_int_equal(prstream_bytes(one, 16 << 10, far, 64), SECPOOL_OK);
	assert_memory_not_equal(here, far, 64);
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

static void test_errors(void **state)
{
	uint8_t bytes[16], before[16];
	struct prstream *stream = NULL;

	(void)state;
	memset(bytes, 0x42, sizeof bytes);
	memcpy(before, bytes, sizeof bytes);
	assert_int_equal(prstream_new(&stream), SECPOOL_OK);
	assert_int_equal(prstream_bytes(stream, 16, bytes, sizeof bytes), SECPOOL_E_INVALID);
	assert_memory_equal(bytes, before, sizeof bytes);
	assert_int_equal(prstream_bytes(stream, 64, bytes, 0), SECPOOL_OK);
	assert_memory_equal(bytes, before, sizeof bytes);
	prstream_free(stream);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_seekable),
		cmocka_unit_test(test_streams_and_places_differ),
		cmocka_unit_test(test_looks_random),
		cmocka_unit_test(test_errors),
	};

	if (secmem_init(SECMEM_ALLOW_LOCKED)) {
		fprintf(stderr, "secmem_init: %s\n", err_detail());
		return 1;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
