/* SPDX-License-Identifier: Apache-2.0 */
/* What the vault does with sealed regions (docs/sealed.md): their keys are stored, and handed out again from there. */
#include "enclave/vault.h"

#include <openssl/crypto.h>
#include <string.h>

#include "enclave/proof.h"
#include "enclave/secmem.h"
#include "lib/base/os.h"

/* The caller has a record of its own. */
static void tell_nobody(void *arg, const char *tenant, uint64_t region, uint64_t epoch)
{
	(void)arg;
	(void)tenant;
	(void)region;
	(void)epoch;
}

/* What is stored for the tenant under that purpose, in new secret memory; the caller frees it. Errors: SECPOOL_E_KEY_GONE where there is none. */
static enum secpool_error open_leaf(struct vault *vault, enum wrap_purpose purpose,
	const char *tenant, const struct pagecipher_binding *binding, struct region_keys **ret_keys)
{
	struct region_keys *keys;
	enum secpool_error error;
	uint32_t slot = 0;

	if (!keytree_find(vault->tree, binding->region, binding->epoch, purpose, tenant, &slot))
		return err_set(SECPOOL_E_KEY_GONE,
			"tenant %s has no such key of region %llu, epoch %llu", tenant,
			(unsigned long long)binding->region, (unsigned long long)binding->epoch);
	keys = secmem_new(sizeof *keys);
	if (!keys)
		return err_set(SECPOOL_E_NO_LOCKED_MEMORY, "no secret memory for a region's keys");
	error = keytree_open(vault->tree, slot, binding->page_bytes, keys, sizeof *keys);
	if (error)
		secmem_free(keys);
	else
		*ret_keys = keys;
	return error;
}

static enum secpool_error add_leaf(struct vault *vault, enum wrap_purpose purpose,
	const char *tenant, const struct pagecipher_binding *binding,
	const struct region_keys *keys, struct keytree_added *ret_leaf)
{
	struct wrap_label label = {.purpose = purpose,
		.region = binding->region,
		.epoch = binding->epoch,
		.page_bytes = binding->page_bytes};

	MSG_SET(label.tenant, tenant);
	return keytree_add(vault->tree, &label, keys, sizeof *keys, ret_leaf);
}

/* The descriptor keeps the page for the client; no other copy is left. */
static enum secpool_error make_page(struct vault *vault, const struct pagecipher_binding *binding,
	const struct region_keys *keys, int *ret_fd)
{
	void *page = NULL;
	int fd = -1;
	enum secpool_error error = secmem_new_shared(&fd, &page);

	if (error)
		return error;
	keypage_put(page, binding, MSG_PROTECTION_XTS_GMAC, vault->engine, keys);
	secmem_free_pages(page, KEYPAGE_BYTES);
	*ret_fd = fd;
	return SECPOOL_OK;
}

enum secpool_error vault_seal_region(struct vault *vault, const char *tenant,
	const struct pagecipher_binding *binding, const uint8_t root[PAGECIPHER_ROOT_BYTES],
	const uint8_t proof[PAGECIPHER_PROOF_BYTES], int *ret_fd, struct keytree_added *ret_leaf)
{
	uint8_t subject[PAGECIPHER_SUBJECT_BYTES] = {0};
	struct region_keys *keys = NULL;
	int fd = -1;
	enum secpool_error error = open_leaf(vault, WRAP_REGION_KEYS, tenant, binding, &keys);

	if (error)
		return error;
	memcpy(subject, root, PAGECIPHER_ROOT_BYTES);
	error = proof_check(
		keys->owner, PAGECIPHER_WISH_SEAL, binding->region, binding->epoch, subject, proof);
	if (!error)
		error = pagecipher_owned_root(tenant, root, keys->root);
	if (!error)
		error = make_page(vault, binding, keys, &fd);
	if (!error)
		error = add_leaf(vault, WRAP_SEALED_KEYS, tenant, binding, keys, ret_leaf);
	secmem_free(keys);
	if (error)
		os_close(&fd);
	else
		*ret_fd = fd;
	return error;
}

void vault_end_unsealed(struct vault *vault, const struct pagecipher_binding *binding)
{
	uint32_t slot = 0;

	if (keytree_find(
		    vault->tree, binding->region, binding->epoch, WRAP_REGION_KEYS, NULL, &slot))
		/* it is one of the tree's, and its keys go on in another */
		(void)!keytree_drop_slot(vault->tree, slot, tell_nobody, NULL);
}

enum secpool_error vault_grant_region(struct vault *vault, const char *tenant,
	const struct pagecipher_binding *binding, const char *grantee,
	const uint8_t proof[PAGECIPHER_PROOF_BYTES], struct keytree_added *ret_leaf)
{
	uint8_t subject[PAGECIPHER_SUBJECT_BYTES] = {0};
	struct region_keys *keys = NULL;
	enum secpool_error error = open_leaf(vault, WRAP_SEALED_KEYS, tenant, binding, &keys);
	uint32_t slot;

	if (error)
		return error;
	memcpy(subject, grantee, strnlen(grantee, sizeof subject - 1));
	error = proof_check(keys->owner, PAGECIPHER_WISH_GRANT, binding->region, binding->epoch,
		subject, proof);
	if (!error && keytree_find(vault->tree, binding->region, binding->epoch, WRAP_GRANTED_KEYS,
			      grantee, &slot))
		error = err_set(SECPOOL_E_EXISTS, "tenant %s may attach region %llu already",
			grantee, (unsigned long long)binding->region);
	/* who reads it can't grant it on */
	OPENSSL_cleanse(keys->owner, sizeof keys->owner);
	if (!error)
		error = add_leaf(vault, WRAP_GRANTED_KEYS, grantee, binding, keys, ret_leaf);
	secmem_free(keys);
	return error;
}

enum secpool_error vault_revoke_region(struct vault *vault, const char *tenant,
	const struct pagecipher_binding *binding, const char *grantee)
{
	const char *owner = vault_owner(vault, binding);
	uint32_t slot = 0;

	if (!owner || strcmp(owner, tenant) != 0 ||
		!keytree_find(vault->tree, binding->region, binding->epoch, WRAP_GRANTED_KEYS,
			grantee, &slot))
		return err_set(SECPOOL_E_NOT_FOUND, "tenant %s has no grant of region %llu",
			grantee, (unsigned long long)binding->region);
	return keytree_drop_slot(vault->tree, slot, tell_nobody, NULL);
}

const char *vault_owner(const struct vault *vault, const struct pagecipher_binding *binding)
{
	uint32_t slot = 0;

	return keytree_find(
		       vault->tree, binding->region, binding->epoch, WRAP_SEALED_KEYS, NULL, &slot)
		       ? keytree_tenant(vault->tree, slot)
		       : NULL;
}

enum secpool_error vault_attach_region(struct vault *vault, const char *tenant,
	const struct pagecipher_binding *binding, int *ret_fd)
{
	const char *owner = vault_owner(vault, binding);
	enum wrap_purpose purpose =
		owner && strcmp(owner, tenant) == 0 ? WRAP_SEALED_KEYS : WRAP_GRANTED_KEYS;
	struct region_keys *keys = NULL;
	enum secpool_error error;
	uint32_t slot;

	if (!owner ||
		!keytree_find(vault->tree, binding->region, binding->epoch, purpose, tenant, &slot))
		return err_set(SECPOOL_E_NOT_FOUND,
			"tenant %s was not granted region %llu, or it is not sealed", tenant,
			(unsigned long long)binding->region);
	error = open_leaf(vault, purpose, tenant, binding, &keys);
	if (!error)
		error = make_page(vault, binding, keys, ret_fd);
	secmem_free(keys);
	return error;
}
