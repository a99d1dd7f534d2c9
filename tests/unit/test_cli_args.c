/* SPDX-License-Identifier: Apache-2.0 */
/* cli/args.c: options, words, and every wrong line with status 2. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "cli/args.h"

static const struct command up = {
	NULL, "up", ARG_RUNTIME | ARG_DEVICES | ARG_POLICY, 0, "", "", NULL};
static const struct command pull = {"device", "pull", ARG_RUNTIME | ARG_SILENT, 1, "ID", "", NULL};
static const struct command check = {"policy", "check", 0, 1, "FILE", "", NULL};

static struct args args;

static int parse(const struct command *command, const char *first, ...)
{
	static char *argv[16]; /* the words in args are borrowed from it */
	int argc = first ? 2 : 1;
	va_list list;

	memset(argv, 0, sizeof argv);
	argv[0] = (char *)"x";
	argv[1] = (char *)first;
	va_start(list, first);
	while (first && argc < 15 && (argv[argc] = va_arg(list, char *)) != NULL)
		argc++;
	va_end(list);
	memset(&args, 0x55, sizeof args);
	return args_parse(command, "/given", argc, argv, &args);
}

static void test_defaults(void **state)
{
	(void)state;
	assert_int_equal(parse(&up, NULL), ARGS_RUN);
	assert_true(args.devices == 3 && args.device_bytes == 512ull << 20);
	assert_string_equal(args.runtime, "/given");
	assert_null(args.policy);
	assert_null(args.words[0]);
	assert_false(args.json || args.follow || args.silent_ms);
}

static void test_options(void **state)
{
	(void)state;
	assert_int_equal(parse(&up, "--devices", "0", "--device-bytes=2M", "--policy", "p",
				 "--runtime-dir", "/other", NULL),
		ARGS_RUN);
	assert_true(args.devices == 0 && args.device_bytes == 2 << 20);
	assert_string_equal(args.policy, "p");
	assert_string_equal(args.runtime, "/other");
	assert_int_equal(parse(&pull, "dev0", "--silent", NULL), ARGS_RUN);
	assert_int_equal(args.silent_ms, 500);
	assert_int_equal(parse(&pull, "--silent=70", "dev0", NULL), ARGS_RUN);
	assert_int_equal(args.silent_ms, 70);
	assert_int_equal(parse(&pull, "dev0", "--silent", "30000", NULL), ARGS_RUN);
	assert_int_equal(args.silent_ms, 30000);
	assert_string_equal(args.words[0], "dev0");
	assert_int_equal(parse(&pull, "--silent", "dev0", NULL), ARGS_RUN);
	assert_int_equal(args.silent_ms, 500);
	assert_string_equal(args.words[0], "dev0");
	assert_int_equal(parse(&pull, "--", "--silent", NULL), ARGS_RUN);
	assert_int_equal(args.silent_ms, 0);
	assert_string_equal(args.words[0], "--silent");
}

static void test_relative_runtime(void **state)
{
	char here[PATH_MAX], expected[PATH_MAX + 8];

	(void)state;
	assert_int_equal(chdir("/tmp"), 0);
	assert_non_null(getcwd(here, sizeof here));
	assert_int_equal(parse(&up, "--runtime-dir", "rel", NULL), ARGS_RUN);
	snprintf(expected, sizeof expected, "%s/rel", here);
	assert_string_equal(args.runtime, expected);
}

static void test_wrong(void **state)
{
	struct args before;

	(void)state;
	memset(&before, 0x55, sizeof before);
	assert_int_equal(parse(&up, "word", NULL), STATUS_USAGE);
	assert_memory_equal(&args, &before, sizeof args);
	assert_int_equal(parse(&up, "--devices", NULL), STATUS_USAGE);
	assert_int_equal(parse(&up, "--devices", "65", NULL), STATUS_USAGE);
	assert_int_equal(parse(&up, "--devices", "-1", NULL), STATUS_USAGE);
	assert_int_equal(parse(&up, "--devices", "3x", NULL), STATUS_USAGE);
	assert_int_equal(parse(&up, "--device-bytes", "0", NULL), STATUS_USAGE);
	assert_int_equal(parse(&up, "--device-bytes", "3M", NULL), STATUS_USAGE);
	assert_int_equal(parse(&up, "--device-bytes", "2T", NULL), STATUS_USAGE);
	assert_int_equal(parse(&up, "--device-bytes", "big", NULL), STATUS_USAGE);
	assert_int_equal(parse(&up, "--silent", NULL), STATUS_USAGE);
	assert_int_equal(parse(&up, "-x", NULL), STATUS_USAGE);
	assert_int_equal(parse(&pull, NULL), STATUS_USAGE);
	assert_int_equal(parse(&pull, "a", "b", NULL), STATUS_USAGE);
	assert_int_equal(parse(&pull, "a", "--silent", "0", NULL), STATUS_USAGE);
	assert_int_equal(parse(&pull, "a", "--silent=30001", NULL), STATUS_USAGE);
	assert_int_equal(parse(&pull, "a", "--silent=x", NULL), STATUS_USAGE);
	assert_int_equal(parse(&pull, "a", "--silent", "5s", NULL), STATUS_USAGE);
	assert_int_equal(parse(&check, "--runtime-dir", "/d", "f", NULL), STATUS_USAGE);
	assert_int_equal(parse(&check, "--help", NULL), STATUS_DONE);
	assert_memory_equal(&args, &before, sizeof args);
}

static void test_failed(void **state)
{
	(void)state;
	err_clear();
	assert_int_equal(command_failed(SECPOOL_E_DENIED), STATUS_REFUSED);
	assert_int_equal(command_failed(SECPOOL_E_UNKNOWN_TENANT), STATUS_REFUSED);
	assert_int_equal(command_failed(SECPOOL_E_QUOTA), STATUS_REFUSED);
	assert_int_equal(command_failed(SECPOOL_E_ATTESTATION), STATUS_FAILED);
	assert_int_equal(command_failed(SECPOOL_E_DAEMON_GONE), STATUS_FAILED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_options),
		cmocka_unit_test(test_relative_runtime),
		cmocka_unit_test(test_wrong),
		cmocka_unit_test(test_failed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
