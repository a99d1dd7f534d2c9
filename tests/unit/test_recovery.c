/* SPDX-License-Identifier: Apache-2.0 */
/* recovery.h: the key as text, and what is encrypted to it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "enclave/recovery.h"
#include "enclave/secmem.h"

enum { PLAIN_BYTES = 88 };

static uint8_t *key, *again, *plain, *opened;
static char *text;
static uint8_t public[RECOVERY_PUBLIC_BYTES];

static int set_up(void **state)
{
	(void)state;
	key = secmem_new(RECOVERY_KEY_BYTES);
	again = secmem_new(RECOVERY_KEY_BYTES);
	plain = secmem_new(RECOVERY_PLAIN_BYTES_MOST);
	opened = secmem_new(RECOVERY_PLAIN_BYTES_MOST);
	text = secmem_new(RECOVERY_TEXT_BYTES);
	assert_int_equal(recovery_make(key, public), SECPOOL_OK);
	for (unsigned i = 0; i < PLAIN_BYTES; i++)
		plain[i] = (uint8_t)(i * 7 + 1);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	secmem_free(key);
	secmem_free(again);
	secmem_free(plain);
	secmem_free(opened);
	secmem_free(text);
	return 0;
}

static void text_comes_back(void **state)
{
	char typed[RECOVERY_TYPED_BYTES_MOST] = "";
	size_t at = 0;

	(void)state;
	for (unsigned round = 0; round < 32; round++) {
		assert_int_equal(recovery_make(key, public), SECPOOL_OK);
		assert_int_equal(recovery_print(key, text), SECPOOL_OK);
		assert_int_equal(strlen(text), 4 + 14 * 5);
		assert_int_equal(recovery_read(text, strlen(text), again), SECPOOL_OK);
		assert_memory_equal(key, again, RECOVERY_KEY_BYTES);
	}
	for (const char *c = text; *c; c++) {
		typed[at++] = (char)tolower(*c);
		typed[at++] = ' ';
	}
	typed[at++] = '\n';
	assert_int_equal(recovery_read(typed, at, again), SECPOOL_OK);
	assert_memory_equal(key, again, RECOVERY_KEY_BYTES);
}

/* Each letter counts, and there are as many as there are. */
static void mistyped_is_refused(void **state)
{
	static const uint8_t wiped[RECOVERY_KEY_BYTES];
	static const char *const bad[] = {"", "\n", "SPR1", "SPR2-AAAA", "AAAA", "SPR1-0189"};

	(void)state;
	for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_int_equal(recovery_read(bad[i], strlen(bad[i]), again), SECPOOL_E_INVALID);
	assert_int_equal(recovery_print(key, text), SECPOOL_OK);
	for (size_t at = 0; text[at]; at++) {
		char was = text[at];
		if (was == '-')
			continue;
		text[at] = was == 'A' ? 'B' : 'A';
		memset(again, 0x77, RECOVERY_KEY_BYTES);
		assert_int_equal(recovery_read(text, strlen(text), again), SECPOOL_E_INVALID);
		assert_memory_equal(again, wiped, RECOVERY_KEY_BYTES);
		text[at] = was;
	}
	for (size_t count = 0; text[count]; count++)
		assert_int_equal(recovery_read(text, count, again), SECPOOL_E_INVALID);
	text[strlen(text) + 1] = '\0';
	text[strlen(text)] = 'A';
	assert_int_equal(recovery_read(text, strlen(text), again), SECPOOL_E_INVALID);
}

static void opens_for_its_key_alone(void **state)
{
	uint8_t blob[RECOVERY_BLOB_BYTES_MOST], other[RECOVERY_BLOB_BYTES_MOST];
	uint8_t another[RECOVERY_PUBLIC_BYTES];
	size_t bytes = 0, other_bytes = 0;

	(void)state;
	assert_int_equal(recovery_seal(public, plain, PLAIN_BYTES, blob, &bytes), SECPOOL_OK);
	assert_int_equal(
		recovery_seal(public, plain, PLAIN_BYTES, other, &other_bytes), SECPOOL_OK);
	assert_int_equal(bytes, other_bytes);
	/* each has a key of its own */
	assert_memory_not_equal(blob + RECOVERY_PUBLIC_BYTES, other + RECOVERY_PUBLIC_BYTES, 16);
	assert_int_equal(recovery_open(key, blob, bytes, opened, PLAIN_BYTES), SECPOOL_OK);
	assert_memory_equal(opened, plain, PLAIN_BYTES);
	memset(opened, 0x77, PLAIN_BYTES);
	assert_int_equal(
		recovery_open(key, blob, bytes, opened, PLAIN_BYTES - 8), SECPOOL_E_KEY_GONE);
	assert_int_equal(recovery_make(again, another), SECPOOL_OK);
	assert_int_equal(
		recovery_open(again, blob, bytes, opened, PLAIN_BYTES), SECPOOL_E_KEY_GONE);
	for (size_t at = 0; at < bytes; at += at < 30 ? 1 : 3) {
		blob[at] ^= 0x10;
		assert_int_equal(
			recovery_open(key, blob, bytes, opened, PLAIN_BYTES), SECPOOL_E_KEY_GONE);
		blob[at] ^= 0x10;
	}
	for (size_t count = 0; count < bytes; count++)
		assert_int_equal(
			recovery_open(key, blob, count, opened, PLAIN_BYTES), SECPOOL_E_KEY_GONE);
	for (unsigned i = 0; i < PLAIN_BYTES; i++)
		assert_int_equal(opened[i], 0x77);
}

static void refuses_what_is_no_key(void **state)
{
	uint8_t blob[RECOVERY_BLOB_BYTES_MOST], bad[RECOVERY_PUBLIC_BYTES];
	size_t bytes = 4711;

	(void)state;
	memcpy(bad, public, sizeof bad);
	bad[RECOVERY_PUBLIC_BYTES - 1] ^= 1; /* not on the curve */
	assert_int_equal(recovery_seal(bad, plain, PLAIN_BYTES, blob, &bytes), SECPOOL_E_INTEGRITY);
	assert_int_equal(recovery_seal(public, plain, 0, blob, &bytes), SECPOOL_E_INVALID);
	assert_int_equal(recovery_seal(public, plain, RECOVERY_PLAIN_BYTES_MOST + 1, blob, &bytes),
		SECPOOL_E_INVALID);
	assert_int_equal(bytes, 4711);
	assert_int_equal(
		recovery_seal(public, plain, RECOVERY_PLAIN_BYTES_MOST, blob, &bytes), SECPOOL_OK);
	assert_int_equal(bytes, RECOVERY_PUBLIC_BYTES + RECOVERY_PLAIN_BYTES_MOST + 8);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(text_comes_back),
		TEST(mistyped_is_refused),
		TEST(opens_for_its_key_alone),
		TEST(refuses_what_is_no_key),
	};

	if (secmem_init(SECMEM_ALLOW_LOCKED))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
