/* SPDX-License-Identifier: Apache-2.0 */
/* lib/base/size.c: what is a size, what is none, and how it is shown. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/size.h"

static void test_good(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} rows[] = {{"0", 0}, {"4096", 4096}, {"1k", 1024}, {"512M", 512ull << 20},
		{"4g", 4ull << 30}, {"64T", 64ull << 40}, {"1KiB", 1024}, {"2GB", 2ull << 30},
		{"0x110000000000", 0x110000000000}, {"0XfF", 255},
		{"18446744073709551615", UINT64_MAX}, {"16777215T", 16777215ull << 40}};

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		uint64_t bytes = 1;

		assert_int_equal(size_parse(rows[i].text, &bytes), SECPOOL_OK);
		assert_true(bytes == rows[i].bytes);
	}
}

static void test_bad(void **state)
{
	static const char *const rows[] = {"", " 1", "-1", "+1", "M", "1.5G", "1P", "1MM", "1 M",
		"0x", "0x1M", "18446744073709551616", "16777216T", "1Kib", "12a", "1M ", "0x1g"};

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		uint64_t bytes = 7;

		err_clear();
		if (size_parse(rows[i], &bytes) != SECPOOL_E_INVALID)
			fail_msg("'%s' was taken for a size", rows[i]);
		assert_int_equal(bytes, 7);
		assert_non_null(strstr(err_detail(), "no size"));
	}
}

static void test_format(void **state)
{
	char text[SIZE_TEXT_BYTES];

	(void)state;
	assert_string_equal(size_format(0, text), "0 B");
	assert_string_equal(size_format(1023, text), "1023 B");
	assert_string_equal(size_format(1024, text), "1 KiB");
	assert_string_equal(size_format(1536, text), "1.5 KiB");
	assert_string_equal(size_format(512ull << 20, text), "512 MiB");
	assert_string_equal(size_format(3ull << 29, text), "1.5 GiB");
	assert_string_equal(size_format(64ull << 40, text), "64 TiB");
	assert_string_equal(size_format(UINT64_MAX, text), "16777216.0 TiB");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good),
		cmocka_unit_test(test_bad),
		cmocka_unit_test(test_format),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
