/* SPDX-License-Identifier: Apache-2.0 */
/* lib/wire/runopts.c: each option, and wrong texts, which change nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <signal.h>
#include <string.h>

#include "lib/wire/runopts.h"

static struct runopts options;

static enum secpool_error read_text(enum runopts_option option, const char *text)
{
	return runopts_read(&options, option, text);
}

static void test_good(void **state)
{
	(void)state;
	runopts_init(&options);
	assert_string_equal(options.tenant, "default");
	assert_true(options.data == 1 && options.lanes == 1 && options.on_loss == 0);
	assert_int_equal(read_text(RUNOPTS_TENANT, "jobs"), SECPOOL_OK);
	assert_string_equal(options.tenant, "jobs");
	assert_int_equal(read_text(RUNOPTS_LOCAL_BYTES, "16M"), SECPOOL_OK);
	assert_true(options.local_bytes == 16 << 20);
	assert_int_equal(read_text(RUNOPTS_REDUNDANCY, "ec:4+2"), SECPOOL_OK);
	assert_true(options.data == 4 && options.lanes == 6);
	assert_int_equal(read_text(RUNOPTS_REDUNDANCY, "mirror:3"), SECPOOL_OK);
	assert_true(options.data == 1 && options.lanes == 3);
	assert_int_equal(read_text(RUNOPTS_ON_LOSS, "signal:USR1"), SECPOOL_OK);
	assert_true(options.on_loss == MSG_ON_LOSS_SIGNAL && options.signal == SIGUSR1);
	assert_int_equal(read_text(RUNOPTS_ON_LOSS, "signal:SIGTERM"), SECPOOL_OK);
	assert_int_equal(options.signal, SIGTERM);
	assert_int_equal(read_text(RUNOPTS_ON_LOSS, "signal:12"), SECPOOL_OK);
	assert_int_equal(options.signal, 12);
	assert_int_equal(options.fork, RUNOPTS_FORK_SNAPSHOT);
	assert_int_equal(read_text(RUNOPTS_FORK, "deny"), SECPOOL_OK);
	assert_int_equal(options.fork, RUNOPTS_FORK_DENY);
	assert_int_equal(read_text(RUNOPTS_FORK, "snapshot"), SECPOOL_OK);
	assert_int_equal(options.fork, RUNOPTS_FORK_SNAPSHOT);
	assert_int_equal(read_text(RUNOPTS_ON_LOSS, "kill"), SECPOOL_OK);
	assert_true(options.on_loss == MSG_ON_LOSS_KILL && options.signal == 0);
}

static void test_wrong(void **state)
{
	static const struct {
		enum runopts_option option;
		const char *text;
	} wrong[] = {
		{RUNOPTS_TENANT, ""},
		{RUNOPTS_TENANT,
			"a-name-that-is-longer-than-any-tenants-name-may-be-and-so-it-is-refused"},
		{RUNOPTS_LOCAL_BYTES, "much"},
		{RUNOPTS_REDUNDANCY, "mirror:1"},
		{RUNOPTS_REDUNDANCY, ""},
		{RUNOPTS_FORK, ""},
		{RUNOPTS_FORK, "share"},
		{RUNOPTS_ON_LOSS, ""},
		{RUNOPTS_ON_LOSS, "refill"},
		{RUNOPTS_ON_LOSS, "signal"},
		{RUNOPTS_ON_LOSS, "signal:"},
		{RUNOPTS_ON_LOSS, "signal:BUS"},
		{RUNOPTS_ON_LOSS, "signal:KILL"},
		{RUNOPTS_ON_LOSS, "signal:7x"},
		{RUNOPTS_ON_LOSS, "signal:4294967297"},
		{RUNOPTS_OPTIONS, "x"},
	};
	struct runopts before;

	(void)state;
	runopts_init(&options);
	assert_int_equal(read_text(RUNOPTS_ON_LOSS, "signal:USR1"), SECPOOL_OK);
	before = options;
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		assert_int_equal(read_text(wrong[i].option, wrong[i].text), SECPOOL_E_INVALID);
		assert_memory_equal(&options, &before, sizeof before);
	}
}

static void test_names(void **state)
{
	(void)state;
	for (unsigned i = 0; i < RUNOPTS_OPTIONS; i++) {
		assert_true(strlen(runopts_name((enum runopts_option)i)) > 0);
		assert_int_equal(
			strncmp(runopts_variable((enum runopts_option)i), "SECPOOL_RUN_", 12), 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good),
		cmocka_unit_test(test_wrong),
		cmocka_unit_test(test_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
