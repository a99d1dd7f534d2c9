/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The key tree: random node keys, each wrapped under its parent's; a leaf is the wrapped keys of a region's epoch, in a slot (docs/keys.md draws it).
 *
 *   root key (sealed to the TPM for one generation) -> 16 groups -> tenants -> middle nodes -> blocks -> slots; each node has up to KEYTREE_FAN children.
 *
 * A leaf that is dropped is gone for this process at once. What an older copy of the files still opens ends with the next generation: keytree_renew makes new keys for the nodes above dropped leaves,
 * and for the root, and wraps everything that stays under them anew; whoever has the new root can't open an old node, and the old root can't be unsealed any more (anchor.h).
 * The tree holds node keys, in secret memory, and no region key: a leaf's blob is read from its slot when its block is renewed.
 * Threads: one at a time for each tree.
 */
#ifndef SECPOOL_ENCLAVE_KEYTREE_H
#define SECPOOL_ENCLAVE_KEYTREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "enclave/keyfile.h"
#include "enclave/wrap.h"
#include "lib/base/err.h"

enum {
	KEYTREE_FAN = 64,   /* children of a node, slots of a block */
	KEYTREE_GROUPS = 16, /* children of the root, beside the service node */
	KEYTREE_TENANTS = KEYTREE_GROUPS * KEYTREE_FAN,
	KEYTREE_BLOCKS = KEYFILE_SLOTS_MOST / KEYTREE_FAN, /* nodes below this number are blocks: block b has the slots from b * KEYTREE_FAN on */
	KEYTREE_NODES = KEYFILE_NODES_MOST,
	KEYTREE_SERVICE = KEYTREE_BLOCKS, /* the node whose key wraps what belongs to no tenant; child of the root, made with it */
	KEYTREE_ADDED_MOST = 4, /* nodes that one new leaf may need */
};
#define KEYTREE_ROOT UINT32_MAX /* as a parent */

enum keytree_level { KEYTREE_UNUSED = 0, KEYTREE_BLOCK, KEYTREE_MIDDLE, KEYTREE_TENANT, KEYTREE_GROUP, KEYTREE_SERVICE_NODE };

struct keytree_node {
	uint8_t *key;  /* secret, WRAP_KEY_BYTES */
	uint8_t *next; /* while a renewal is under way and it gets a new one */
	uint32_t parent, children; /* of a block: live leaves */
	uint32_t room; /* of a block: the tenant's next block with a free slot, KEYTREE_ROOT: none */
	uint8_t level;
	bool dirty; /* an older copy of the files has a leaf below it that was dropped since its key was made */
	char tenant[WRAP_TENANT_BYTES];
};

/* dropped: not to be used before its block has a new key: the garbage in its place says at a start that the block is dirty */
enum keytree_state { KEYTREE_FREE = 0, KEYTREE_LIVE, KEYTREE_UNCLAIMED, KEYTREE_DROPPED };

struct keytree_slot {
	uint64_t region, epoch;
	uint32_t next; /* in the chain of its bucket, slot + 1 */
	uint8_t state;
	uint8_t purpose; /* enum wrap_purpose */
};

enum { KEYTREE_BUCKETS = 1 << 17 };

/* Copies slot's KEYFILE_SLOT_BYTES as the file has them now. False: the file ends before it. */
typedef bool keytree_reader(void *arg, uint32_t slot, uint8_t bytes[KEYFILE_SLOT_BYTES]);

/* Large: static, not on a stack. */
struct keytree {
	uint8_t *root, *next_root; /* secret, owned */
	keytree_reader *read;
	void *read_arg;
	size_t tenant_count;
	uint32_t tenants[KEYTREE_TENANTS]; /* their nodes */
	uint32_t lowest_block, lowest_upper; /* none below is unused */
	uint64_t leaves, dropped; /* dropped: since the last renewal */
	struct keytree_node nodes[KEYTREE_NODES];
	struct keytree_slot slots[KEYFILE_SLOTS_MOST];
	uint32_t buckets[KEYTREE_BUCKETS];
};

/* What a new leaf brings; the caller stores it before the leaf is used: nodes first, then the slot. */
struct keytree_added {
	uint32_t slot, node_count;
	uint32_t nodes[KEYTREE_ADDED_MOST];
	uint8_t records[KEYTREE_ADDED_MOST][KEYFILE_NODE_BYTES];
	size_t blob_bytes;
	uint8_t blob[WRAP_BLOB_BYTES_MOST];
};

/*
 * A tree with nothing but its service node, whose record the caller stores (node KEYTREE_SERVICE). root: WRAP_KEY_BYTES from secmem_new; moved and left NULL.
 * Errors: SECPOOL_E_NO_LOCKED_MEMORY, SECPOOL_E_CRYPTO; keytree_done is called all the same.
 */
enum secpool_error keytree_new(struct keytree *tree, uint8_t **root, keytree_reader *read, void *read_arg, uint8_t ret_record[KEYFILE_NODE_BYTES]) MUST_USE;

/*
 * The tree that is in the files. nodes: the file's bytes. Every leaf that opens is there, and waits to be claimed; blocks with slots that hold something else are dirty. Nodes that don't open are not used.
 * Errors: SECPOOL_E_STORE (the service node does not open under this root: the files are of another generation), SECPOOL_E_NO_LOCKED_MEMORY, SECPOOL_E_CRYPTO; as keytree_new.
 */
enum secpool_error keytree_load(struct keytree *tree, uint8_t **root, keytree_reader *read, void *read_arg, const uint8_t *nodes, size_t nodes_bytes) MUST_USE;

/* Wipes every key; allowed on one that is all zero. */
void keytree_done(struct keytree *tree);

/* The key that signing keys and the like are wrapped under; borrowed. It never changes. */
const uint8_t *keytree_service_key(const struct keytree *tree);

/*
 * A new leaf: the label and secret_bytes of secret, wrapped in a free slot of the tenant's. Errors: SECPOOL_E_LIMIT (slots, nodes or tenants are used up), SECPOOL_E_INVALID, SECPOOL_E_NO_LOCKED_MEMORY,
 * SECPOOL_E_CRYPTO. Nothing changed.
 */
enum secpool_error keytree_add(struct keytree *tree, const struct wrap_label *label, const void *secret, size_t secret_bytes, struct keytree_added *ret_added) MUST_USE;

/* The last leaf that was added, and the nodes made for it, were given to nobody, and are as if they had never been. */
void keytree_take_back(struct keytree *tree, const struct keytree_added *added);

/* Whether every leaf of the label's region is its tenant's, for the label's purpose and of an earlier epoch: so that the label can be the region's next. */
bool keytree_may_follow(struct keytree *tree, const struct wrap_label *label);

/* Whether the region has a leaf of any epoch. */
bool keytree_has(struct keytree *tree, uint64_t region);

/*
 * A live leaf of the region and epoch for that purpose, below the tenant (NULL: below any). False: there is none.
 */
bool keytree_find(struct keytree *tree, uint64_t region, uint64_t epoch, enum wrap_purpose purpose, const char *tenant, uint32_t *ret_slot);
/* Below which tenant a leaf is; borrowed. */
const char *keytree_tenant(const struct keytree *tree, uint32_t slot);
/*
 * What is wrapped in a leaf that keytree_find found, read from its slot: exactly secret_bytes, to secret memory. page_bytes: as its label must say.
 * Errors: SECPOOL_E_KEY_GONE (the slot does not hold it any more, or another page size), SECPOOL_E_NO_LOCKED_MEMORY, SECPOOL_E_CRYPTO; nothing is returned.
 */
enum secpool_error keytree_open(struct keytree *tree, uint32_t slot, uint64_t page_bytes, void *ret_secret, size_t secret_bytes) MUST_USE;

/* Ends the region's leaves of an epoch, 0: of all. How many there were. */
unsigned keytree_drop(struct keytree *tree, uint64_t region, uint64_t epoch);
/* Hears of a leaf that ends: whose it was. tenant: borrowed. */
typedef void keytree_told(void *arg, const char *tenant, uint64_t region, uint64_t epoch);

/* Ends whatever leaf is in the slot, and tells of it; nothing for one that has none. Errors: SECPOOL_E_INVALID (no such slot). */
enum secpool_error keytree_drop_slot(struct keytree *tree, uint64_t slot, keytree_told *told, void *arg) MUST_USE;

/* After keytree_load: this leaf is wanted. Errors: SECPOOL_E_STORE: the slot has not that region's key of that epoch. */
enum secpool_error keytree_claim(struct keytree *tree, uint64_t slot, uint64_t region, uint64_t epoch) MUST_USE;
/* All were claimed: the others are dropped, and told of; how many. */
uint64_t keytree_claimed(struct keytree *tree, keytree_told *told, void *arg);

/* Whether a renewal would erase anything. */
bool keytree_dirty(const struct keytree *tree);

/* As if a leaf had been dropped everywhere: the next renewal gives every node but the service node a new key. */
void keytree_soil(struct keytree *tree);

/*
 * Begins a renewal: new_root (moved, left NULL) and new keys for the nodes above dropped leaves. The records of all that changes go to writer (keyfile_add_record): of a dirty block at most KEYTREE_FAN slots, of each other dirty
 * node its children, and the root's children. Then keytree_renewed or keytree_not_renewed; nothing else meanwhile.
 * Errors: SECPOOL_E_STORE (a leaf's slot does not hold it any more), SECPOOL_E_LIMIT (writer too small), SECPOOL_E_NO_LOCKED_MEMORY, SECPOOL_E_CRYPTO: nothing changed.
 */
enum secpool_error keytree_renew(struct keytree *tree, uint8_t **new_root, struct buf_writer *writer) MUST_USE;
/* The new keys hold, the old ones are wiped; empty blocks are anybody's. */
void keytree_renewed(struct keytree *tree);
/* The new keys are wiped. */
void keytree_not_renewed(struct keytree *tree);

/* ---- for keytree_renew.c and keytree_load.c ---- */

/* A node's record under its parent's key, or its new one. */
enum secpool_error keytree_record(const struct keytree *tree, uint32_t node, uint8_t ret_record[KEYFILE_NODE_BYTES]) MUST_USE;
/* Enters a live leaf. */
void keytree_enter(struct keytree *tree, uint32_t slot, const struct wrap_label *label, enum keytree_state state);
/* Makes the lists of blocks with free slots, of tenants, and where to look for unused nodes. */
void keytree_relist(struct keytree *tree);

#endif
