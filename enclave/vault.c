/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/vault.h"

#include <openssl/crypto.h>
#include <string.h>

#include "enclave/keypage.h"
#include "enclave/secmem.h"
#include "lib/base/os.h"

void vault_init(struct vault *vault, struct keytree *tree)
{
	memset(vault, 0, sizeof *vault);
	vault->tree = tree;
}

/* Two keys at most: the one that pages are moved off, and the one that they are moved to. */
static enum secpool_error check_epoch(
	const struct vault *vault, const struct pagecipher_binding *binding)
{
	enum { KEYS_MOST = 2 };
	unsigned count = 0;

	for (size_t i = 0; i < vault->region_count; i++) {
		const struct vault_region *held = &vault->regions[i];

		if (held->region != binding->region)
			continue;
		if (held->epoch >= binding->epoch || ++count == KEYS_MOST)
			return err_set(SECPOOL_E_EXISTS,
				"region %llu has its key of epoch %llu already",
				(unsigned long long)held->region, (unsigned long long)held->epoch);
	}
	return SECPOOL_OK;
}

static enum secpool_error check_region(
	struct vault *vault, const struct pagecipher_binding *binding)
{
	uint64_t bytes = binding->page_bytes;
	enum secpool_error error;

	if (binding->region == 0 || binding->epoch == 0)
		return err_set(SECPOOL_E_INVALID, "a region without a number, or an epoch");
	if (bytes < PAGECIPHER_PAGE_BYTES_LEAST || bytes > PAGECIPHER_PAGE_BYTES_MOST ||
		(bytes & (bytes - 1)) != 0)
		return err_set(SECPOOL_E_INVALID,
			"pages of %llu bytes: a power of two from 4 KiB to 2 MiB is needed",
			(unsigned long long)bytes);
	error = check_epoch(vault, binding);
	if (!error && vault->region_count == VAULT_REGIONS_MOST)
		error = err_set(
			SECPOOL_E_LIMIT, "more than %d regions have keys", (int)VAULT_REGIONS_MOST);
	return error;
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

enum secpool_error vault_make_region(struct vault *vault, const char *tenant,
	const struct pagecipher_binding *binding, uint32_t protection, int *ret_fd,
	struct keytree_added *ret_leaf)
{
	struct wrap_label label = {.purpose = WRAP_REGION_KEYS,
		.region = binding->region,
		.epoch = binding->epoch,
		.page_bytes = binding->page_bytes};
	enum secpool_error error = check_region(vault, binding);
	struct region_keys *keys = NULL;
	void *page = NULL;
	int fd = -1;

	if (error)
		return error;
	MSG_SET(label.tenant, tenant);
	keys = secmem_new(sizeof *keys);
	if (!keys)
		return err_set(SECPOOL_E_NO_LOCKED_MEMORY,
			"the enclave's secret memory is used up: raise RLIMIT_MEMLOCK "
			"(LimitMEMLOCK=)");
	draw_keys(keys);
	error = secmem_new_shared(&fd, &page);
	if (error)
		goto out;
	error = keytree_add(vault->tree, &label, keys, sizeof *keys, ret_leaf);
	if (error)
		goto out;
	keypage_put(page, binding, protection, vault->engine, keys);
	vault->regions[vault->region_count++] =
		(struct vault_region){.region = binding->region, .epoch = binding->epoch};
	*ret_fd = fd;
	fd = -1;
out:
	secmem_free(keys);
	secmem_free_pages(page, KEYPAGE_BYTES); /* the descriptor keeps the page for the client */
	os_close(&fd);
	return error;
}

static void drop_records(struct vault *vault, uint64_t region, uint64_t epoch)
{
	for (size_t i = vault->region_count; i-- > 0;) {
		struct vault_region *record = &vault->regions[i];

		if (record->region == region && (epoch == 0 || record->epoch == epoch))
			*record = vault->regions[--vault->region_count];
	}
}

void vault_take_back(struct vault *vault, const struct pagecipher_binding *binding,
	const struct keytree_added *leaf)
{
	drop_records(vault, binding->region, binding->epoch);
	keytree_take_back(vault->tree, leaf);
}

void vault_destroy_region(struct vault *vault, uint64_t region, uint64_t epoch)
{
	drop_records(vault, region, epoch);
	keytree_drop(vault->tree, region, epoch);
}
