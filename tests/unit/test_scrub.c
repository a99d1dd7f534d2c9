/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <poll.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "enclave/secmem.h"
#include "keymgr/scrub.h"
#include "lib/base/emumedia.h"
#include "lib/base/guarded_copy.h"
#include "lib/base/media.h"
#include "lib/base/os.h"

enum { MEDIA_BYTES = 8 << 20, FIRST = 2 << 20, COUNT = 4 << 20 };

enum secpool_error __real_guarded_differs(const struct guarded_expected *, bool *);
enum secpool_error __wrap_guarded_differs(const struct guarded_expected *, bool *);

static int media = -1;
static _Atomic bool wait_at_compare; /* once, until go_on is posted */
static sem_t go_on;
static bool silent_at_compare; /* the thread is handed its work under a lock after this is set */

static int put(size_t at, uint64_t value)
{
	return pwrite(media, &value, sizeof value, (off_t)(MEDIA_BYTES + at)) == 8 ? 0 : -1;
}

static int set_up(void **state)
{
	uint8_t *map;

	(void)state;
	media = memfd_create("media", MFD_CLOEXEC);
	if (media < 0 || ftruncate(media, (off_t)media_bytes(true, MEDIA_BYTES)) != 0 ||
		put(MEDIA_CANARY_AT, 0x1234567812345678) != 0)
		return -1;
	map = mmap(NULL, MEDIA_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, media, 0);
	if (map == MAP_FAILED)
		return -1;
	memset(map, 0x5a, MEDIA_BYTES);
	return munmap(map, MEDIA_BYTES);
}

static int tear_down(void **state)
{
	(void)state;
	os_close(&media);
	return 0;
}

/* How many bytes of the range still have their old value. */
static size_t count_old(size_t from, size_t to)
{
	uint8_t *map = mmap(NULL, MEDIA_BYTES, PROT_READ, MAP_SHARED, media, 0);
	size_t old = 0;

	assert_ptr_not_equal(map, MAP_FAILED);
	for (size_t i = from; i < to; i++)
		old += map[i] == 0x5a;
	munmap(map, MEDIA_BYTES);
	return old;
}

static void test_the_thread_gives_back_what_it_was_given(void **state)
{
	struct extents_row row = {.id = 7, .slot = 3, .offset = FIRST, .bytes = COUNT, .region = 9};
	struct scrub_result result = {.readback = MSG_READBACK_DIFFERED};
	struct scrub *scrub = NULL;
	struct pollfd poller;

	(void)state;
	assert_int_equal(scrub_new(&scrub), SECPOOL_OK);
	assert_int_equal(scrub_take(scrub, &result), SECPOOL_E_NO_EVENT);
	assert_int_equal(scrub_submit(scrub, -1, MEDIA_BYTES, &row), SECPOOL_E_SYSTEM);
	for (uint64_t id = 7; id < 9; id++) {
		row.id = id;
		assert_int_equal(scrub_submit(scrub, media, MEDIA_BYTES, &row), SECPOOL_OK);
	}
	for (uint64_t id = 7; id < 9; id++) {
		poller = (struct pollfd){.fd = scrub_fd(scrub), .events = POLLIN};
		assert_int_equal(poll(&poller, 1, 20000), 1);
		assert_int_equal(scrub_take(scrub, &result), SECPOOL_OK);
		assert_int_equal(result.row.id, id);
		assert_int_equal(result.row.region, 9);
		assert_int_equal(result.readback, MSG_READBACK_MATCHED);
	}
	assert_int_equal(poll(&poller, 1, 0), 0);
	assert_true(count_old(FIRST, FIRST + COUNT) < COUNT / 2);
	/* ended with a job under way */
	assert_int_equal(scrub_submit(scrub, media, MEDIA_BYTES, &row), SECPOOL_OK);
	scrub_free(scrub);
	scrub_free(NULL);
}

static enum msg_readback scrub_once(struct scrub *scrub)
{
	struct extents_row row = {.id = 1, .slot = 3, .offset = FIRST, .bytes = COUNT};
	struct pollfd poller = {.fd = scrub_fd(scrub), .events = POLLIN};
	struct scrub_result result = {.readback = MSG_READBACK_MATCHED};

	assert_int_equal(scrub_submit(scrub, media, MEDIA_BYTES, &row), SECPOOL_OK);
	assert_int_equal(poll(&poller, 1, 20000), 1);
	assert_int_equal(scrub_take(scrub, &result), SECPOOL_OK);
	return result.readback;
}

/* A device that is silent, answers nothing, or has no canary did not keep what was stored, whatever is read. */
static void test_what_is_not_alive_does_not_pass(void **state)
{
	static const uint64_t words[] = {EMUMEDIA_SILENT, EMUMEDIA_STUCK};
	struct scrub *scrub = NULL;

	(void)state;
	assert_int_equal(scrub_new(&scrub), SECPOOL_OK);
	for (size_t i = 0; i < 2; i++) {
		assert_int_equal(put(EMUMEDIA_WORD_AT, words[i]), 0);
		assert_int_equal(scrub_once(scrub), MSG_READBACK_UNREACHABLE);
	}
	assert_int_equal(put(EMUMEDIA_WORD_AT, emumedia_word(EMUMEDIA_SLOW, 1000000)), 0);
	assert_int_equal(scrub_once(scrub), MSG_READBACK_MATCHED);
	assert_int_equal(put(MEDIA_CANARY_AT, 0), 0);
	assert_int_equal(scrub_once(scrub), MSG_READBACK_UNREACHABLE);
	scrub_free(scrub);
}

/* The device goes silent between what is stored and what is read back, in the scrub's own thread. */
enum secpool_error __wrap_guarded_differs(
	const struct guarded_expected *expected, bool *ret_differs)
{
	if (wait_at_compare) {
		wait_at_compare = false;
		while (sem_wait(&go_on) != 0)
			;
	}
	if (silent_at_compare && put(EMUMEDIA_WORD_AT, EMUMEDIA_SILENT) != 0)
		abort(); /* cmocka's asserts are for its own thread */
	return __real_guarded_differs(expected, ret_differs);
}

/* What was read before says nothing. */
static void test_silence_in_the_middle(void **state)
{
	struct scrub *scrub = NULL;

	(void)state;
	assert_int_equal(scrub_new(&scrub), SECPOOL_OK);
	assert_int_equal(scrub_once(scrub), MSG_READBACK_MATCHED);
	silent_at_compare = true;
	assert_int_equal(scrub_once(scrub), MSG_READBACK_UNREACHABLE);
	silent_at_compare = false;
	assert_int_equal(put(EMUMEDIA_WORD_AT, EMUMEDIA_NORMAL), 0);
	assert_int_equal(scrub_once(scrub), MSG_READBACK_MATCHED);
	scrub_free(scrub);
}

/* What waits of a device that did not answer comes back untried; others' ranges have their turn. */
static void test_a_silent_device_holds_up_nobody(void **state)
{
	static const uint64_t slots[] = {3, 3, 4, 3};
	struct extents_row row = {.offset = FIRST, .bytes = COUNT};
	struct scrub *scrub = NULL;

	(void)state;
	assert_int_equal(sem_init(&go_on, 0, 0), 0);
	assert_int_equal(scrub_new(&scrub), SECPOOL_OK);
	wait_at_compare = true;
	for (uint64_t id = 1; id <= 4; id++) {
		row.id = id;
		row.slot = slots[id - 1];
		assert_int_equal(scrub_submit(scrub, media, MEDIA_BYTES, &row), SECPOOL_OK);
	}
	assert_int_equal(put(EMUMEDIA_WORD_AT, EMUMEDIA_SILENT), 0);
	assert_int_equal(sem_post(&go_on), 0);
	for (int i = 0; i < 4; i++) {
		struct pollfd poller = {.fd = scrub_fd(scrub), .events = POLLIN};
		struct scrub_result result = {.untried = true};

		assert_int_equal(poll(&poller, 1, 20000), 1);
		assert_int_equal(scrub_take(scrub, &result), SECPOOL_OK);
		assert_int_equal(result.untried, result.row.id == 2 || result.row.id == 4);
		if (!result.untried)
			assert_int_equal(result.readback, MSG_READBACK_UNREACHABLE);
	}
	scrub_free(scrub);
	sem_destroy(&go_on);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_the_thread_gives_back_what_it_was_given),
		TEST(test_what_is_not_alive_does_not_pass),
		TEST(test_silence_in_the_middle),
		TEST(test_a_silent_device_holds_up_nobody),
	};

	if (secmem_init(SECMEM_ALLOW_LOCKED) != SECPOOL_OK)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
