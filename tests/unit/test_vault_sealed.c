/* SPDX-License-Identifier: Apache-2.0 */
/* Sealed regions in the vault: only the owner's proof seals and grants, once; each tenant gets its own leaf and no other; what was taken back is gone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "enclave/keypage.h"
#include "enclave/proof.h"
#include "enclave/secmem.h"
#include "enclave/vault.h"
#include "lib/base/os.h"

static struct keytree tree;
static struct vault vault;
static const struct pagecipher_binding binding = {11, 2, 4096};
static const uint8_t root[PAGECIPHER_ROOT_BYTES] = {4, 5, 6};

/* The slots as the front stores them. */
static uint8_t stored[256][KEYFILE_SLOT_BYTES];

static bool read_slot(void *arg, uint32_t slot, uint8_t bytes[KEYFILE_SLOT_BYTES])
{
	(void)arg;
	if (slot >= sizeof stored / sizeof *stored)
		return false;
	memcpy(bytes, stored[slot], KEYFILE_SLOT_BYTES);
	return true;
}

static void store(const struct keytree_added *leaf)
{
	assert_true(leaf->slot < sizeof stored / sizeof *stored);
	keyfile_put_slot(stored[leaf->slot], leaf->blob, leaf->blob_bytes);
}

/* What a client gets; the caller frees it. */
static struct pagecipher *open_page(int fd)
{
	struct pagecipher *cipher = NULL;

	assert_int_equal(pagecipher_new(fd, &binding, 1, &cipher), SECPOOL_OK);
	close(fd);
	return cipher;
}

static struct pagecipher *owner; /* with the region's first key */

static int set_up(void **state)
{
	uint8_t *key = secmem_new(WRAP_KEY_BYTES), record[KEYFILE_NODE_BYTES];
	struct keytree_added leaf;
	int fd = -1;

	(void)state;
	assert_non_null(key);
	os_random(key, WRAP_KEY_BYTES);
	assert_int_equal(keytree_new(&tree, &key, read_slot, NULL, record), SECPOOL_OK);
	vault_init(&vault, &tree);
	assert_int_equal(vault_make_region(&vault, "a", &binding, 1, &fd, &leaf), SECPOOL_OK);
	store(&leaf);
	owner = open_page(fd);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	pagecipher_free(owner);
	vault_done(&vault);
	keytree_done(&tree);
	return 0;
}

static void prove(const struct pagecipher *by, enum pagecipher_wish wish, const void *subject,
	size_t bytes, uint8_t ret_proof[PAGECIPHER_PROOF_BYTES])
{
	uint8_t padded[PAGECIPHER_SUBJECT_BYTES] = {0};

	memcpy(padded, subject, bytes);
	assert_int_equal(pagecipher_prove(by, wish, padded, ret_proof), SECPOOL_OK);
}

/* The owner's tenant (64 bytes with zeros) and the root, as the enclave says them together; a manifest that names another owner has another. */
static void check_root(const struct pagecipher *cipher)
{
	uint8_t both[64 + 32] = "a", want[32];

	memcpy(both + 64, root, sizeof root);
	assert_int_equal(pagecipher_digest(both, sizeof both, want), SECPOOL_OK);
	assert_memory_equal(pagecipher_root(cipher), want, sizeof want);
	assert_int_equal(pagecipher_owned_root("a", root, want), SECPOOL_OK);
	assert_memory_equal(pagecipher_root(cipher), want, sizeof want);
	assert_int_equal(pagecipher_owned_root("b", root, want), SECPOOL_OK);
	assert_memory_not_equal(pagecipher_root(cipher), want, sizeof want);
}

static void seal(void)
{
	uint8_t proof[PAGECIPHER_PROOF_BYTES];
	struct keytree_added leaf;
	struct pagecipher *cipher;
	int fd = -1;

	prove(owner, PAGECIPHER_WISH_SEAL, root, sizeof root, proof);
	assert_int_equal(
		vault_seal_region(&vault, "a", &binding, root, proof, &fd, &leaf), SECPOOL_OK);
	store(&leaf);
	vault_end_unsealed(&vault, &binding);
	cipher = open_page(fd);
	check_root(cipher);
	pagecipher_free(cipher);
}

static void grant(const char *tenant)
{
	uint8_t proof[PAGECIPHER_PROOF_BYTES];
	struct keytree_added leaf;

	prove(owner, PAGECIPHER_WISH_GRANT, tenant, strlen(tenant), proof);
	assert_int_equal(
		vault_grant_region(&vault, "a", &binding, tenant, proof, &leaf), SECPOOL_OK);
	store(&leaf);
}

static enum secpool_error attach(const char *tenant, struct pagecipher **ret_cipher)
{
	int fd = -1;
	enum secpool_error error = vault_attach_region(&vault, tenant, &binding, &fd);

	if (!error)
		*ret_cipher = open_page(fd);
	else
		assert_int_equal(fd, -1);
	return error;
}

static void only_the_owner_seals(void **state)
{
	uint8_t proof[PAGECIPHER_PROOF_BYTES], other_root[PAGECIPHER_ROOT_BYTES] = {9};
	struct pagecipher_binding other = binding;
	uint64_t leaves = tree.leaves;
	struct keytree_added leaf;
	int fd = -1;

	(void)state;
	prove(owner, PAGECIPHER_WISH_SEAL, root, sizeof root, proof);
	assert_int_equal(vault_seal_region(&vault, "a", &binding, other_root, proof, &fd, &leaf),
		SECPOOL_E_DENIED);
	assert_int_equal(vault_seal_region(&vault, "b", &binding, root, proof, &fd, &leaf),
		SECPOOL_E_KEY_GONE);
	for (unsigned i = 0; i < 3; i++) {
		other = binding;
		other.region += i == 0;
		other.epoch += i == 1;
		other.page_bytes *= i == 2 ? 2 : 1;
		assert_int_equal(vault_seal_region(&vault, "a", &other, root, proof, &fd, &leaf),
			SECPOOL_E_KEY_GONE);
	}
	proof[31] ^= 1;
	assert_int_equal(vault_seal_region(&vault, "a", &binding, root, proof, &fd, &leaf),
		SECPOOL_E_DENIED);
	/* a grant's proof is none of a seal */
	prove(owner, PAGECIPHER_WISH_GRANT, root, sizeof root, proof);
	assert_int_equal(vault_seal_region(&vault, "a", &binding, root, proof, &fd, &leaf),
		SECPOOL_E_DENIED);
	assert_int_equal(fd, -1);
	assert_int_equal(tree.leaves, leaves);
	assert_null(vault_owner(&vault, &binding));
}

static void it_is_sealed_once(void **state)
{
	uint8_t proof[PAGECIPHER_PROOF_BYTES], later[PAGECIPHER_ROOT_BYTES] = {7};
	struct keytree_added leaf;
	int fd = -1;

	(void)state;
	seal();
	assert_string_equal(vault_owner(&vault, &binding), "a");
	prove(owner, PAGECIPHER_WISH_SEAL, later, sizeof later, proof);
	assert_int_equal(vault_seal_region(&vault, "a", &binding, later, proof, &fd, &leaf),
		SECPOOL_E_KEY_GONE);
}

/* A later run of the enclave knows what the tree has: no other tenant gets a key of the region, nobody a second one of its epoch, and none that is sealed a next one. */
static void a_region_stays_its_owners(void **state)
{
	struct pagecipher_binding next = binding;
	struct keytree_added leaf;
	uint64_t leaves;
	int fd = -1;

	(void)state;
	vault_done(&vault);
	vault_init(&vault, &tree);
	leaves = tree.leaves;
	next.epoch++;
	assert_int_equal(vault_make_region(&vault, "a", &binding, 1, &fd, &leaf), SECPOOL_E_EXISTS);
	assert_int_equal(vault_make_region(&vault, "b", &next, 1, &fd, &leaf), SECPOOL_E_EXISTS);
	seal();
	assert_int_equal(vault_make_region(&vault, "a", &next, 1, &fd, &leaf), SECPOOL_E_EXISTS);
	assert_int_equal(vault_make_region(&vault, "b", &binding, 1, &fd, &leaf), SECPOOL_E_EXISTS);
	assert_int_equal(fd, -1);
	assert_int_equal(tree.leaves, leaves);
	assert_int_equal(vault.handouts.count, 0);
	assert_string_equal(vault_owner(&vault, &binding), "a");
}

static void a_later_run_gives_the_next_epoch(void **state)
{
	struct pagecipher_binding next = binding;
	struct keytree_added leaf;
	int fd = -1;

	(void)state;
	vault_done(&vault);
	vault_init(&vault, &tree);
	next.epoch++;
	assert_int_equal(vault_make_region(&vault, "a", &next, 1, &fd, &leaf), SECPOOL_OK);
	close(fd);
}

static void grants(void **state)
{
	uint8_t proof[PAGECIPHER_PROOF_BYTES], subject[PAGECIPHER_SUBJECT_BYTES] = "c";
	struct pagecipher *cipher = NULL;
	struct keytree_added leaf;

	(void)state;
	prove(owner, PAGECIPHER_WISH_GRANT, "b", 1, proof);
	assert_int_equal(
		vault_grant_region(&vault, "a", &binding, "b", proof, &leaf), SECPOOL_E_KEY_GONE);
	seal();
	assert_int_equal(attach("b", &cipher), SECPOOL_E_NOT_FOUND);
	/* the front can't grant to another than the owner named */
	assert_int_equal(
		vault_grant_region(&vault, "a", &binding, "c", proof, &leaf), SECPOOL_E_DENIED);
	assert_int_equal(
		vault_grant_region(&vault, "b", &binding, "b", proof, &leaf), SECPOOL_E_KEY_GONE);
	grant("b");
	assert_int_equal(
		vault_grant_region(&vault, "a", &binding, "b", proof, &leaf), SECPOOL_E_EXISTS);
	assert_int_equal(attach("b", &cipher), SECPOOL_OK);
	check_root(cipher);
	/* who reads it can neither seal nor grant */
	assert_int_equal(
		pagecipher_prove(cipher, PAGECIPHER_WISH_GRANT, subject, proof), SECPOOL_E_DENIED);
	pagecipher_free(cipher);
	assert_int_equal(attach("c", &cipher), SECPOOL_E_NOT_FOUND);
	assert_int_equal(attach("a", &cipher), SECPOOL_OK);
	assert_int_equal(
		pagecipher_prove(cipher, PAGECIPHER_WISH_GRANT, subject, proof), SECPOOL_OK);
	pagecipher_free(cipher);
}

static void what_is_taken_back_is_gone(void **state)
{
	struct pagecipher *cipher = NULL;

	(void)state;
	seal();
	grant("b");
	grant("c");
	assert_int_equal(vault_revoke_region(&vault, "b", &binding, "c"), SECPOOL_E_NOT_FOUND);
	assert_int_equal(vault_revoke_region(&vault, "a", &binding, "d"), SECPOOL_E_NOT_FOUND);
	assert_int_equal(vault_revoke_region(&vault, "a", &binding, "b"), SECPOOL_OK);
	assert_int_equal(vault_revoke_region(&vault, "a", &binding, "b"), SECPOOL_E_NOT_FOUND);
	assert_int_equal(attach("b", &cipher), SECPOOL_E_NOT_FOUND);
	assert_int_equal(attach("c", &cipher), SECPOOL_OK);
	pagecipher_free(cipher);
	vault_destroy_region(&vault, binding.region, 0);
	assert_int_equal(attach("c", &cipher), SECPOOL_E_NOT_FOUND);
	assert_int_equal(attach("a", &cipher), SECPOOL_E_NOT_FOUND);
	assert_false(vault_has_region(&vault, binding.region));
}

/* What the front has in a slot is believed only as far as it opens there. */
static void slots_that_were_changed(void **state)
{
	struct pagecipher *cipher = NULL;
	uint8_t kept[KEYFILE_SLOT_BYTES];
	uint32_t mine = 0, theirs = 0;

	(void)state;
	seal();
	grant("b");
	assert_true(keytree_find(&tree, 11, 2, WRAP_SEALED_KEYS, NULL, &mine));
	assert_true(keytree_find(&tree, 11, 2, WRAP_GRANTED_KEYS, "b", &theirs));
	memcpy(kept, stored[theirs], sizeof kept);
	memcpy(stored[theirs], stored[mine], sizeof kept);
	assert_int_equal(attach("b", &cipher), SECPOOL_E_KEY_GONE);
	memcpy(stored[theirs], kept, sizeof kept);
	stored[theirs][40] ^= 1;
	assert_int_equal(attach("b", &cipher), SECPOOL_E_KEY_GONE);
	memset(stored[theirs], 0, sizeof kept);
	assert_int_equal(attach("b", &cipher), SECPOOL_E_KEY_GONE);
	memcpy(stored[theirs], kept, sizeof kept);
	assert_int_equal(attach("b", &cipher), SECPOOL_OK);
	pagecipher_free(cipher);
}

/* RFC 4231 has no key of 32 bytes with our statement: the same by hand, as HMAC is defined (FIPS 198-1 section 4). */
static void proof_is_hmac(void **state)
{
	uint8_t key[32], subject[PAGECIPHER_SUBJECT_BYTES] = "subject", got[32], want[32];
	uint8_t inner[64 + 84] = {0}, outer[64 + 32] = {0};

	(void)state;
	for (unsigned i = 0; i < sizeof key; i++)
		key[i] = (uint8_t)(i * 7 + 1);
	for (unsigned i = 0; i < 64; i++) {
		inner[i] = 0x36 ^ (i < sizeof key ? key[i] : 0);
		outer[i] = 0x5c ^ (i < sizeof key ? key[i] : 0);
	}
	inner[64] = PAGECIPHER_WISH_GRANT;
	inner[68] = 0x0b;
	inner[69] = 0x01;
	inner[76] = 3;
	memcpy(inner + 84, subject, sizeof subject);
	assert_int_equal(pagecipher_digest(inner, sizeof inner, outer + 64), SECPOOL_OK);
	assert_int_equal(pagecipher_digest(outer, sizeof outer, want), SECPOOL_OK);
	assert_int_equal(
		proof_make(key, PAGECIPHER_WISH_GRANT, 0x010b, 3, subject, got), SECPOOL_OK);
	assert_memory_equal(got, want, sizeof want);
	assert_int_equal(
		proof_check(key, PAGECIPHER_WISH_GRANT, 0x010b, 3, subject, want), SECPOOL_OK);
	want[0] ^= 1;
	assert_int_equal(proof_check(key, PAGECIPHER_WISH_GRANT, 0x010b, 3, subject, want),
		SECPOOL_E_DENIED);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(only_the_owner_seals),
		TEST(it_is_sealed_once),
		TEST(a_region_stays_its_owners),
		TEST(a_later_run_gives_the_next_epoch),
		TEST(grants),
		TEST(what_is_taken_back_is_gone),
		TEST(slots_that_were_changed),
		cmocka_unit_test(proof_is_hmac),
	};

	if (secmem_init(SECMEM_ALLOW_LOCKED)) {
		fprintf(stderr, "test_vault_sealed: %s\n", err_detail());
		return 1;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
