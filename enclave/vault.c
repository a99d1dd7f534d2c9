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

void vault_done(struct vault *vault)
{
	handouts_done(&vault->handouts);
	memset(vault, 0, sizeof *vault);
}

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
	os_random(keys->owner, sizeof keys->owner);
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
	/* what an earlier run handed out counts too */
	if (!keytree_may_follow(vault->tree, &label))
		return err_set(SECPOOL_E_EXISTS,
			"region %llu has a key of epoch %llu or later, is sealed, or another "
			"tenant's",
			(unsigned long long)binding->region, (unsigned long long)binding->epoch);
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
	handouts_add(&vault->handouts, binding->region, binding->epoch);
	*ret_fd = fd;
	fd = -1;
out:
	secmem_free(keys);
	secmem_free_pages(page, KEYPAGE_BYTES); /* the descriptor keeps the page for the client */
	os_close(&fd);
	return error;
}

void vault_take_back(struct vault *vault, const struct pagecipher_binding *binding,
	const struct keytree_added *leaf)
{
	handouts_remove(&vault->handouts, binding->region, binding->epoch);
	keytree_take_back(vault->tree, leaf);
}

void vault_destroy_region(struct vault *vault, uint64_t region, uint64_t epoch)
{
	handouts_remove(&vault->handouts, region, epoch);
	keytree_drop(vault->tree, region, epoch);
}

bool vault_has_region(const struct vault *vault, uint64_t region)
{
	return handouts_has(&vault->handouts, region) || keytree_has(vault->tree, region);
}
