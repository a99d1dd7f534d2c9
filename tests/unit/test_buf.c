/* SPDX-License-Identifier: Apache-2.0 */
/* lib/base/buf.h: byte order, limits, and that a failure stays. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/buf.h"

static void test_numbers(void **state)
{
	static const uint8_t expected[] = {0x01, 0x03, 0x02, 0x07, 0x06, 0x05, 0x04, 0x88, 0x77,
		0x66, 0x55, 0x44, 0x33, 0x22, 0x11};
	uint8_t bytes[15];
	struct buf_writer w = {.bytes = bytes, .capacity = sizeof bytes};
	struct buf_reader r = {.bytes = bytes, .count = sizeof bytes};

	(void)state;
	buf_put_number(&w, 0x01, 1);
	buf_put_number(&w, 0x0203, 2);
	buf_put_number(&w, 0x04050607, 4);
	buf_put_number(&w, 0x1122334455667788, 8);
	assert_false(w.failed);
	assert_int_equal(w.used, sizeof bytes);
	assert_memory_equal(bytes, expected, sizeof bytes);
	assert_int_equal(buf_get_number(&r, 1), 1);
	assert_int_equal(buf_get_number(&r, 2), 0x0203);
	assert_int_equal(buf_get_number(&r, 4), 0x04050607);
	assert_true(buf_get_number(&r, 8) == 0x1122334455667788);
	assert_false(r.failed);
}

static void test_write_over_end(void **state)
{
	uint8_t bytes[4] = {9, 9, 9, 9};
	struct buf_writer w = {.bytes = bytes, .capacity = 3};

	(void)state;
	buf_put(&w, "ab", 2);
	buf_put_number(&w, 0x0102, 2);
	assert_true(w.failed);
	buf_put(&w, "c", 1); /* would fit, but a failed writer writes no more */
	assert_int_equal(w.used, 2);
	assert_memory_equal(bytes, "ab\x09\x09", 4);
	w = (struct buf_writer){.bytes = bytes, .capacity = 3};
	buf_put(&w, "abc", SIZE_MAX);
	assert_true(w.failed);
	assert_int_equal(w.used, 0);
}

static void test_read_over_end(void **state)
{
	static const uint8_t bytes[3] = {1, 2, 3};
	struct buf_reader r = {.bytes = bytes, .count = sizeof bytes};
	uint8_t to[2] = {9, 9};

	(void)state;
	buf_get(&r, to, 2);
	assert_memory_equal(to, "\x01\x02", 2);
	buf_get(&r, to, 2);
	assert_true(r.failed);
	assert_memory_equal(to, "\0\0", 2); /* nothing old is taken for data */
	assert_int_equal(buf_get_number(&r, 1), 0);
	assert_int_equal(r.used, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_write_over_end),
		cmocka_unit_test(test_read_over_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
