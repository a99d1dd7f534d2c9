/* SPDX-License-Identifier: Apache-2.0 */
/* lib/base/emumedia.c and media.c: each behaviour, and that no wait is without end. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/base/clock.h"
#include "lib/base/emumedia.h"
#include "lib/base/media.h"
#include "lib/base/guarded_copy.h"
#include "lib/base/os.h"

enum { CAPACITY = 1 << 20 };
#define CANARY 0x1122334455667788ull

static int media = -1;
static struct media mapped;
static const uint8_t *control;

static void put(size_t at, uint64_t value)
{
	assert_int_equal(pwrite(media, &value, sizeof value, (off_t)(CAPACITY + at)), 8);
}

static int set_up(void **state)
{
	(void)state;
	media = memfd_create("media", MFD_CLOEXEC);
	if (media < 0 || ftruncate(media, (off_t)media_bytes(true, CAPACITY)) != 0)
		return -1;
	put(MEDIA_CANARY_AT, CANARY);
	if (media_open(media, CAPACITY, &mapped) != SECPOOL_OK)
		return -1;
	control = mapped.control;
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	media_close(&mapped);
	os_close(&media);
	return 0;
}

static void test_normal_and_silent(void **state)
{
	uint64_t canary = 1;
	bool silent = true;

	(void)state;
	assert_int_equal(emumedia_obey(control, NULL, 0, &silent), SECPOOL_OK);
	assert_false(silent);
	assert_int_equal(media_canary(&mapped, NULL, 0, &canary), SECPOOL_OK);
	assert_true(canary == CANARY);
	put(EMUMEDIA_WORD_AT, emumedia_word(EMUMEDIA_SILENT, 0));
	assert_int_equal(emumedia_obey(control, NULL, 0, &silent), SECPOOL_OK);
	assert_true(silent);
	assert_int_equal(media_canary(&mapped, NULL, 0, &canary), SECPOOL_OK);
	assert_true(canary == 0);
}

static void test_slow(void **state)
{
	uint64_t began = clock_now_ns();
	bool silent = true;

	(void)state;
	put(EMUMEDIA_WORD_AT, emumedia_word(EMUMEDIA_SLOW, 3 * CLOCK_NS_PER_MS));
	assert_int_equal(emumedia_obey(control, NULL, 0, &silent), SECPOOL_OK);
	assert_false(silent);
	assert_true(clock_now_ns() - began >= 3 * CLOCK_NS_PER_MS);
	silent = true;
	put(EMUMEDIA_WORD_AT, emumedia_word(EMUMEDIA_SLOW, 3600 * CLOCK_NS_PER_S));
	assert_int_equal(emumedia_obey(control, NULL, CLOCK_NS_PER_MS, &silent), SECPOOL_E_TIMEOUT);
	assert_true(silent);
}

static void *wait_stuck(void *arg)
{
	bool silent;

	return (void *)(uintptr_t)emumedia_obey(control, arg, 0, &silent);
}

/* How an access ends that another thread has in flight. */
static enum secpool_error end_stuck(_Atomic bool *given_up, void (*act)(_Atomic bool *given_up))
{
	pthread_t thread;
	void *result;

	put(EMUMEDIA_WORD_AT, emumedia_word(EMUMEDIA_STUCK, 0));
	assert_int_equal(pthread_create(&thread, NULL, wait_stuck, given_up), 0);
	clock_sleep_ns(5 * CLOCK_NS_PER_MS);
	assert_int_not_equal(pthread_tryjoin_np(thread, &result), 0);
	act(given_up);
	assert_int_equal(pthread_join(thread, &result), 0);
	return (enum secpool_error)(uintptr_t)result;
}

static void become_normal(_Atomic bool *given_up)
{
	(void)given_up;
	put(EMUMEDIA_WORD_AT, 0);
}

static void give_up(_Atomic bool *given_up)
{
	atomic_store(given_up, true);
}

static void cut(_Atomic bool *given_up)
{
	(void)given_up;
	assert_int_equal(ftruncate(media, 0), 0);
}

static void test_stuck(void **state)
{
	_Atomic bool given_up = false;

	(void)state;
	/* here and not in set_up: cmocka takes SIGBUS for each test */
	assert_int_equal(guarded_copy_install(), SECPOOL_OK);
	assert_int_equal(end_stuck(&given_up, become_normal), SECPOOL_OK);
	assert_int_equal(end_stuck(&given_up, give_up), SECPOOL_E_DEVICE_GONE);
	assert_int_equal(end_stuck(NULL, cut), SECPOOL_E_DEVICE_GONE);
}

static void test_gone_or_unknown(void **state)
{
	struct media none = mapped;
	uint64_t canary = 5;
	bool silent = true;

	(void)state;
	assert_int_equal(guarded_copy_install(), SECPOOL_OK);
	put(EMUMEDIA_WORD_AT, 0xee);
	assert_int_equal(emumedia_obey(control, NULL, 0, &silent), SECPOOL_E_DEVICE_GONE);
	put(EMUMEDIA_WORD_AT, 0);
	assert_int_equal(ftruncate(media, CAPACITY), 0);
	assert_int_equal(emumedia_obey(control, NULL, 0, &silent), SECPOOL_E_DEVICE_GONE);
	assert_int_equal(media_canary(&mapped, NULL, 0, &canary), SECPOOL_E_DEVICE_GONE);
	assert_true(silent && canary == 5);
	assert_int_equal(media_open(media, CAPACITY, &none), SECPOOL_E_DEVICE_GONE);
	assert_int_not_equal(media_open(-1, CAPACITY, &none), SECPOOL_OK);
	assert_ptr_equal(none.control, control);
	assert_false(media_there(media, CAPACITY));
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_normal_and_silent),
		TEST(test_slow),
		TEST(test_stuck),
		TEST(test_gone_or_unknown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
