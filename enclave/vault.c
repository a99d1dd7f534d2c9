/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/vault.h"

#include <openssl/crypto.h>
#include <string.h>

#include "enclave/keypage.h"
#include "enclave/secmem.h"
#include "lib/base/os.h"

void vault_init(struct vault *vault, uint8_t **root)
{
	memset(vault, 0, sizeof *vault);
	vault->root = *root;
	*root = NULL;
}

void vault_done(struct vault *vault)
{
	for (size_t i = 0; i < vault->tenant_count; i++)
		secmem_free(vault->tenants[i].key);
	secmem_free(vault->root);
	handouts_done(&vault->handouts);
	memset(vault, 0, sizeof *vault);
}

static void label_tenant(struct wrap_label *label, const char *name)
{
	memset(label, 0, sizeof *label);
	label->purpose = WRAP_TENANT_KEY;
	MSG_SET(label->tenant, name);
}

static enum secpool_error no_memory(void)
{
	return err_set(SECPOOL_E_NO_LOCKED_MEMORY,
		"the enclave's secret memory is used up: raise RLIMIT_MEMLOCK (LimitMEMLOCK=)");
}

/* The key in wrapped, or a new one and what wraps it, into an unused entry. */
static enum secpool_error fill_tenant(struct vault *vault, struct vault_tenant *entry,
	const char *name, const uint8_t *wrapped, size_t wrapped_bytes)
{
	uint8_t blob[WRAP_BLOB_BYTES_MOST];
	size_t blob_bytes = 0;
	enum secpool_error error = SECPOOL_E_INTERNAL;
	struct wrap_label label;
	uint8_t *key = secmem_new(WRAP_KEY_BYTES);

	if (!key)
		return no_memory();
	label_tenant(&label, name);
	if (wrapped_bytes > 0) {
		error = wrap_open(vault->root, &label, wrapped, wrapped_bytes, key, WRAP_KEY_BYTES);
		if (error) {
			err_set(error,
				"tenant %s: its stored wrapping key does not open under this root "
				"key",
				name);
			goto out;
		}
		memcpy(blob, wrapped, wrapped_bytes);
		blob_bytes = wrapped_bytes;
	} else {
		os_random(key, WRAP_KEY_BYTES);
		error = wrap_seal(vault->root, &label, key, WRAP_KEY_BYTES, blob, &blob_bytes);
		if (!error && blob_bytes > sizeof entry->wrapped)
			error = err_set(SECPOOL_E_INTERNAL, "a tenant's wrapped key is too long");
		if (error)
			goto out;
	}
	memset(entry, 0, sizeof *entry);
	MSG_SET(entry->name, name);
	memcpy(entry->wrapped, blob, blob_bytes);
	entry->wrapped_bytes = blob_bytes;
	entry->key = key;
	key = NULL;
out:
	secmem_free(key);
	return error;
}

/* The front may offer a key for a tenant that is open already: it must be the same. */
static enum secpool_error check_same(const struct vault *vault, const struct vault_tenant *held,
	const uint8_t *wrapped, size_t wrapped_bytes)
{
	struct wrap_label label;
	enum secpool_error error;
	uint8_t *key;

	if (wrapped_bytes == 0)
		return SECPOOL_OK;
	key = secmem_new(WRAP_KEY_BYTES);
	if (!key)
		return no_memory();
	label_tenant(&label, held->name);
	error = wrap_open(vault->root, &label, wrapped, wrapped_bytes, key, WRAP_KEY_BYTES);
	if (error || CRYPTO_memcmp(key, held->key, WRAP_KEY_BYTES) != 0)
		error = err_set(SECPOOL_E_KEY_GONE,
			"tenant %s: the stored wrapping key is not the one in use", held->name);
	secmem_free(key);
	return error;
}

enum secpool_error vault_open_tenant(struct vault *vault, const char *name, const uint8_t *wrapped,
	size_t wrapped_bytes, size_t *ret_tenant)
{
	enum secpool_error error;
	size_t i;

	if (name[0] == '\0' || wrapped_bytes > VAULT_TENANT_BLOB_BYTES)
		return err_set(
			SECPOOL_E_INVALID, "a tenant without a name, or its key is too long");
	for (i = 0; i < vault->tenant_count; i++)
		if (strcmp(vault->tenants[i].name, name) == 0)
			break;
	if (i < vault->tenant_count) {
		error = check_same(vault, &vault->tenants[i], wrapped, wrapped_bytes);
	} else if (i == VAULT_TENANTS_MOST) {
		error = err_set(SECPOOL_E_LIMIT, "tenant %s: more than %d tenants are open", name,
			(int)VAULT_TENANTS_MOST);
	} else {
		error = fill_tenant(vault, &vault->tenants[i], name, wrapped, wrapped_bytes);
		if (!error)
			vault->tenant_count++;
	}
	if (!error)
		*ret_tenant = i;
	return error;
}

/* ---- region keys ---- */

static enum secpool_error check_region(
	struct vault *vault, const struct pagecipher_binding *binding)
{
	uint64_t bytes = binding->page_bytes;

	if (binding->region == 0 || binding->epoch == 0)
		return err_set(SECPOOL_E_INVALID, "a region without a number, or an epoch");
	if (bytes < PAGECIPHER_PAGE_BYTES_LEAST || bytes > PAGECIPHER_PAGE_BYTES_MOST ||
		(bytes & (bytes - 1)) != 0)
		return err_set(SECPOOL_E_INVALID,
			"pages of %llu bytes: a power of two from 4 KiB to 2 MiB is needed",
			(unsigned long long)bytes);
	return handouts_prepare(&vault->handouts, binding->region, binding->epoch);
}

/* XTS needs two different keys (IEEE 1619-2018 section 5; NIST SP 800-38E; FIPS 140-3 IG C.I). */
static void draw_keys(struct region_keys *keys)
{
	enum { HALF = sizeof keys->xts / 2 };

	do {
		os_random(keys->xts, sizeof keys->xts);
	} while (CRYPTO_memcmp(keys->xts, keys->xts + HALF, HALF) == 0);
	os_random(keys->tag, sizeof keys->tag);
}

enum secpool_error vault_make_region(struct vault *vault, size_t tenant,
	const struct pagecipher_binding *binding, uint32_t protection, int *ret_fd, uint8_t *blob,
	size_t *ret_blob_bytes)
{
	struct wrap_label label = {.purpose = WRAP_REGION_KEYS,
		.region = binding->region,
		.epoch = binding->epoch,
		.page_bytes = binding->page_bytes};
	enum secpool_error error = check_region(vault, binding);
	struct region_keys *keys = NULL;
	void *page = NULL;
	size_t bytes = 0;
	int fd = -1;

	if (error)
		return error;
	if (tenant >= vault->tenant_count)
		return err_set(SECPOOL_E_INTERNAL, "a session without its tenant's key");
	MSG_SET(label.tenant, vault->tenants[tenant].name);
	keys = secmem_new(sizeof *keys);
	if (!keys)
		return no_memory();
	draw_keys(keys);
	error = secmem_new_shared(&fd, &page);
	if (error)
		goto out;
	error = wrap_seal(vault->tenants[tenant].key, &label, keys, sizeof *keys, blob, &bytes);
	if (error)
		goto out;
	keypage_put(page, binding, protection, vault->engine, keys);
	handouts_add(&vault->handouts, binding->region, binding->epoch);
	*ret_blob_bytes = bytes;
	*ret_fd = fd;
	fd = -1;
out:
	secmem_free(keys);
	secmem_free_pages(page, KEYPAGE_BYTES); /* the descriptor keeps the page for the client */
	os_close(&fd);
	return error;
}

uint64_t vault_destroy_region(struct vault *vault, uint64_t region, uint64_t epoch)
{
	handouts_remove(&vault->handouts, region, epoch);
	return ++vault->generation;
}

bool vault_has_region(const struct vault *vault, uint64_t region)
{
	return handouts_has(&vault->handouts, region);
}
