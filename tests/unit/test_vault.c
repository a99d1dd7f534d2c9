/* SPDX-License-Identifier: Apache-2.0 */
/* The vault: region keys that open only as what they were made for, their leaves in the tree, and nothing changed on errors. */
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

static struct keytree tree;
static struct vault vault;

static bool no_slot(void *arg, uint32_t slot, uint8_t bytes[KEYFILE_SLOT_BYTES])
{
	(void)arg;
	(void)slot;
	(void)bytes;
	return false;
}

static int set_up(void **state)
{
	uint8_t *root = secmem_new(WRAP_KEY_BYTES), record[KEYFILE_NODE_BYTES];

	(void)state;
	assert_non_null(root);
	os_random(root, WRAP_KEY_BYTES);
	assert_int_equal(keytree_new(&tree, &root, no_slot, NULL, record), SECPOOL_OK);
	vault_init(&vault, &tree);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	vault_done(&vault);
	keytree_done(&tree);
	return 0;
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
	struct keytree_added leaf = {.slot = 4711};
	const void *page = NULL;
	int fd = -1;

	(void)state;
	assert_int_equal(vault_make_region(&vault, "a", &binding, 1, &fd, &leaf), SECPOOL_OK);
	assert_int_equal(secmem_map_shared(fd, &page), SECPOOL_OK);
	close(fd);
	assert_int_equal(keypage_get(page, &other, sent), SECPOOL_E_KEY_GONE);
	assert_int_equal(keypage_get(page, &binding, sent), SECPOOL_OK);
	const uint8_t *key = tree.nodes[leaf.slot / KEYTREE_FAN].key;
	assert_int_equal(wrap_open(key, &label, leaf.blob, leaf.blob_bytes, stored, sizeof *stored),
		SECPOOL_OK);
	assert_memory_equal(sent, stored, sizeof *sent);
	assert_memory_not_equal(sent->xts, sent->xts + 32, 32);
	for (unsigned i = 0; i < 5; i++) {
		struct wrap_label wrong = label;
		wrong.region += i == 0;
		wrong.epoch += i == 1;
		wrong.page_bytes += i == 2;
		wrong.tenant[0] = (char)(wrong.tenant[0] + (i == 3));
		wrong.purpose = i == 4 ? WRAP_NODE_KEY : WRAP_REGION_KEYS;
		assert_int_equal(
			wrap_open(key, &wrong, leaf.blob, leaf.blob_bytes, stored, sizeof *stored),
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
	struct keytree_added leaf = {.slot = 4711};
	int fd = -1, first = -1;

	(void)state;
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		binding.page_bytes = sizes[i];
		assert_int_equal(
			vault_make_region(&vault, "a", &binding, 1, &fd, &leaf), SECPOOL_E_INVALID);
	}
	binding = (struct pagecipher_binding){0, 1, 4096};
	assert_int_equal(
		vault_make_region(&vault, "a", &binding, 1, &fd, &leaf), SECPOOL_E_INVALID);
	binding.region = 5;
	assert_int_equal(vault_make_region(&vault, "", &binding, 1, &fd, &leaf), SECPOOL_E_INVALID);
	assert_int_equal(vault.handouts.count, 0);
	assert_int_equal(fd, -1);
	assert_int_equal(leaf.slot, 4711);
	assert_int_equal(tree.leaves, 0);
	assert_int_equal(vault_make_region(&vault, "a", &binding, 1, &first, &leaf), SECPOOL_OK);
	close(first);
	assert_int_equal(vault_make_region(&vault, "a", &binding, 1, &fd, &leaf), SECPOOL_E_EXISTS);
	binding.epoch = 0;
	assert_int_equal(
		vault_make_region(&vault, "a", &binding, 1, &fd, &leaf), SECPOOL_E_INVALID);
	binding.epoch = 1;
	vault.handouts.count = HANDOUTS_MOST;
	binding.region = 6;
	assert_int_equal(vault_make_region(&vault, "a", &binding, 1, &fd, &leaf), SECPOOL_E_LIMIT);
	assert_int_equal(fd, -1);
	vault.handouts.count = 1;
	vault_destroy_region(&vault, 99, 0);
	assert_int_equal(vault.handouts.count, 1);
	vault_destroy_region(&vault, 5, 0);
	assert_int_equal(vault.handouts.count, 0);
}

/* A region that is rotated has two keys, later ones with greater epochs; each is ended alone. */
static void two_epochs(void **state)
{
	struct pagecipher_binding binding = {5, 1, 4096}, other = {6, 1, 4096};
	struct keytree_added leaves[3];
	int fd = -1;

	(void)state;
	assert_int_equal(vault_make_region(&vault, "a", &other, 1, &fd, &leaves[0]), SECPOOL_OK);
	close(fd);
	for (binding.epoch = 1; binding.epoch < 3; binding.epoch++) {
		assert_int_equal(
			vault_make_region(&vault, "a", &binding, 1, &fd, &leaves[binding.epoch]),
			SECPOOL_OK);
		close(fd);
	}
	assert_memory_not_equal(leaves[1].blob, leaves[2].blob, leaves[1].blob_bytes);
	/* a third one only when the first is gone; never one that was there already, nor an earlier one */
	assert_int_equal(
		vault_make_region(&vault, "a", &binding, 1, &fd, &leaves[0]), SECPOOL_E_EXISTS);
	assert_true(vault_has_region(&vault, 5) && !vault_has_region(&vault, 99));
	vault_destroy_region(&vault, 5, 1);
	assert_true(vault_has_region(&vault, 5));
	assert_int_equal(vault.handouts.count, 2);
	for (uint64_t epoch = 1; epoch < 3; epoch++) {
		binding.epoch = epoch;
		assert_int_equal(vault_make_region(&vault, "a", &binding, 1, &fd, &leaves[0]),
			SECPOOL_E_EXISTS);
	}
	binding.epoch = 3;
	assert_int_equal(vault_make_region(&vault, "a", &binding, 1, &fd, &leaves[0]), SECPOOL_OK);
	close(fd);
	/* one that is not there is gone as well */
	vault_destroy_region(&vault, 5, 1);
	assert_int_equal(vault.handouts.count, 3);
	vault_destroy_region(&vault, 5, 0);
	assert_int_equal(vault.handouts.count, 1);
	assert_int_equal(tree.leaves, 1);
	assert_false(vault_has_region(&vault, 5));
	assert_true(vault_has_region(&vault, 6));
}

/* Making and destroying leaves no descriptor, mapping or secret memory behind. */
static void nothing_is_left_behind(void **state)
{
	struct pagecipher_binding binding = {1, 1, 4096};
	struct keytree_added leaf = {.slot = 4711};
	int fd = -1, first = -1;

	(void)state;
	for (unsigned i = 0; i < 4000;
		i++) { /* 16 MiB of pages: beyond RLIMIT_MEMLOCK if they stayed */
		assert_int_equal(
			vault_make_region(&vault, "a", &binding, 1, &fd, &leaf), SECPOOL_OK);
		if (i == 0)
			first = fd;
		assert_int_equal(fd, first);
		close(fd);
		vault_destroy_region(&vault, 1, 1);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
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
