/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "enclave/kwp.h"
#include "enclave/secmem.h"
#include "enclave/wrap.h"

static const uint8_t key[WRAP_KEY_BYTES] = "a wrapping key of 32 bytes......";
static const struct wrap_label label = {.purpose = WRAP_REGION_KEYS,
	.tenant = "alice",
	.region = 7,
	.epoch = 1,
	.page_bytes = 4096};

static void round_trip(size_t bytes)
{
	uint8_t secret[160], got[160] = {0}, blob[WRAP_BLOB_BYTES_MOST];
	size_t blob_bytes = 0;

	memset(secret, 0xa5, sizeof secret);
	assert_int_equal(wrap_seal(key, &label, secret, bytes, blob, &blob_bytes), SECPOOL_OK);
	assert_in_range(blob_bytes, bytes, WRAP_BLOB_BYTES_MOST);
	assert_int_equal(wrap_open(key, &label, blob, blob_bytes, got, bytes), SECPOOL_OK);
	assert_memory_equal(got, secret, bytes);
}

static void test_round_trip(void **state)
{
	(void)state;
	for (size_t bytes = 1; bytes <= 160; bytes++)
		round_trip(bytes);
}

static void test_label_ends_with_its_name(void **state)
{
	struct wrap_label dirty = label;
	uint8_t secret[32] = {1}, got[32], blob[WRAP_BLOB_BYTES_MOST];
	size_t bytes = 0;

	(void)state;
	dirty.tenant[WRAP_TENANT_BYTES - 1] = 'x';
	assert_int_equal(wrap_seal(key, &dirty, secret, sizeof secret, blob, &bytes), SECPOOL_OK);
	assert_int_equal(wrap_open(key, &label, blob, bytes, got, sizeof got), SECPOOL_OK);
}

static void refused(const uint8_t *with, const struct wrap_label *as, const uint8_t *blob,
	size_t blob_bytes, size_t secret_bytes, enum secpool_error error)
{
	uint8_t got[192], before[192];

	memset(got, 0x3c, sizeof got);
	memcpy(before, got, sizeof got);
	assert_int_equal(wrap_open(with, as, blob, blob_bytes, got, secret_bytes), error);
	assert_memory_equal(got, before, sizeof got);
}

static void test_open_refuses(void **state)
{
	uint8_t secret[32] = {9}, blob[WRAP_BLOB_BYTES_MOST + 8] = {0};
	uint8_t other_key[WRAP_KEY_BYTES];
	struct wrap_label other;
	size_t bytes = 0;

	(void)state;
	assert_int_equal(wrap_seal(key, &label, secret, sizeof secret, blob, &bytes), SECPOOL_OK);
	memcpy(other_key, key, sizeof other_key);
	other_key[31] ^= 1;
	refused(other_key, &label, blob, bytes, 32, SECPOOL_E_KEY_GONE);
	refused(key, &label, blob, bytes, 31, SECPOOL_E_KEY_GONE);
	refused(key, &label, blob, bytes, 33, SECPOOL_E_KEY_GONE);
	refused(key, &label, blob, bytes, 161, SECPOOL_E_INVALID);
	refused(key, &label, blob, bytes, 0, SECPOOL_E_INVALID);
	for (size_t shorter = 0; shorter < bytes; shorter++)
		refused(key, &label, blob, shorter, 32, SECPOOL_E_KEY_GONE);
	refused(key, &label, blob, bytes + 8, 32, SECPOOL_E_KEY_GONE);
	refused(key, &label, blob, sizeof blob, 32, SECPOOL_E_KEY_GONE);
	for (size_t i = 0; i < bytes; i++) {
		blob[i] ^= 0x80;
		refused(key, &label, blob, bytes, 32, SECPOOL_E_KEY_GONE);
		blob[i] ^= 0x80;
	}
	other = label, other.purpose = WRAP_NODE_KEY;
	refused(key, &other, blob, bytes, 32, SECPOOL_E_KEY_GONE);
	other = label, strcpy(other.tenant, "alic");
	refused(key, &other, blob, bytes, 32, SECPOOL_E_KEY_GONE);
	other = label, other.region++;
	refused(key, &other, blob, bytes, 32, SECPOOL_E_KEY_GONE);
	other = label, other.epoch++;
	refused(key, &other, blob, bytes, 32, SECPOOL_E_KEY_GONE);
	other = label, other.page_bytes *= 2;
	refused(key, &other, blob, bytes, 32, SECPOOL_E_KEY_GONE);
	other = label, memset(other.tenant, 'x', sizeof other.tenant);
	refused(key, &other, blob, bytes, 32, SECPOOL_E_INVALID);
}

static void test_seal_refuses(void **state)
{
	uint8_t secret[192] = {0}, blob[WRAP_BLOB_BYTES_MOST];
	struct wrap_label endless = label;
	size_t bytes = 77;

	(void)state;
	memset(endless.tenant, 'x', sizeof endless.tenant);
	assert_int_equal(wrap_seal(key, &label, secret, 0, blob, &bytes), SECPOOL_E_INVALID);
	assert_int_equal(wrap_seal(key, &label, secret, 161, blob, &bytes), SECPOOL_E_INVALID);
	assert_int_equal(wrap_seal(key, &endless, secret, 32, blob, &bytes), SECPOOL_E_INVALID);
	assert_int_equal(bytes, 77);
}

static void test_kwp_lengths(void **state)
{
	uint8_t plain[KWP_PLAIN_BYTES_MOST + 8] = {0}, wrapped[KWP_PLAIN_BYTES_MOST + 16];
	size_t bytes = 5;

	(void)state;
	assert_int_equal(kwp_seal(key, plain, 0, wrapped, &bytes), SECPOOL_E_INVALID);
	assert_int_equal(
		kwp_seal(key, plain, KWP_PLAIN_BYTES_MOST + 1, wrapped, &bytes), SECPOOL_E_INVALID);
	assert_int_equal(bytes, 5);
	assert_int_equal(kwp_seal(key, plain, KWP_PLAIN_BYTES_MOST, wrapped, &bytes), SECPOOL_OK);
	assert_int_equal(bytes, KWP_PLAIN_BYTES_MOST + 8);
	assert_int_equal(kwp_open(key, wrapped, bytes, plain, &bytes), SECPOOL_OK);
	assert_int_equal(bytes, KWP_PLAIN_BYTES_MOST);
	assert_int_equal(kwp_open(key, wrapped, 8, plain, &bytes), SECPOOL_E_KEY_GONE);
	assert_int_equal(kwp_open(key, wrapped, 17, plain, &bytes), SECPOOL_E_KEY_GONE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_label_ends_with_its_name),
		cmocka_unit_test(test_open_refuses),
		cmocka_unit_test(test_seal_refuses),
		cmocka_unit_test(test_kwp_lengths),
	};

	if (secmem_init(SECMEM_ALLOW_LOCKED)) {
		fprintf(stderr, "secmem_init: %s\n", err_detail());
		return 1;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
