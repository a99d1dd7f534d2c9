/* SPDX-License-Identifier: Apache-2.0 */
/* lib/base/err.c: texts, names and numbers of every code; the sentence of each thread. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/err.h"

static void test_list(void **state)
{
	(void)state;
#define ROW(name, number, text)                                                                    \
	assert_string_equal(err_name(name), #name);                                                \
	assert_string_equal(err_text(name), text);                                                 \
	assert_int_equal(err_from_number(number), name);                                           \
	assert_int_equal((int)name, number);
	SECPOOL_ERRORS(ROW)
#undef ROW
	assert_string_equal(err_name((enum secpool_error)12345), "SECPOOL_E_?");
	assert_string_equal(err_text((enum secpool_error)12345), "unknown error");
	assert_int_equal(err_from_number(12345), SECPOOL_E_PROTOCOL);
	assert_int_equal(err_from_number(UINT32_MAX), SECPOOL_E_PROTOCOL);
}

static void test_unique(void **state)
{
	static const char *const texts[] = {
#define ROW(name, number, text) text,
		SECPOOL_ERRORS(ROW)
#undef ROW
	};

	(void)state;
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
		for (size_t j = 0; j < i; j++)
			assert_string_not_equal(texts[i], texts[j]);
}

static void test_detail(void **state)
{
	char longer[2 * ERR_DETAIL_BYTES];

	(void)state;
	err_clear();
	assert_string_equal(err_detail(), "");
	assert_int_equal(err_set(SECPOOL_E_LOST, "page %d of %s", 7, "x"), SECPOOL_E_LOST);
	assert_string_equal(err_detail(), "page 7 of x");
	assert_int_equal(err_last(), SECPOOL_E_LOST);
	/* its own text as an argument */
	assert_int_equal(err_set(SECPOOL_E_TPM, "start: %s", err_detail()), SECPOOL_E_TPM);
	assert_string_equal(err_detail(), "start: page 7 of x");
	memset(longer, 'y', sizeof longer - 1);
	longer[sizeof longer - 1] = '\0';
	assert_int_equal(err_set(SECPOOL_E_TPM, "%s", longer), SECPOOL_E_TPM);
	assert_int_equal(strlen(err_detail()), ERR_DETAIL_BYTES - 1);
	err_clear();
	assert_string_equal(err_detail(), "");
	assert_int_equal(err_last(), SECPOOL_OK);
}

static void *other_thread(void *arg)
{
	*(bool *)arg =
		err_detail()[0] == '\0' && err_set(SECPOOL_E_BUSY, "other") == SECPOOL_E_BUSY;
	return NULL;
}

static void test_thread(void **state)
{
	bool own = false;
	pthread_t thread;

	(void)state;
	assert_int_equal(err_set(SECPOOL_E_LOST, "mine"), SECPOOL_E_LOST);
	assert_int_equal(pthread_create(&thread, NULL, other_thread, &own), 0);
	pthread_join(thread, NULL);
	assert_true(own);
	assert_string_equal(err_detail(), "mine");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_list),
		cmocka_unit_test(test_unique),
		cmocka_unit_test(test_detail),
		cmocka_unit_test(test_thread),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
