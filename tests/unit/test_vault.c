/* SPDX-License-Identifier: Apache-2.0 */
/* The vault: tenants' keys that come back, region keys that open only as what they were made for, and nothing changed on errors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "enclave/keypage.h"
#include "enclave/secmem.h"
#include "enclave/vault.h"
#include "lib/base/os.h"

static struct vault vault;
static uint8_t root_copy[WRAP_KEY_BYTES];

static void open_vault(void)
{
	uint8_t *root = secmem_new(WRAP_KEY_BYTES);

	assert_non_null(root);
	for (size_t i = 0; i < WRAP_KEY_BYTES; i++)
		root[i] = root_copy[i];
	vault_init(&vault, &root);
	assert_null(root);
}

static int set_up(void **state)
{
	(void)state;
	os_random(root_copy, sizeof root_copy);
	open_vault();
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	vault_done(&vault);
	assert_null(vault.root);
	return 0;
}

static void tenants_come_back(void **state)
{
	uint8_t blob[VAULT_TENANT_BLOB_BYTES], key[WRAP_KEY_BYTES];
	size_t a = 99, b = 99, bytes;

	(void)state;
	assert_int_equal(vault_open_tenant(&vault, "a", NULL, 0, &a), SECPOOL_OK);
	assert_int_equal(vault_open_tenant(&vault, "b", NULL, 0, &b), SECPOOL_OK);
	assert_int_not_equal(a, b);
	assert_memory_not_equal(vault.tenants[a].key, vault.tenants[b].key, WRAP_KEY_BYTES);
	bytes = vault.tenants[a].wrapped_bytes;
	memcpy(blob, vault.tenants[a].wrapped, bytes);
	memcpy(key, vault.tenants[a].key, sizeof key);
	/* open already: with and without what is stored */
	assert_int_equal(vault_open_tenant(&vault, "a", NULL, 0, &b), SECPOOL_OK);
	assert_int_equal(b, a);
	assert_int_equal(vault_open_tenant(&vault, "a", blob, bytes, &b), SECPOOL_OK);
	assert_int_equal(vault.tenant_count, 2);
	/* another run under the same root */
	vault_done(&vault);
	open_vault();
	assert_int_equal(vault_open_tenant(&vault, "a", blob, bytes, &a), SECPOOL_OK);
	assert_memory_equal(vault.tenants[a].key, key, sizeof key);
	/* the key in use is not replaced by an older one, or by a new one's */
	struct wrap_label label = {.purpose = WRAP_TENANT_KEY, .tenant = "a"};
	key[0] ^= 1;
	assert_int_equal(wrap_seal(vault.root, &label, key, sizeof key, blob, &bytes), SECPOOL_OK);
	assert_int_equal(vault_open_tenant(&vault, "a", blob, bytes, &b), SECPOOL_E_KEY_GONE);
}

static void wrong_tenant_keys_are_refused(void **state)
{
	uint8_t blob[VAULT_TENANT_BLOB_BYTES];
	size_t tenant = 99, bytes;

	(void)state;
	assert_int_equal(vault_open_tenant(&vault, "", NULL, 0, &tenant), SECPOOL_E_INVALID);
	assert_int_equal(vault_open_tenant(&vault, "a", blob, VAULT_TENANT_BLOB_BYTES + 1, &tenant),
		SECPOOL_E_INVALID);
	assert_int_equal(vault_open_tenant(&vault, "a", NULL, 0, &tenant), SECPOOL_OK);
	bytes = vault.tenants[tenant].wrapped_bytes;
	memcpy(blob, vault.tenants[tenant].wrapped, bytes);
	tenant = 99;
	/* in another tenant's place */
	assert_int_equal(vault_open_tenant(&vault, "b", blob, bytes, &tenant), SECPOOL_E_KEY_GONE);
	assert_int_equal(vault.tenant_count, 1);
	vault_done(&vault);
	root_copy[3] ^= 1;
	open_vault();
	assert_int_equal(vault_open_tenant(&vault, "a", blob, bytes, &tenant), SECPOOL_E_KEY_GONE);
	vault_done(&vault);
	root_copy[3] ^= 1;
	open_vault();
	for (size_t i = 0; i < bytes; i++) {
		blob[i] ^= 1;
		assert_int_equal(
			vault_open_tenant(&vault, "a", blob, bytes, &tenant), SECPOOL_E_KEY_GONE);
		blob[i] ^= 1;
	}
	assert_int_equal(
		vault_open_tenant(&vault, "a", blob, bytes - 1, &tenant), SECPOOL_E_KEY_GONE);
	assert_int_equal(vault.tenant_count, 0);
	assert_int_equal(tenant, 99);
}

static void tenants_are_bounded(void **state)
{
	char name[32];
	size_t tenant = 99;

	(void)state;
	for (unsigned i = 0; i < VAULT_TENANTS_MOST; i++) {
		snprintf(name, sizeof name, "t%u", i);
		assert_int_equal(vault_open_tenant(&vault, name, NULL, 0, &tenant), SECPOOL_OK);
	}
	tenant = 99;
	assert_int_equal(vault_open_tenant(&vault, "more", NULL, 0, &tenant), SECPOOL_E_LIMIT);
	assert_int_equal(tenant, 99);
	assert_int_equal(vault_open_tenant(&vault, "t7", NULL, 0, &tenant), SECPOOL_OK);
	assert_int_equal(tenant, 7);
}

/* The client's page and the stored wrap hold the same keys, and the wrap opens only under its own label. */
static void region_keys(void **state)
{
	const struct pagecipher_binding binding = {11, 2, 65536}, other = {12, 2, 65536};
	struct wrap_label label = {.purpose = WRAP_REGION_KEYS,
		.tenant = "a",
		.region = 11,
		.epoch = 2,
		.page_bytes = 65536};
	struct region_keys *sent = secmem_new(sizeof *sent), *stored = secmem_new(sizeof *stored);
	uint8_t blob[WRAP_BLOB_BYTES_MOST];
	const void *page = NULL;
	size_t tenant = 0, bytes = 0;
	int fd = -1;

	(void)state;
	assert_int_equal(vault_open_tenant(&vault, "a", NULL, 0, &tenant), SECPOOL_OK);
	assert_int_equal(
		vault_make_region(&vault, tenant, &binding, 1, &fd, blob, &bytes), SECPOOL_OK);
	assert_int_equal(secmem_map_shared(fd, &page), SECPOOL_OK);
	close(fd);
	assert_int_equal(keypage_get(page, &other, sent), SECPOOL_E_KEY_GONE);
	assert_int_equal(keypage_get(page, &binding, sent), SECPOOL_OK);
	const uint8_t *key = vault.tenants[tenant].key;
	assert_int_equal(wrap_open(key, &label, blob, bytes, stored, sizeof *stored), SECPOOL_OK);
	assert_memory_equal(sent, stored, sizeof *sent);
	assert_memory_not_equal(sent->xts, sent->xts + 32, 32);
	for (unsigned i = 0; i < 5; i++) {
		struct wrap_label wrong = label;
		wrong.region += i == 0;
		wrong.epoch += i == 1;
		wrong.page_bytes += i == 2;
		wrong.tenant[0] = (char)(wrong.tenant[0] + (i == 3));
		wrong.purpose = i == 4 ? WRAP_TENANT_KEY : WRAP_REGION_KEYS;
		assert_int_equal(wrap_open(key, &wrong, blob, bytes, stored, sizeof *stored),
			SECPOOL_E_KEY_GONE);
	}
	secmem_unmap_shared(page);
	secmem_free(sent);
	secmem_free(stored);
}

static void wrong_regions_are_refused(void **state)
{
	static const uint64_t sizes[] = {0, 1, 2048, 4097, 12288, 4 << 20, ~0ull};
	struct pagecipher_binding binding = {5, 1, 4096};
	uint8_t blob[WRAP_BLOB_BYTES_MOST];
	size_t tenant = 0, bytes = 4711;
	int fd = -1, first = -1;

	(void)state;
	assert_int_equal(vault_open_tenant(&vault, "a", NULL, 0, &tenant), SECPOOL_OK);
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		binding.page_bytes = sizes[i];
		assert_int_equal(vault_make_region(&vault, tenant, &binding, 1, &fd, blob, &bytes),
			SECPOOL_E_INVALID);
	}
	binding = (struct pagecipher_binding){0, 1, 4096};
	assert_int_equal(vault_make_region(&vault, tenant, &binding, 1, &fd, blob, &bytes),
		SECPOOL_E_INVALID);
	binding.region = 5;
	assert_int_equal(
		vault_make_region(&vault, 1, &binding, 1, &fd, blob, &bytes), SECPOOL_E_INTERNAL);
	assert_int_equal(vault.handouts.count, 0);
	assert_int_equal(fd, -1);
	assert_int_equal(bytes, 4711);
	assert_int_equal(
		vault_make_region(&vault, tenant, &binding, 1, &first, blob, &bytes), SECPOOL_OK);
	close(first);
	assert_int_equal(vault_make_region(&vault, tenant, &binding, 1, &fd, blob, &bytes),
		SECPOOL_E_EXISTS);
	binding.epoch = 0;
	assert_int_equal(vault_make_region(&vault, tenant, &binding, 1, &fd, blob, &bytes),
		SECPOOL_E_INVALID);
	binding.epoch = 1;
	vault.handouts.count = HANDOUTS_MOST;
	binding.region = 6;
	assert_int_equal(
		vault_make_region(&vault, tenant, &binding, 1, &fd, blob, &bytes), SECPOOL_E_LIMIT);
	assert_int_equal(fd, -1);
	vault.handouts.count = 1;
	assert_int_equal(vault_destroy_region(&vault, 99, 0), 1);
	assert_int_equal(vault.handouts.count, 1);
	assert_int_equal(vault_destroy_region(&vault, 5, 0), 2);
	assert_int_equal(vault.handouts.count, 0);
}

/* A region that is rotated has two keys, later ones with greater epochs; each is ended alone. */
static void two_epochs(void **state)
{
	struct pagecipher_binding binding = {5, 1, 4096}, other = {6, 1, 4096};
	uint8_t blobs[3][WRAP_BLOB_BYTES_MOST];
	size_t tenant = 0, bytes = 0;
	int fd = -1;

	(void)state;
	assert_int_equal(vault_open_tenant(&vault, "a", NULL, 0, &tenant), SECPOOL_OK);
	assert_int_equal(
		vault_make_region(&vault, tenant, &other, 1, &fd, blobs[0], &bytes), SECPOOL_OK);
	close(fd);
	for (binding.epoch = 1; binding.epoch < 3; binding.epoch++) {
		assert_int_equal(vault_make_region(&vault, tenant, &binding, 1, &fd,
					 blobs[binding.epoch], &bytes),
			SECPOOL_OK);
		close(fd);
	}
	assert_memory_not_equal(blobs[1], blobs[2], bytes);
	/* a third one only when the first is gone; never one that was there already, nor an earlier one */
	assert_int_equal(vault_make_region(&vault, tenant, &binding, 1, &fd, blobs[0], &bytes),
		SECPOOL_E_EXISTS);
	assert_true(vault_has_region(&vault, 5) && !vault_has_region(&vault, 99));
	assert_int_equal(vault_destroy_region(&vault, 5, 1), 1);
	assert_true(vault_has_region(&vault, 5));
	assert_int_equal(vault.handouts.count, 2);
	for (uint64_t epoch = 1; epoch < 3; epoch++) {
		binding.epoch = epoch;
		assert_int_equal(
			vault_make_region(&vault, tenant, &binding, 1, &fd, blobs[0], &bytes),
			SECPOOL_E_EXISTS);
	}
	binding.epoch = 3;
	assert_int_equal(
		vault_make_region(&vault, tenant, &binding, 1, &fd, blobs[0], &bytes), SECPOOL_OK);
	close(fd);
	/* one that is not there is gone as well */
	assert_int_equal(vault_destroy_region(&vault, 5, 1), 2);
	assert_int_equal(vault.handouts.count, 3);
	assert_int_equal(vault_destroy_region(&vault, 5, 0), 3);
	assert_false(vault_has_region(&vault, 5));
	assert_int_equal(vault.handouts.count, 1);
	binding.epoch = 1;
	binding.region = 6;
	assert_int_equal(vault_make_region(&vault, tenant, &binding, 1, &fd, blobs[0], &bytes),
		SECPOOL_E_EXISTS);
}

/* Making and destroying leaves no descriptor, mapping or secret memory behind. */
static void nothing_is_left_behind(void **state)
{
	struct pagecipher_binding binding = {1, 1, 4096};
	uint8_t blob[WRAP_BLOB_BYTES_MOST];
	size_t tenant = 0, bytes;
	int fd = -1, first = -1;

	(void)state;
	assert_int_equal(vault_open_tenant(&vault, "a", NULL, 0, &tenant), SECPOOL_OK);
	for (unsigned i = 0; i < 4000;
		i++) { /* 16 MiB of pages: beyond RLIMIT_MEMLOCK if they stayed */
		assert_int_equal(vault_make_region(&vault, tenant, &binding, 1, &fd, blob, &bytes),
			SECPOOL_OK);
		if (i == 0)
			first = fd;
		assert_int_equal(fd, first);
		close(fd);
		assert_int_equal(vault_destroy_region(&vault, 1, 1), i + 1);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(tenants_come_back, set_up, tear_down),
		cmocka_unit_test_setup_teardown(wrong_tenant_keys_are_refused, set_up, tear_down),
		cmocka_unit_test_setup_teardown(tenants_are_bounded, set_up, tear_down),
		cmocka_unit_test_setup_teardown(region_keys, set_up, tear_down),
		cmocka_unit_test_setup_teardown(wrong_regions_are_refused, set_up, tear_down),
		cmocka_unit_test_setup_teardown(two_epochs, set_up, tear_down),
		cmocka_unit_test_setup_teardown(nothing_is_left_behind, set_up, tear_down),
	};

	if (secmem_init(SECMEM_ALLOW_LOCKED)) {
		fprintf(stderr, "test_vault: %s\n", err_detail());
		return 1;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
