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
	assert_int_equal(guarded_copy(buffer, map, PAGE), SECPOOL_OK); /* and works again */
}

static void test_load(void **state)
{
	uint64_t value = 0, kept = 7;

	(void)state;
	assert_int_equal(guarded_copy_install(), SECPOOL_OK);
	memcpy(map + 16, "\1\2\3\4\5\6\7\x88", 8);
	assert_int_equal(guarded_load(map + 16, &value), SECPOOL_OK);
	assert_memory_equal(&value, map + 16, 8);
	assert_int_equal(ftruncate(media, PAGE), 0);
	assert_int_equal(guarded_load(map + PAGE, &kept), SECPOOL_E_DEVICE_GONE);
	assert_int_equal(kept, 7);
}

static void test_store_masked(void **state)
{
	uint8_t from[256], mask[GUARDED_MASK_BYTES], expected[256];

	(void)state;
	for (size_t i = 0; i < sizeof from; i++) {
		from[i] = (uint8_t)(i * 5);
		mask[i % 64] = (uint8_t)(i * 11 + 3);
	}
	for (size_t i = 0; i < sizeof from; i++)
		expected[i] = from[i] ^ mask[i % 64];
	assert_int_equal(guarded_store_masked(map + 16, from, mask, sizeof from), SECPOOL_OK);
	guarded_fence();
	assert_memory_equal(map + 16, expected, sizeof from);
	assert_int_equal(map[15], 0x5a);
	assert_int_equal(map[16 + sizeof from], 0x5a);
	assert_int_equal(guarded_store_masked(map + PAGE, from, mask, 0), SECPOOL_OK);
	assert_int_equal(guarded_store_masked(map + PAGE + 8, from, mask, 64), SECPOOL_E_INVALID);
	assert_int_equal(guarded_store_masked(map + PAGE, from, mask, 63), SECPOOL_E_INVALID);
	assert_int_equal(map[PAGE], 0x5a);
	assert_int_equal(map[PAGE + 8], 0x5a);
}

enum { STRIDE = 1024, RANGE = 256 };

/* What guarded_differs finds, with one byte of the four ranges changed, or none. */
static void test_differs(void **state)
{
	uint8_t from[RANGE], masks[GUARDED_RANGES][GUARDED_MASK_BYTES];
	struct guarded_expected expected = {
		.at = map, .stride = STRIDE, .count = RANGE, .from = from};
	bool differs = true;

	(void)state;
	for (size_t i = 0; i < RANGE; i++)
		from[i] = (uint8_t)(i * 3 + 1);
	for (size_t r = 0; r < GUARDED_RANGES; r++) {
		for (size_t i = 0; i < GUARDED_MASK_BYTES; i++)
			masks[r][i] = (uint8_t)(r * 64 + i * 13);
		expected.mask[r] = masks[r];
		for (size_t i = 0; i < RANGE; i++)
			map[r * STRIDE + i] = from[i] ^ masks[r][i % GUARDED_MASK_BYTES];
	}
	assert_int_equal(guarded_differs(&expected, &differs), SECPOOL_OK);
	assert_false(differs);
	for (size_t r = 0; r < GUARDED_RANGES; r++) {
		for (size_t i = 0; i < RANGE; i++) {
			map[r * STRIDE + i] ^= (uint8_t)(1 << i % 8);
			assert_int_equal(guarded_differs(&expected, &differs), SECPOOL_OK);
			assert_true(differs);
			map[r * STRIDE + i] ^= (uint8_t)(1 << i % 8);
		}
		map[r * STRIDE + RANGE] ^= 1; /* outside */
	}
	assert_int_equal(guarded_differs(&expected, &differs), SECPOOL_OK);
	assert_false(differs);
	expected.count = 0;
	assert_int_equal(guarded_differs(&expected, &differs), SECPOOL_OK);
	assert_false(differs);
	expected.count = 65;
	differs = true;
	assert_int_equal(guarded_differs(&expected, &differs), SECPOOL_E_INVALID);
	assert_true(differs);
}

/* The second page goes away in the middle of each. */
static void test_streams_gone(void **state)
{
	uint8_t buffer[2 * PAGE], mask[GUARDED_MASK_BYTES] = {0};
	struct guarded_expected expected = {.at = map + PAGE / 2,
		.stride = 0,
		.count = PAGE,
		.from = buffer,
		.mask = {mask, mask, mask, mask}};
	bool differs = true;

	(void)state;
	memset(buffer, 0x22, sizeof buffer);
	assert_int_equal(guarded_copy_install(), SECPOOL_OK);
	assert_int_equal(ftruncate(media, PAGE), 0);
	memset(map, 0, PAGE);
	assert_int_equal(
		guarded_store_masked(map, buffer, mask, sizeof buffer), SECPOOL_E_DEVICE_GONE);
	assert_memory_equal(map, buffer, PAGE);
	assert_int_equal(guarded_differs(&expected, &differs), SECPOOL_E_DEVICE_GONE);
	assert_true(differs); /* nothing was written to it */
	expected.at = map;
	assert_int_equal(guarded_differs(&expected, &differs), SECPOOL_OK); /* and works again */
	assert_false(differs);
	for (size_t gone = 1; gone < GUARDED_RANGES; gone++) { /* the last range alone */
		expected.at = map + PAGE - gone * 64;
		expected.stride = 64;
		expected.count = 64;
		assert_int_equal(guarded_differs(&expected, &differs), SECPOOL_E_DEVICE_GONE);
	}
}

static void test_swap(void **state)
{
	uint64_t before = 1, *at = (uint64_t *)(void *)(map + PAGE);

	(void)state;
	assert_int_equal(guarded_copy_install(), SECPOOL_OK);
	assert_int_equal(guarded_swap(at, 7, &before), SECPOOL_OK);
	assert_int_equal(before, 0x5a5a5a5a5a5a5a5a);
	assert_int_equal(guarded_swap(at, 8, &before), SECPOOL_OK);
	assert_true(before == 7 && *at == 8 && at[1] == 0x5a5a5a5a5a5a5a5a);
	assert_int_equal(ftruncate(media, PAGE), 0);
	assert_int_equal(guarded_swap(at, 9, &before), SECPOOL_E_DEVICE_GONE);
	assert_int_equal(before, 7);
}

static void test_fixup_elsewhere(void **state)
{
	siginfo_t info = {.si_signo = SIGBUS, .si_addr = map};
	ucontext_t context;

	(void)state;
	memset(&context, 0, sizeof context);
	context.uc_mcontext.gregs[REG_RIP] = (greg_t)(uintptr_t)test_gone;
	assert_false(guarded_copy_fixup(&info, &context));
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
		cmocka_unit_test_setup_teardown(test_gone, begin, end),
		cmocka_unit_test_setup_teardown(test_load, begin, end),
		cmocka_unit_test_setup_teardown(test_store_masked, begin, end),
		cmocka_unit_test_setup_teardown(test_differs, begin, end),
		cmocka_unit_test_setup_teardown(test_streams_gone, begin, end),
		cmocka_unit_test_setup_teardown(test_swap, begin, end),
		cmocka_unit_test(test_fixup_elsewhere),
		cmocka_unit_test_setup_teardown(test_chain, begin, end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
