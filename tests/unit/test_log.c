/* SPDX-License-Identifier: Apache-2.0 */
/* lib/base/log.c and die.c: one line an event, whatever is in it; levels; limits; the end of a daemon. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/base/clock.h"
#include "lib/base/die.h"
#include "lib/base/log.h"

static int kept_stderr, memory;
static char text[8192];

static int begin(void **state)
{
	(void)state;
	kept_stderr = dup(STDERR_FILENO);
	memory = memfd_create("stderr", MFD_CLOEXEC);
	dup2(memory, STDERR_FILENO);
	log_init("unit", LOG_LEVEL_INFO);
	return 0;
}

/* What was logged so far; gives the real stderr back. */
static const char *logged(void)
{
	ssize_t count;

	dup2(kept_stderr, STDERR_FILENO);
	close(kept_stderr);
	count = pread(memory, text, sizeof text - 1, 0);
	close(memory);
	text[count < 0 ? 0 : count] = '\0';
	return text;
}

static void test_line(void **state)
{
	(void)state;
	log_event(LOG_LEVEL_WARNING, "device-lost", "device=%s slot=%d", "dev0", 3);
	assert_string_equal(logged(), "<4>unit: device-lost device=dev0 slot=3\n");
}

static void test_level(void **state)
{
	(void)state;
	log_event(LOG_LEVEL_DEBUG, "hidden", "x=1");
	log_init("unit", LOG_LEVEL_ERROR);
	log_event(LOG_LEVEL_INFO, "hidden", "x=1");
	log_event(LOG_LEVEL_ERROR, "shown", "x=1");
	assert_string_equal(logged(), "<3>unit: shown x=1\n");
}

/* A peer's text can't start a line of its own, nor send escape sequences. */
static void test_one_line(void **state)
{
	(void)state;
	log_event(LOG_LEVEL_INFO, "e", "t=\"%s\"", "a\n<3>forged: b\r\x1b[2Jc\x7f\td");
	assert_string_equal(logged(), "<6>unit: e t=\"a <3>forged: b  [2Jc  d\"\n");
}

static void test_long(void **state)
{
	char longer[4096];

	(void)state;
	memset(longer, 'y', sizeof longer - 1);
	longer[sizeof longer - 1] = '\0';
	log_event(LOG_LEVEL_INFO, "e", "%s", longer);
	const char *line = logged();
	assert_in_range(strlen(line), 512, 1024);
	assert_int_equal(line[strlen(line) - 1], '\n');
	assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
}

static void test_error(void **state)
{
	(void)state;
	log_error("start-failed", err_set(SECPOOL_E_TPM, "no answer"));
	assert_string_equal(
		logged(), "<3>unit: start-failed error=SECPOOL_E_TPM detail=\"no answer\"\n");
}

static void test_die(void **state)
{
	pid_t pid = fork();
	int status = 0;

	(void)state;
	if (pid == 0)
		die("directory-broken", "row=%d", 5);
	waitpid(pid, &status, 0);
	assert_string_equal(logged(), "<3>unit: directory-broken row=5\n");
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
}

static void test_limit(void **state)
{
	struct log_limit limit = {.period_ns = 50 * (uint64_t)CLOCK_NS_PER_MS, .burst = 2};
	struct log_limit none = {.period_ns = CLOCK_NS_PER_S};

	(void)state;
	logged();
	assert_true(log_allowed(&limit));
	assert_true(log_allowed(&limit));
	assert_false(log_allowed(&limit));
	assert_false(log_allowed(&limit));
	clock_sleep_ns(60 * (uint64_t)CLOCK_NS_PER_MS);
	assert_true(log_allowed(&limit));
	assert_false(log_allowed(&none));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_line, begin),
		cmocka_unit_test_setup(test_level, begin),
		cmocka_unit_test_setup(test_one_line, begin),
		cmocka_unit_test_setup(test_long, begin),
		cmocka_unit_test_setup(test_error, begin),
		cmocka_unit_test_setup(test_die, begin),
		cmocka_unit_test_setup(test_limit, begin),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
