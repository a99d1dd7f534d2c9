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
 * Errors: SECPOOL_E_EXISTS (the region has a key of this epoch or of a later one, or two keys), SECPOOL_E_INVALID (page size, region or epoch 0), SECPOOL_E_LIMIT, SECPOOL_E_NO_MEMORY, SECPOOL_E_NO_LOCKED_MEMORY,
 * SECPOOL_E_NO_SECRET_MEMORY, SECPOOL_E_CRYPTO. Nothing changed.
 */
enum secpool_error vault_make_region(struct vault *vault, const char *tenant, const struct pagecipher_binding *binding, uint32_t protection, int *ret_fd, struct keytree_added *ret_leaf) MUST_USE;

/* The key that was just made was given to nobody: it leaves no trace. leaf: as vault_make_region gave it. */
void vault_take_back(struct vault *vault, const struct pagecipher_binding *binding, const struct keytree_added *leaf);

/*
 * Ends a region's key of an epoch, or all of its keys (epoch 0): their records and leaves go. A key of an earlier run has no record and nothing left to wipe, but its leaf.
 */
void vault_destroy_region(struct vault *vault, uint64_t region, uint64_t epoch);

/* Whether a key of this region was handed out in this run and not ended since, or is stored. */
bool vault_has_region(const struct vault *vault, uint64_t region);

#endif
