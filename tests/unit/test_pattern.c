/* SPDX-License-Identifier: Apache-2.0 */
/* What the torture tells apart in a block: a checker that sees nothing would find nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "tests/torture/pattern.h"

static const struct pattern_block block = {
	.region = 0x1000000000007, .block = 12, .generation = 5, .line_generation = 6, .line = 9};

static uint8_t bytes[PATTERN_BLOCK_BYTES];

static uint8_t *line(unsigned number)
{
	return bytes + number * PATTERN_LINE_BYTES;
}

static struct pattern_findings check(bool right)
{
	struct pattern_findings findings = {.wrong_bytes = 0};

	assert_int_equal(pattern_check(&block, bytes, &findings), right);
	return findings;
}

/* A line of another block, where line 3 is. */
static struct pattern_findings check_line_of(struct pattern_block other, unsigned number)
{
	pattern_make(&block, bytes);
	pattern_make_line(&other, number, line(3));
	return check(false);
}

static void test_right(void **state)
{
	(void)state;
	pattern_make(&block, bytes);
	check(true);
}

static void test_never_written(void **state)
{
	struct pattern_block fresh = {.region = 3, .block = 1, .line = PATTERN_NO_LINE};
	struct pattern_findings findings = {.wrong_bytes = 0};

	(void)state;
	memset(bytes, 0, sizeof bytes);
	assert_true(pattern_check(&fresh, bytes, &findings));
	bytes[100] = 1;
	assert_false(pattern_check(&fresh, bytes, &findings));
	assert_int_equal(findings.wrong_bytes, 1);
	assert_int_equal(findings.first_line, 1);
}

static void test_flipped_bit(void **state)
{
	struct pattern_findings findings;

	(void)state;
	for (unsigned at = 0; at < PATTERN_BLOCK_BYTES; at += 7) {
		pattern_make(&block, bytes);
		bytes[at] ^= 1;
		findings = check(false);
		assert_int_equal(findings.wrong_bytes, 1);
		assert_false(findings.zeros || findings.stale || findings.foreign_bytes);
	}
}

static void test_zeros(void **state)
{
	(void)state;
	pattern_make(&block, bytes);
	memset(line(63), 0, PATTERN_LINE_BYTES);
	assert_true(check(false).zeros);
}

static void test_stale(void **state)
{
	struct pattern_block old = block;
	struct pattern_findings findings;

	(void)state;
	old.generation--;
	findings = check_line_of(old, 3);
	assert_true(findings.stale && findings.wrong_bytes == 0 && findings.foreign_bytes == 0);
	/* the line that was written later is old as well when it is as the rest */
	pattern_make(&block, bytes);
	old = block;
	old.line = PATTERN_NO_LINE;
	pattern_make_line(&old, block.line, line(block.line));
	assert_true(check(false).stale);
}

static void test_future(void **state)
{
	struct pattern_block next = block;

	(void)state;
	next.generation++;
	assert_int_equal(check_line_of(next, 3).wrong_bytes, PATTERN_LINE_BYTES);
}

static void test_foreign(void **state)
{
	struct pattern_block other = block;
	struct pattern_findings findings;

	(void)state;
	other.region++;
	findings = check_line_of(other, 3);
	assert_int_equal(findings.foreign_bytes, PATTERN_LINE_BYTES);
	assert_int_equal(findings.from_region, other.region);
	other = block;
	other.block++;
	findings = check_line_of(other, 3);
	assert_int_equal(findings.foreign_bytes, PATTERN_LINE_BYTES);
	assert_int_equal(findings.from_block, other.block);
	/* the same block's, from another place in it */
	assert_int_equal(check_line_of(block, 4).foreign_bytes, PATTERN_LINE_BYTES);
}

static void test_torn(void **state)
{
	struct pattern_block old = block;
	uint8_t half[PATTERN_LINE_BYTES];

	(void)state;
	old.generation--;
	pattern_make(&block, bytes);
	pattern_make_line(&old, 3, half);
	memcpy(line(3), half, PATTERN_LINE_BYTES / 2);
	assert_true(check(false).wrong_bytes > 0);
}

static void test_hash(void **state)
{
	(void)state;
	assert_true(pattern_hash(1, 2) == pattern_hash(1, 2));
	assert_true(pattern_hash(1, 2) != pattern_hash(1, 3));
	assert_true(pattern_hash(1, 2) != pattern_hash(2, 1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_right),
		cmocka_unit_test(test_never_written),
		cmocka_unit_test(test_flipped_bit),
		cmocka_unit_test(test_zeros),
		cmocka_unit_test(test_stale),
		cmocka_unit_test(test_future),
		cmocka_unit_test(test_foreign),
		cmocka_unit_test(test_torn),
		cmocka_unit_test(test_hash),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
