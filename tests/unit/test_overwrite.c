/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
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
#include "keymgr/overwrite.h"
#include "lib/base/guarded_copy.h"
#include "lib/base/os.h"

enum { MEDIA_BYTES = 8 << 20, FIRST = 2 << 20, COUNT = 4 << 20 };

static int media = -1;

static int set_up(void **state)
{
	uint8_t *map;

	(void)state;
	media = memfd_create("media", MFD_CLOEXEC);
	if (media < 0 || ftruncate(media, MEDIA_BYTES) != 0)
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

static void test_exactly_the_range_is_overwritten(void **state)
{
	(void)state;
	assert_int_equal(overwrite_range(media, FIRST, COUNT, NULL), MSG_READBACK_MATCHED);
	assert_int_equal(count_old(0, FIRST), FIRST);
	assert_int_equal(count_old(FIRST + COUNT, MEDIA_BYTES), MEDIA_BYTES - FIRST - COUNT);
	/* of random bytes one in 256 has this value */
	assert_in_range(count_old(FIRST, FIRST + COUNT), COUNT / 512, COUNT / 128);
}

static void test_truncated_media_are_unreachable(void **state)
{
	(void)state;
	/* here, because cmocka puts a handler of its own before each test */
	assert_int_equal(guarded_copy_install(), SECPOOL_OK);
	assert_int_equal(ftruncate(media, FIRST + COUNT / 2), 0);
	assert_int_equal(overwrite_range(media, FIRST, COUNT, NULL), MSG_READBACK_UNREACHABLE);
	assert_int_equal(overwrite_range(-1, FIRST, COUNT, NULL), MSG_READBACK_UNREACHABLE);
}

static void test_stop_ends_it(void **state)
{
	_Atomic int stop = 1;

	(void)state;
	assert_int_equal(overwrite_range(media, FIRST, COUNT, &stop), MSG_READBACK_UNREACHABLE);
	assert_int_equal(count_old(0, MEDIA_BYTES), MEDIA_BYTES);
}

/* Media that give back something else, at any place and in a rest that isn't a whole step, are found out. */
static void test_a_changed_byte_differs(void **state)
{
	enum { BYTES = (3 << 20) + PRSTREAM_PIECE_BYTES + 100 };
	static const size_t places[] = {0, 1, PRSTREAM_PIECE_BYTES, PRSTREAM_BASE_BYTES - 1,
		3 * PRSTREAM_BASE_BYTES + 17, (1 << 20) - 1, 1 << 20, (3 << 20) - 1, 3 << 20,
		BYTES - 100, BYTES - 1};
	struct prstream *stream = NULL, *other = NULL;
	uint8_t *map = mmap(NULL, MEDIA_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, media, 0);
	static uint8_t made[BYTES];

	(void)state;
	assert_ptr_not_equal(map, MAP_FAILED);
	assert_int_equal(prstream_new(&stream), SECPOOL_OK);
	assert_int_equal(prstream_new(&other), SECPOOL_OK);
	assert_int_equal(overwrite_store(stream, map, BYTES, NULL), MSG_READBACK_MATCHED);
	assert_int_equal(map[BYTES], 0x5a);
	assert_int_equal(prstream_bytes(stream, 0, made, BYTES), SECPOOL_OK);
	assert_memory_equal(map, made, BYTES);
	assert_int_equal(overwrite_compare(stream, map, BYTES, NULL), MSG_READBACK_MATCHED);
	assert_int_equal(overwrite_compare(other, map, BYTES, NULL), MSG_READBACK_DIFFERED);
	for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
		map[places[i]] ^= 0x10;
		assert_int_equal(
			overwrite_compare(stream, map, BYTES, NULL), MSG_READBACK_DIFFERED);
		map[places[i]] ^= 0x10;
	}
	/* two pieces of the same slice, exchanged */
	memcpy(map, made + PRSTREAM_BASE_BYTES, PRSTREAM_PIECE_BYTES);
	memcpy(map + PRSTREAM_BASE_BYTES, made, PRSTREAM_PIECE_BYTES);
	assert_int_equal(overwrite_compare(stream, map, BYTES, NULL), MSG_READBACK_DIFFERED);
	memcpy(map, made, BYTES);
	assert_int_equal(overwrite_compare(stream, map, BYTES, NULL), MSG_READBACK_MATCHED);
	prstream_free(stream);
	prstream_free(other);
	munmap(map, MEDIA_BYTES);
}

/* Gone between the passes. */
static void test_media_that_vanish_before_read_back(void **state)
{
	struct prstream *stream = NULL;
	uint8_t *map = mmap(NULL, MEDIA_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, media, 0);

	(void)state;
	assert_ptr_not_equal(map, MAP_FAILED);
	assert_int_equal(guarded_copy_install(), SECPOOL_OK);
	assert_int_equal(prstream_new(&stream), SECPOOL_OK);
	assert_int_equal(overwrite_store(stream, map, COUNT, NULL), MSG_READBACK_MATCHED);
	assert_int_equal(ftruncate(media, COUNT - 4096), 0);
	assert_int_equal(overwrite_compare(stream, map, COUNT, NULL), MSG_READBACK_UNREACHABLE);
	assert_int_equal(overwrite_compare(stream, map, COUNT - 4096, NULL), MSG_READBACK_MATCHED);
	prstream_free(stream);
	munmap(map, MEDIA_BYTES);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_exactly_the_range_is_overwritten),
		TEST(test_truncated_media_are_unreachable),
		TEST(test_stop_ends_it),
		TEST(test_a_changed_byte_differs),
		TEST(test_media_that_vanish_before_read_back),
	};

	if (secmem_init(SECMEM_ALLOW_LOCKED) != SECPOOL_OK)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
