/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "lib/readahead.h"

enum { PAGES = 100000 };

/* Follows a stream of `pages` pages; returns how many faults that took. */
static unsigned follow(struct readahead *r, uint64_t from, int64_t stride, unsigned pages)
{
	unsigned faults = 0, covered = 0;
	int64_t got;

	while (covered < pages) {
		unsigned count = readahead_note(r, from + (uint64_t)stride * covered, PAGES, &got);
		assert_in_range(count, 1, READAHEAD_WINDOW_MOST);
		if (faults > 0)
			assert_true(got == stride);
		covered += count;
		faults++;
	}
	return faults;
}

static void test_streams_in_all_directions(void **state)
{
	static const int64_t strides[] = {1, -1, 7, -7, 64};
	struct readahead r;

	(void)state;
	readahead_init(&r, READAHEAD_WINDOW_MOST);
	for (size_t i = 0; i < sizeof strides / sizeof *strides; i++)
		/* 1, 1, 2, 4 and so on, then the most at a time */
		assert_in_range(follow(&r, 50000 + 10000 * i / 2, strides[i], 320), 8, 17);
}

static void test_several_at_once(void **state)
{
	struct readahead r;
	uint64_t next[READAHEAD_STREAMS];
	unsigned faults = 0;
	int64_t stride;

	(void)state;
	readahead_init(&r, READAHEAD_WINDOW_MOST);
	for (unsigned s = 0; s < READAHEAD_STREAMS; s++)
		next[s] = s * 10000;
	for (unsigned round = 0; round < 20; round++)
		for (unsigned s = 0; s < READAHEAD_STREAMS; s++, faults++)
			next[s] += readahead_note(&r, next[s], PAGES, &stride);
	for (unsigned s = 0; s < READAHEAD_STREAMS; s++)
		assert_true(next[s] - s * 10000 > 8 * READAHEAD_WINDOW_MOST);
}

static void test_random_faults_are_alone(void **state)
{
	struct readahead r;
	uint64_t random = 88172645463325252ull;
	unsigned extra = 0;
	int64_t stride;

	(void)state;
	readahead_init(&r, READAHEAD_WINDOW_MOST);
	for (int i = 0; i < 10000; i++) {
		random ^= random << 13;
		random ^= random >> 7;
		random ^= random << 17;
		extra += readahead_note(&r, random % PAGES, PAGES, &stride) - 1;
	}
	assert_in_range(extra, 0, 100);
}

static void test_stays_in_the_region(void **state)
{
	struct readahead r;
	int64_t stride;
	uint64_t at = 0;

	(void)state;
	readahead_init(&r, READAHEAD_WINDOW_MOST);
	while (at < 100) { /* forward to the end */
		unsigned count = readahead_note(&r, at, 100, &stride);
		at += count;
		assert_true(at <= 100);
	}
	readahead_note(&r, 40, 100, &stride);
	readahead_note(&r, 39, 100, &stride);
	for (at = 38; at > 0;) { /* back to the start */
		unsigned count = readahead_note(&r, at, 100, &stride);
		assert_true(count <= at + 1);
		at = count > at ? 0 : at - count;
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_streams_in_all_directions),
		cmocka_unit_test(test_several_at_once),
		cmocka_unit_test(test_random_faults_are_alone),
		cmocka_unit_test(test_stays_in_the_region),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
