/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "enclave/keypage.h"
#include "lib/wire/msg.h"

static const struct pagecipher_binding binding = {.region = 7, .epoch = 3, .page_bytes = 4096};

static void fill(struct region_keys *keys)
{
	for (size_t i = 0; i < sizeof keys->xts; i++)
		keys->xts[i] = (uint8_t)(i + 1);
	memset(keys->tag, 0xcc, sizeof keys->tag);
}

static void test_round_trip(void **state)
{
	uint8_t page[KEYPAGE_BYTES];
	struct region_keys keys, got;

	(void)state;
	memset(page, 0xff, sizeof page);
	fill(&keys);
	keypage_put(page, &binding, MSG_PROTECTION_XTS_GMAC, KEYPAGE_ANY, &keys);
	assert_int_equal(keypage_get(page, &binding, &got), SECPOOL_OK);
	assert_memory_equal(&got, &keys, sizeof keys);
	/* nothing of what was in the page before is left */
	for (size_t i = 200; i < sizeof page; i++)
		assert_int_equal(page[i], 0);
}

static void refused(const void *page, struct pagecipher_binding expect)
{
	struct region_keys got, before;

	memset(&got, 0x11, sizeof got);
	before = got;
	assert_int_equal(keypage_get(page, &expect, &got), SECPOOL_E_KEY_GONE);
	assert_memory_equal(&got, &before, sizeof got);
}

static void test_refused(void **state)
{
	uint8_t page[KEYPAGE_BYTES], other[KEYPAGE_BYTES] = {0};
	struct region_keys keys;

	(void)state;
	fill(&keys);
	keypage_put(page, &binding, MSG_PROTECTION_XTS_GMAC, KEYPAGE_ANY, &keys);
	refused(page, (struct pagecipher_binding){8, 3, 4096});
	refused(page, (struct pagecipher_binding){7, 4, 4096});
	refused(page, (struct pagecipher_binding){7, 3, 8192});
	refused(other, binding);
	for (size_t i = 0; i < 8; i++) {
		page[i] ^= 1;
		refused(page, binding);
		page[i] ^= 1;
	}
	keypage_put(page, &binding, MSG_PROTECTION_XTS_GMAC + 1, KEYPAGE_ANY, &keys);
	refused(page, binding);
}

static void test_engine(void **state)
{
	uint8_t page[KEYPAGE_BYTES];
	struct region_keys keys, got;

	(void)state;
	fill(&keys);
	keypage_put(page, &binding, MSG_PROTECTION_XTS_GMAC, KEYPAGE_ANY, &keys);
	assert_int_equal(keypage_engine(page), KEYPAGE_ANY);
	keypage_put(page, &binding, MSG_PROTECTION_XTS_GMAC, KEYPAGE_OPENSSL, &keys);
	assert_int_equal(keypage_engine(page), KEYPAGE_OPENSSL);
	assert_int_equal(keypage_get(page, &binding, &got), SECPOOL_OK);
	assert_memory_equal(&got, &keys, sizeof keys);
	/* where docs/page-format.md says, and an unknown value is the stricter one */
	assert_int_equal(page[132], KEYPAGE_OPENSSL);
	page[135] = 9;
	assert_int_equal(keypage_engine(page), KEYPAGE_OPENSSL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_engine),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
