/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keys of a running enclave: the key tree, and region keys, which are made here, wrapped as a leaf of their tenant's subtree,
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
#include "enclave/keytree.h"
#include "enclave/pagecipher.h"
#include "lib/base/err.h"
#include "lib/wire/msg.h"


struct vault {
	struct keytree *tree; /* borrowed */
	enum keypage_engine engine; /* what clients may use, by policy; KEYPAGE_ANY from vault_init */
	struct handouts handouts;
};

/* An empty vault over a tree. */
void vault_init(struct vault *vault, struct keytree *tree);

/* Forgets what was handed out. The tree stays. */
void vault_done(struct vault *vault);

/*
 * Makes a region's keys for a tenant. ret_leaf: the keys wrapped, and what the tree made for them. *ret_fd: a secret descriptor with the key page, which the caller sends
 * and closes; no other copy is left.
 * Errors: SECPOOL_E_EXISTS (the region has a key of this epoch or of a later one, or two keys, or is another tenant's, or sealed), SECPOOL_E_INVALID (page size, region or epoch 0), SECPOOL_E_LIMIT, SECPOOL_E_NO_MEMORY, SECPOOL_E_NO_LOCKED_MEMORY,
 * SECPOOL_E_NO_SECRET_MEMORY, SECPOOL_E_CRYPTO. Nothing changed.
 */
enum secpool_error vault_make_region(struct vault *vault, const char *tenant, const struct pagecipher_binding *binding, uint32_t protection, int *ret_fd, struct keytree_added *ret_leaf) MUST_USE;

/*
 * A sealed region (docs/sealed.md): another leaf for the keys that the tenant's region has of this epoch, with pagecipher_owned_root of the tenant and the manifest's root beside them. proof: by the owner, PAGECIPHER_WISH_SEAL of the root. The leaf of before stays until vault_end_unsealed. *ret_fd: a key page with that, which tells the owner what was sealed, as vault_make_region gives it.
 * Errors: SECPOOL_E_KEY_GONE (the tenant has no stored key of this region and epoch: sealed already, destroyed, or another's), SECPOOL_E_DENIED (the proof is not the owner's), SECPOOL_E_LIMIT, SECPOOL_E_NO_LOCKED_MEMORY, SECPOOL_E_NO_SECRET_MEMORY, SECPOOL_E_CRYPTO. Nothing changed.
 */
enum secpool_error vault_seal_region(struct vault *vault, const char *tenant, const struct pagecipher_binding *binding, const uint8_t root[PAGECIPHER_ROOT_BYTES], const uint8_t proof[PAGECIPHER_PROOF_BYTES], int *ret_fd, struct keytree_added *ret_leaf) MUST_USE;

/* The region's leaf of before it was sealed ends: it is sealed once. */
void vault_end_unsealed(struct vault *vault, const struct pagecipher_binding *binding);

/*
 * The same keys and root, without the owner's key, below the grantee. proof: PAGECIPHER_WISH_GRANT of its name.
 * Errors: as vault_seal_region; SECPOOL_E_EXISTS (it has that leaf). Nothing changed.
 */
enum secpool_error vault_grant_region(struct vault *vault, const char *tenant, const struct pagecipher_binding *binding, const char *grantee, const uint8_t proof[PAGECIPHER_PROOF_BYTES], struct keytree_added *ret_leaf) MUST_USE;

/* Ends the grantee's leaf of the tenant's sealed region. Errors: SECPOOL_E_NOT_FOUND (there is none, or the region is not the tenant's). */
enum secpool_error vault_revoke_region(struct vault *vault, const char *tenant, const struct pagecipher_binding *binding, const char *grantee) MUST_USE;

/* Whose sealed region it is; NULL: it is none. Borrowed until the tree changes. */
const char *vault_owner(const struct vault *vault, const struct pagecipher_binding *binding);

/*
 * A key page for who attaches the sealed region as this tenant: its owner's, or a grantee's. *ret_fd as vault_make_region gives it.
 * Errors: SECPOOL_E_NOT_FOUND (the tenant has no leaf of it), SECPOOL_E_KEY_GONE, SECPOOL_E_NO_LOCKED_MEMORY, SECPOOL_E_NO_SECRET_MEMORY, SECPOOL_E_CRYPTO.
 */
enum secpool_error vault_attach_region(struct vault *vault, const char *tenant, const struct pagecipher_binding *binding, int *ret_fd) MUST_USE;

/* The key that was just made was given to nobody: it leaves no trace. leaf: as vault_make_region gave it. */
void vault_take_back(struct vault *vault, const struct pagecipher_binding *binding, const struct keytree_added *leaf);

/*
 * Ends a region's key of an epoch, or all of its keys (epoch 0): their records and leaves go. A key of an earlier run has no record and nothing left to wipe, but its leaf.
 */
void vault_destroy_region(struct vault *vault, uint64_t region, uint64_t epoch);

/* Whether a key of this region was handed out in this run and not ended since, or is stored. */
bool vault_has_region(const struct vault *vault, uint64_t region);

#endif
