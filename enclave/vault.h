/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keys of a running enclave: the root key, the tenants' wrapping keys under it, and region keys, which are made here, wrapped under their tenant's key,
 * put into the page that goes to the client, and wiped (docs/keys.md). The vault keeps no region key: only which regions have one, and of which epoch; of two epochs while a region is rotated.
 *
 * Every key is in secret memory. Threads: one at a time for each vault.
 */
#ifndef SECPOOL_ENCLAVE_VAULT_H
#define SECPOOL_ENCLAVE_VAULT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "enclave/handouts.h"
#include "enclave/keypage.h"
#include "enclave/pagecipher.h"
#include "enclave/wrap.h"
#include "lib/base/err.h"
#include "lib/wire/msg.h"

enum { VAULT_TENANTS_MOST = 1024, VAULT_TENANT_BLOB_BYTES = 256 };

struct vault_tenant {
	char name[MSG_NAME_BYTES];
	uint8_t *key; /* secret, WRAP_KEY_BYTES */
	uint8_t wrapped[VAULT_TENANT_BLOB_BYTES];
	size_t wrapped_bytes;
};

struct vault {
	uint8_t *root; /* secret, WRAP_KEY_BYTES, owned */
	enum keypage_engine engine; /* what clients may use, by policy; KEYPAGE_ANY from vault_init */
	uint64_t generation; /* destructions in this run */
	size_t tenant_count;
	struct vault_tenant tenants[VAULT_TENANTS_MOST];
	struct handouts handouts;
};

/* An empty vault around a root key from secmem_new; *root is moved and left NULL. */
void vault_init(struct vault *vault, uint8_t **root);

/* Wipes every key. */
void vault_done(struct vault *vault);

/*
 * Finds a tenant's wrapping key: the one held already, else the one in wrapped, else (wrapped_bytes is 0) a new one. *ret_tenant is its index; the caller stores what
 * vault->tenants[*ret_tenant].wrapped holds.
 * Errors: SECPOOL_E_KEY_GONE (wrapped is not this tenant's key under this root, or not the key in use), SECPOOL_E_LIMIT,
 * SECPOOL_E_NO_LOCKED_MEMORY, SECPOOL_E_CRYPTO, SECPOOL_E_INVALID (empty name). Nothing changed.
 */
enum secpool_error vault_open_tenant(struct vault *vault, const char *name, const uint8_t *wrapped, size_t wrapped_bytes, size_t *ret_tenant) MUST_USE;

/*
 * Makes a region's keys. blob: WRAP_BLOB_BYTES_MOST bytes, the keys wrapped under the tenant's. *ret_fd: a secret descriptor with the key page, which the caller sends
 * and closes; no other copy is left.
 * Errors: SECPOOL_E_EXISTS (the region has a key of this epoch or of a later one, or two keys), SECPOOL_E_INVALID (page size, region or epoch 0), SECPOOL_E_LIMIT, SECPOOL_E_NO_MEMORY, SECPOOL_E_NO_LOCKED_MEMORY,
 * SECPOOL_E_NO_SECRET_MEMORY, SECPOOL_E_CRYPTO. Nothing changed.
 */
enum secpool_error vault_make_region(struct vault *vault, size_t tenant, const struct pagecipher_binding *binding, uint32_t protection, int *ret_fd, uint8_t *blob, size_t *ret_blob_bytes) MUST_USE;

/*
 * Ends a region's key of an epoch, or all of its keys (epoch 0): their records go, the generation rises. A key of an earlier run has no record and nothing left to wipe; the answer is
 * the same. Returns the generation of this destruction, from 1 on.
 */
uint64_t vault_destroy_region(struct vault *vault, uint64_t region, uint64_t epoch);

/* Whether a key of this region was handed out in this run and not ended since. */
bool vault_has_region(const struct vault *vault, uint64_t region);

#endif
