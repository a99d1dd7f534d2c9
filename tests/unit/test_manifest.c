/* SPDX-License-Identifier: Apache-2.0 */
/* The manifest of a sealed region: what is written comes back, and nothing else is taken. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "lib/manifest.h"
#include "lib/page.h"

enum { PAGES = 5, PAGE_BYTES = 4096, LANES = 3 };

static const struct manifest_head head = {.tenant = "alpha",
	.name = "list",
	.region = 7,
	.epoch = 3,
	.address = 0x110000000000,
	.bytes = PAGES * PAGE_BYTES,
	.page_bytes = PAGE_BYTES,
	.lanes = LANES};

static uint8_t *manifest;
static size_t bytes;

static int set_up(void **state)
{
	(void)state;
	bytes = (size_t)msg_manifest_bytes(head.bytes, head.page_bytes);
	manifest = calloc(1, bytes);
	assert_non_null(manifest);
	manifest_put_head(manifest, &head);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	free(manifest);
	return 0;
}

static void test_round_trip(void **state)
{
	(void)state;
	for (uint64_t i = 0; i < PAGES; i++) {
		struct manifest_page page = {
			.version = i == 0 ? PAGE_KEY_BIT - 1 : i, .copies = 1u << i % LANES};

		memset(page.tag, (int)i + 1, sizeof page.tag);
		memset(page.digest, (int)i + 100, sizeof page.digest);
		manifest_put_page(manifest, i, &page);
	}
	assert_int_equal(manifest_check(manifest, bytes, &head), SECPOOL_OK);
	for (uint64_t i = 0; i < PAGES; i++) {
		struct manifest_page page;

		assert_true(manifest_get_page(manifest, i, LANES, &page));
		assert_int_equal(page.version, i == 0 ? PAGE_KEY_BIT - 1 : i);
		assert_int_equal(page.copies, 1u << i % LANES);
		assert_int_equal(page.tag[PAGECIPHER_TAG_BYTES - 1], i + 1);
		assert_int_equal(page.digest[MANIFEST_DIGEST_BYTES - 1], i + 100);
	}
}

/* Every byte of the head counts, and the length. */
static void test_only_this_region(void **state)
{
	(void)state;
	for (size_t i = 0; i < MSG_MANIFEST_HEAD_BYTES; i++) {
		manifest[i] ^= 0x40;
		assert_int_equal(manifest_check(manifest, bytes, &head), SECPOOL_E_INTEGRITY);
		manifest[i] ^= 0x40;
	}
	assert_int_equal(manifest_check(manifest, bytes - 1, &head), SECPOOL_E_INTEGRITY);
	assert_int_equal(manifest_check(manifest, bytes + 1, &head), SECPOOL_E_INTEGRITY);
	assert_int_equal(manifest_check(manifest, 0, &head), SECPOOL_E_INTEGRITY);
	for (unsigned i = 0; i < 8; i++) {
		struct manifest_head other = head;

		other.tenant[0] = (char)(other.tenant[0] + (i == 0));
		other.name[0] = (char)(other.name[0] + (i == 1));
		other.region += i == 2;
		other.epoch += i == 3;
		other.address += i == 4 ? 4096 : 0;
		other.bytes += i == 5 ? PAGE_BYTES : 0;
		other.lanes += i == 6;
		other.page_bytes = i == 7 ? 0 : other.page_bytes;
		assert_int_equal(manifest_check(manifest, bytes, &other), SECPOOL_E_INTEGRITY);
	}
	assert_int_equal(manifest_check(manifest, bytes, &head), SECPOOL_OK);
}

static bool taken(uint64_t version, unsigned copies, uint8_t tag, uint8_t digest)
{
	struct manifest_page page = {.version = version, .copies = copies}, got;

	page.tag[3] = tag;
	page.digest[9] = digest;
	manifest_put_page(manifest, 2, &page);
	memset(&got, 0x5a, sizeof got);
	if (manifest_get_page(manifest, 2, LANES, &got))
		return true;
	assert_int_equal(got.copies, 0x5a5a5a5a); /* nothing is returned */
	return false;
}

static void test_pages_that_can_not_be(void **state)
{
	(void)state;
	assert_true(taken(0, 0, 0, 0));
	assert_false(taken(0, 1, 0, 0));
	assert_false(taken(0, 0, 1, 0));
	assert_false(taken(0, 0, 0, 1));
	assert_true(taken(1, 7, 0, 0));
	assert_false(taken(1, 0, 1, 1));
	assert_false(taken(1, 8, 1, 1));
	assert_false(taken(PAGE_KEY_BIT, 1, 1, 1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_round_trip, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_only_this_region, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_pages_that_can_not_be, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
