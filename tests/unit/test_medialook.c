/* SPDX-License-Identifier: Apache-2.0 */
/* Looks at media that answer, that are gone, that answer late and that never do: nobody waits longer than was said, and a look that is not back keeps others from beginning. */
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
#include "lib/base/guarded_copy.h"
#include "lib/base/media.h"
#include "lib/base/medialook.h"

enum { CAPACITY = 4 << 20 };
static const uint64_t CANARY = 0x1122334455667788;
#define LONG_NS (60 * CLOCK_NS_PER_S)

static int make_media(uint64_t canary)
{
	int fd = memfd_create("media", MFD_CLOEXEC);

	assert_true(fd >= 0 && ftruncate(fd, (off_t)media_bytes(true, CAPACITY)) == 0);
	assert_int_equal(
		pwrite(fd, &canary, sizeof canary, CAPACITY + MEDIA_CANARY_AT), sizeof canary);
	return fd;
}

static void behave(int fd, uint64_t word)
{
	assert_int_equal(pwrite(fd, &word, sizeof word, CAPACITY + EMUMEDIA_WORD_AT), sizeof word);
}

static void media_that_answer(void **state)
{
	int fd = make_media(CANARY), other = make_media(CANARY + 1);
	uint64_t canary = 0;

	(void)state;
	assert_int_equal(medialook(fd, CAPACITY, LONG_NS, &canary), SECPOOL_OK);
	assert_true(canary == CANARY);
	assert_int_equal(medialook(other, CAPACITY, LONG_NS, &canary), SECPOOL_OK);
	assert_true(canary == CANARY + 1);
	assert_true(medialook_there(fd, CAPACITY));
	behave(fd, emumedia_word(EMUMEDIA_SILENT, 0));
	assert_int_equal(medialook(fd, CAPACITY, LONG_NS, &canary), SECPOOL_OK);
	assert_true(canary == 0);
	behave(fd, emumedia_word(EMUMEDIA_SLOW, 20 * CLOCK_NS_PER_MS));
	canary = 0;
	assert_int_equal(medialook(fd, CAPACITY, LONG_NS, &canary), SECPOOL_OK);
	close(fd);
	close(other);
}

static void media_that_are_not_there(void **state)
{
	int fd = make_media(CANARY), pipes[2];
	uint64_t canary = 5;

	(void)state;
	assert_int_equal(ftruncate(fd, CAPACITY / 2), 0);
	assert_int_equal(medialook(fd, CAPACITY, LONG_NS, &canary), SECPOOL_E_DEVICE_GONE);
	assert_false(medialook_there(fd, CAPACITY));
	assert_int_not_equal(medialook(-1, CAPACITY, LONG_NS, &canary), SECPOOL_OK);
	assert_int_equal(pipe(pipes), 0);
	assert_int_equal(medialook(pipes[0], CAPACITY, LONG_NS, &canary), SECPOOL_E_INVALID);
	assert_false(medialook_there(pipes[0], CAPACITY));
	assert_true(canary == 5);
	close(pipes[0]);
	close(pipes[1]);
	close(fd);
}

/* The first look waits as long as it may, those after it not at all, and other media are looked at meanwhile; when the device answers again, so do looks. */
static void media_that_never_answer(void **state)
{
	int fd = make_media(CANARY), other = make_media(CANARY + 1);
	uint64_t canary = 5, began;
	enum secpool_error error;

	(void)state;
	behave(fd, emumedia_word(EMUMEDIA_STUCK, 0));
	began = clock_now_ns();
	assert_int_equal(
		medialook(fd, CAPACITY, 100 * CLOCK_NS_PER_MS, &canary), SECPOOL_E_TIMEOUT);
	assert_true(clock_now_ns() - began >= 100 * CLOCK_NS_PER_MS);
	for (int i = 0; i < 1000; i++)
		assert_int_equal(medialook(fd, CAPACITY, LONG_NS, &canary), SECPOOL_E_TIMEOUT);
	/* not one of them waited */
	assert_true(clock_now_ns() - began < LONG_NS);
	assert_true(canary == 5);
	assert_int_equal(medialook(other, CAPACITY, LONG_NS, &canary), SECPOOL_OK);
	behave(fd, EMUMEDIA_NORMAL);
	do
		error = medialook(fd, CAPACITY, LONG_NS, &canary);
	while (error == SECPOOL_E_TIMEOUT && clock_now_ns() - began < LONG_NS);
	assert_int_equal(error, SECPOOL_OK);
	assert_true(canary == CANARY);
	close(fd);
	close(other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(media_that_answer),
		cmocka_unit_test(media_that_are_not_there),
		cmocka_unit_test(media_that_never_answer),
	};

	if (guarded_copy_install() != SECPOOL_OK)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
