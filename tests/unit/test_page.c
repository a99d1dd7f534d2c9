/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

#include "lib/page.h"

/* What DESIGN.md section 5 asks of a page, written down a second time: every pair not named here must be refused. */
static const struct {
	enum page_state from;
	enum page_event event;
	enum page_state to;
} allowed[] = {
	{PAGE_FRESH, PAGE_FILL_BEGIN, PAGE_FILLING},
	{PAGE_ABSENT, PAGE_FILL_BEGIN, PAGE_FILLING},
	{PAGE_FILLING, PAGE_FILL_CLEAN, PAGE_CLEAN},
	{PAGE_FILLING, PAGE_FILL_DIRTY, PAGE_DIRTY},
	{PAGE_FILLING, PAGE_FILL_UNDO, PAGE_ABSENT},
	{PAGE_FILLING, PAGE_FILL_UNDO_FRESH, PAGE_FRESH},
	{PAGE_FILLING, PAGE_FILL_LOST, PAGE_LOST},
	{PAGE_CLEAN, PAGE_WRITE, PAGE_DIRTY},
	{PAGE_CLEAN, PAGE_WRITE_BEGIN, PAGE_EVICTING},
	{PAGE_DIRTY, PAGE_WRITE_BEGIN, PAGE_EVICTING},
	{PAGE_LOST, PAGE_REWRITE_BEGIN, PAGE_FILLING},
	{PAGE_EVICTING, PAGE_WRITE_END, PAGE_DIRTY},
	{PAGE_CLEAN, PAGE_EVICT_BEGIN, PAGE_EVICTING},
	{PAGE_DIRTY, PAGE_EVICT_BEGIN, PAGE_EVICTING},
	{PAGE_EVICTING, PAGE_EVICT_DONE, PAGE_ABSENT},
	{PAGE_EVICTING, PAGE_EVICT_FRESH, PAGE_FRESH},
	{PAGE_EVICTING, PAGE_EVICT_CLEAN, PAGE_CLEAN},
	{PAGE_EVICTING, PAGE_EVICT_UNDO, PAGE_DIRTY},
	{PAGE_EVICTING, PAGE_EVICT_WRITTEN, PAGE_EVICTING},
	{PAGE_ABSENT, PAGE_COPY_GONE, PAGE_ABSENT},
	{PAGE_FILLING, PAGE_COPY_GONE, PAGE_FILLING},
	{PAGE_CLEAN, PAGE_COPY_GONE, PAGE_CLEAN},
	{PAGE_EVICTING, PAGE_COPY_GONE, PAGE_EVICTING},
	{PAGE_ABSENT, PAGE_COPIES_GONE, PAGE_LOST},
	{PAGE_FILLING, PAGE_COPIES_GONE, PAGE_FILLING},
	{PAGE_CLEAN, PAGE_COPIES_GONE, PAGE_DIRTY},
	{PAGE_EVICTING, PAGE_COPIES_GONE, PAGE_EVICTING},
	{PAGE_EVICTING, PAGE_VANISHED, PAGE_LOST},
	{PAGE_FILLING, PAGE_FILL_WRITTEN, PAGE_FILLING},
};

static void test_every_pair(void **state)
{
	(void)state;
	for (unsigned from = 0; from < PAGE_STATES; from++) {
		for (unsigned event = 0; event < PAGE_EVENTS; event++) {
			unsigned want = PAGE_REFUSED;
			for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++)
				if (allowed[i].from == from && allowed[i].event == event)
					want = allowed[i].to;
			if (page_next(from, event) != want)
				fail_msg("%s on %s", page_event_name(event), page_state_name(from));
		}
	}
	assert_int_equal(page_next(PAGE_STATES, 0), PAGE_REFUSED);
	assert_int_equal(page_next(0, PAGE_EVENTS), PAGE_REFUSED);
}

static void test_word_holds_its_parts(void **state)
{
	uint64_t word = page_word(PAGE_LOST, 0xb, PAGE_VERSION_MOST);

	(void)state;
	assert_int_equal(page_state(word), PAGE_LOST);
	assert_int_equal(page_copies(word), 0xb);
	assert_true(page_version(word) == PAGE_VERSION_MOST);
	assert_int_equal(sizeof(struct page), 24);
}

static void test_step_is_refused_without_change(void **state)
{
	struct page page = {.word = page_word(PAGE_DIRTY, 0, 7)};
	uint64_t seen = page.word;

	(void)state;
	assert_false(page_step(&page, &seen, PAGE_FILL_CLEAN, 1, 8));
	assert_true(page.word == page_word(PAGE_DIRTY, 0, 7));
	seen = page_word(PAGE_CLEAN, 1, 7); /* an old view */
	assert_false(page_step(&page, &seen, PAGE_EVICT_BEGIN, 1, 7));
	assert_true(seen == page.word);
	assert_true(page_step(&page, &seen, PAGE_EVICT_BEGIN, 0, 7));
	assert_int_equal(page_state(page.word), PAGE_EVICTING);
}

static void test_waiters_survive_busy_steps_only(void **state)
{
	struct page page = {.word = page_word(PAGE_EVICTING, 0, 7)};
	uint64_t seen = page.word;

	(void)state;
	assert_true(page_wait(&page, seen));
	seen = page.word;
	assert_true(seen & PAGE_WAITERS);
	assert_true(page_step(&page, &seen, PAGE_EVICT_WRITTEN, 3, 8));
	assert_true(page.word & PAGE_WAITERS);
	seen = page.word;
	assert_true(page_step(&page, &seen, PAGE_EVICT_DONE, 3, 8));
	assert_true(seen & PAGE_WAITERS); /* the caller is told to wake */
	assert_true(page.word == page_word(PAGE_ABSENT, 3, 8));
	assert_false(page_wait(&page, page.word));
}

static void test_drop_copies(void **state)
{
	struct page absent = {.word = page_word(PAGE_ABSENT, 3, 9)};
	struct page clean = {.word = page_word(PAGE_CLEAN, 1, 9)};
	struct page fresh = {.word = page_word(PAGE_FRESH, 0, 0)};

	(void)state;
	assert_false(page_drop_copies(&absent, 1));
	assert_true(absent.word == page_word(PAGE_ABSENT, 2, 9));
	assert_false(page_drop_copies(&absent, 1));
	assert_true(page_drop_copies(&absent, 2));
	assert_true(absent.word == page_word(PAGE_LOST, 0, 9));
	assert_false(
		page_drop_copies(&clean, 1)); /* the frame is the only one left: dirty, not lost */
	assert_true(clean.word == page_word(PAGE_DIRTY, 0, 9));
	assert_false(page_drop_copies(&fresh, 15));
	assert_true(fresh.word == 0);
}

static void test_pinned_pages_are_not_taken(void **state)
{
	struct page page = {.word = page_word(PAGE_DIRTY, 0, 7)};
	struct page absent = {.word = page_word(PAGE_ABSENT, 1, 7)};
	struct page clean = {.word = page_word(PAGE_CLEAN, 1, 7)};
	uint64_t seen;

	(void)state;
	assert_false(page_pin(&absent));
	assert_true(absent.word == page_word(PAGE_ABSENT, 1, 7));
	/* what is stored to it under the pin would go with it */
	assert_false(page_pin(&clean));
	assert_true(clean.word == page_word(PAGE_CLEAN, 1, 7));
	assert_true(page_pin(&page));
	seen = page.word;
	assert_true(seen & PAGE_PINNED);
	assert_true(page_version(seen) == 7);
	assert_false(page_step(&page, &seen, PAGE_EVICT_BEGIN, 0, 7));
	/* its protection may change, and it stays pinned meanwhile */
	assert_true(page_step(&page, &seen, PAGE_WRITE_BEGIN, 0, 7));
	assert_false(page_pin(&page));
	seen = page.word;
	assert_true(page_step(&page, &seen, PAGE_WRITE_END, 0, 7));
	assert_true(page.word & PAGE_PINNED);
	assert_false(page_unqueue(&absent));
	assert_true(page_unqueue(&page));
	assert_true(page_unpin(&page)); /* the caller is told to queue it */
	assert_true(page.word == page_word(PAGE_DIRTY, 0, 7));
	assert_false(page_unpin(&page));
	assert_true(page_pin(&page));
	assert_false(page_unpin(&page));
	assert_true(page.word == page_word(PAGE_DIRTY, 0, 7));
}

static void test_era_is_kept_by_steps(void **state)
{
	struct page page = {.word = page_word(PAGE_EVICTING, 1, 3)};
	uint64_t seen;

	(void)state;
	page_note_era(&page, (1u << PAGE_ERA_BITS) - 1);
	seen = page.word;
	assert_int_equal(page_state(seen), PAGE_EVICTING);
	assert_true(page_version(seen) == 3);
	assert_int_equal(page_copies(seen), 1);
	assert_true(page_step(&page, &seen, PAGE_EVICT_DONE, 1, 4));
	assert_int_equal(page_era(page.word), (1u << PAGE_ERA_BITS) - 1);
	assert_true(page_version(page.word) == 4);
	assert_false(page.word & PAGE_PINNED);
	page_note_era(&page, 0);
	assert_true(page.word == page_word(PAGE_ABSENT, 1, 4));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_pair),
		cmocka_unit_test(test_word_holds_its_parts),
		cmocka_unit_test(test_step_is_refused_without_change),
		cmocka_unit_test(test_waiters_survive_busy_steps_only),
		cmocka_unit_test(test_drop_copies),
		cmocka_unit_test(test_pinned_pages_are_not_taken),
		cmocka_unit_test(test_era_is_kept_by_steps),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
