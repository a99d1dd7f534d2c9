/* SPDX-License-Identifier: Apache-2.0 */
/* lib/base/guarded_copy.c: copies whole, ends with an error where memory vanishes, and leaves other faults to others. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/base/guarded_copy.h"

enum { PAGE = 4096 };

static int media;
static uint8_t *map; /* two pages, of which the second goes away */

static int begin(void **state)
{
	(void)state;
	media = memfd_create("media", MFD_CLOEXEC);
	if (ftruncate(media, 2 * PAGE) != 0)
		return -1;
	map = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, media, 0);
	memset(map, 0x5a, 2 * PAGE);
	return map == MAP_FAILED;
}

static int end(void **state)
{
	(void)state;
	munmap(map, 2 * PAGE);
	return close(media);
}

static void test_copy(void **state)
{
	uint8_t buffer[PAGE + 7];

	(void)state;
	memset(buffer, 0, sizeof buffer);
	assert_int_equal(guarded_copy(buffer, map + 3, sizeof buffer), SECPOOL_OK);
	assert_memory_equal(buffer, map + 3, sizeof buffer);
	memset(buffer, 0x11, sizeof buffer);
	assert_int_equal(guarded_copy(map, buffer, PAGE), SECPOOL_OK);
	assert_memory_equal(map, buffer, PAGE);
	assert_int_equal(map[PAGE], 0x5a);
	assert_int_equal(guarded_copy(map, buffer, 0), SECPOOL_OK);
	assert_int_equal(guarded_flush(map + 5, PAGE), SECPOOL_OK);
	assert_int_equal(guarded_flush(map, 0), SECPOOL_OK);
}

static void test_store(void **state)
{
	static const size_t starts[] = {0, 16, 64, 1, 7},
			    counts[] = {0, 1, 63, 64, 65, 128, 1000, PAGE};
	uint8_t buffer[PAGE + 1];

	(void)state;
	for (size_t i = 0; i < sizeof buffer; i++)
		buffer[i] = (uint8_t)(i * 31);
	for (size_t s = 0; s < sizeof starts / sizeof *starts; s++) {
		for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
			memset(map, 0x5a, 2 * PAGE);
			assert_int_equal(
				guarded_store(map + starts[s], buffer + 1, counts[c]), SECPOOL_OK);
			assert_memory_equal(map + starts[s], buffer + 1, counts[c]);
			assert_int_equal(map[starts[s] + counts[c]], 0x5a);
			if (starts[s] > 0)
				assert_int_equal(map[starts[s] - 1], 0x5a);
		}
	}
}

static void test_gone(void **state)
{
	uint8_t buffer[2 * PAGE];

	(void)state;
	memset(buffer, 0x22, sizeof buffer);
	/* here and not in main: cmocka takes SIGBUS for each test */
	assert_int_equal(guarded_copy_install(), SECPOOL_OK);
	assert_int_equal(ftruncate(media, PAGE), 0);
	assert_int_equal(guarded_copy(buffer, map, sizeof buffer), SECPOOL_E_DEVICE_GONE);
	assert_int_equal(buffer[PAGE], 0x22); /* nothing was made up for the lost page */
	assert_int_equal(guarded_copy(map + PAGE, buffer, 8), SECPOOL_E_DEVICE_GONE);
	assert_int_equal(guarded_copy(map, buffer, sizeof buffer), SECPOOL_E_DEVICE_GONE);
	assert_int_equal(guarded_store(map + PAGE, buffer, 64), SECPOOL_E_DEVICE_GONE);
	assert_int_equal(guarded_store(map, buffer, sizeof buffer), SECPOOL_E_DEVICE_GONE);
	assert_int_equal(guarded_copy(buffer, map, PAGE), SECPOOL_OK); /* and works again */
}

static void test_fixup_elsewhere(void **state)
{
	ucontext_t context;

	(void)state;
	memset(&context, 0, sizeof context);
	context.uc_mcontext.gregs[REG_RIP] = (greg_t)(uintptr_t)test_gone;
	assert_false(guarded_copy_fixup(&context));
	assert_int_equal(context.uc_mcontext.gregs[REG_RIP], (greg_t)(uintptr_t)test_gone);
}

/* Runs in a child: a SIGBUS outside the copy goes to the action that was there before. */
static void touch_lost(void (*handler)(int, siginfo_t *, void *))
{
	struct sigaction action = {.sa_flags = SA_SIGINFO, .sa_sigaction = handler};

	if (!handler)
		action = (struct sigaction){.sa_handler = SIG_DFL};
	sigaction(SIGBUS, &action, NULL);
	if (guarded_copy_install() != SECPOOL_OK || ftruncate(media, PAGE) != 0)
		_exit(3);
	*(volatile uint8_t *)(map + PAGE) = 1;
	_exit(4);
}

static void own_handler(int number, siginfo_t *info, void *context)
{
	(void)context;
	_exit(number == SIGBUS && info->si_addr == map + PAGE ? 42 : 5);
}

static void test_chain(void **state)
{
	int status = 0;
	pid_t pid = fork();

	(void)state;
	if (pid == 0)
		touch_lost(own_handler);
	waitpid(pid, &status, 0);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 42);
	pid = fork();
	if (pid == 0)
		touch_lost(NULL);
	waitpid(pid, &status, 0);
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	assert_true(WIFSIGNALED(status) || (WIFEXITED(status) && WEXITSTATUS(status) != 4));
#else
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
#endif
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_copy, begin, end),
		cmocka_unit_test_setup_teardown(test_store, begin, end),
		cmocka_unit_test_setup_teardown(test_gone, begin, end),
		cmocka_unit_test(test_fixup_elsewhere),
		cmocka_unit_test_setup_teardown(test_chain, begin, end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
