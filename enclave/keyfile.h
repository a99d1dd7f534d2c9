/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The key store's files as bytes: slots of wrapped region keys (state/wraps), wrapped node keys of the key tree (state/nodes), and the root (state/root.sealed, root.next): a sealed root
 * key with the records that the tree needs beside it. All keys in them are wrapped; nothing here sees one. The enclave makes the records, the front writes the files (docs/keys.md).
 *
 * A new generation is written whole to root.next before the TPM counts, and its records go into the other two files afterwards (keyfile_apply): so a crash at any point leaves either the old three or the new one.
 * Parsers take any bytes. Threads: any; no state.
 */
#ifndef SECPOOL_ENCLAVE_KEYFILE_H
#define SECPOOL_ENCLAVE_KEYFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/buf.h"
#include "lib/base/err.h"

#define KEYFILE_ROOT  "root.sealed"
#define KEYFILE_NEXT  "root.next"
#define KEYFILE_NODES "nodes"
#define KEYFILE_WRAPS "wraps"

/* A slot: the count of bytes (32 bits, little endian), the wrapped key, random bytes up to its end. All zero: there was none since its block was renewed. */
enum { KEYFILE_SLOT_BYTES = 512, KEYFILE_SLOT_HEAD_BYTES = 4, KEYFILE_SLOT_USED_MOST = 320, KEYFILE_SLOTS_MOST = 1 << 20 };
/* A node: the count of its wrapped key's bytes, parent and level (32 bits each), tenant, the wrapped key, zeros. All zero: there is none. */
enum { KEYFILE_NODE_BYTES = 256, KEYFILE_TENANT_BYTES = 64, KEYFILE_NODE_WRAPPED_MOST = KEYFILE_NODE_BYTES - 12 - KEYFILE_TENANT_BYTES };
enum { KEYFILE_NODES_MOST = 20480 };
/* What is kept in a root for the recovery key, at most. */
enum { KEYFILE_RECOVERY_MOST = 640 };
/* More than a root with a record for each slot and node has. */
enum { KEYFILE_ROOT_BYTES_MOST = 384 << 20 };

void keyfile_put_slot(uint8_t slot[KEYFILE_SLOT_BYTES], const uint8_t *wrapped, size_t bytes);
/* The wrapped key in a slot, borrowed; *ret_bytes 0: none. False where there is neither: overwritten, or torn. */
bool keyfile_get_slot(const uint8_t slot[KEYFILE_SLOT_BYTES], const uint8_t **ret_wrapped, size_t *ret_bytes);

struct keyfile_node {
	uint32_t parent, level;
	char tenant[KEYFILE_TENANT_BYTES];
	size_t wrapped_bytes;
	uint8_t wrapped[KEYFILE_NODE_WRAPPED_MOST];
};
void keyfile_put_node(uint8_t record[KEYFILE_NODE_BYTES], const struct keyfile_node *node);
/* False: none, or not one that put_node wrote. */
bool keyfile_get_node(const uint8_t record[KEYFILE_NODE_BYTES], struct keyfile_node *ret_node);

/* ---- root.sealed and root.next ---- */

struct keyfile_root {
	uint32_t counter_index;
	uint64_t first, last; /* generations at which it opens; last is its own */
	uint64_t base;        /* a generation is the counter's value and this (modulo 2^64), so that another TPM's counter goes on where the one before ended */
	const uint8_t *blob;  /* tpm_seal's */
	size_t blob_bytes;
	const uint8_t *recovery; /* the root for the recovery key (anchor_root.h) */
	size_t recovery_bytes;   /* 0: there is none */
	struct buf_reader records; /* as keyfile_next_record reads them */
};

/* What goes to one place of nodes or wraps. bytes 0: zeros. */
struct keyfile_record {
	bool is_node;
	uint32_t place; /* node, or slot from 0 */
	const uint8_t *bytes;
	size_t count;
};

/*
 * Begins a root file in writer: head, blob and what is for the recovery key; records follow by keyfile_add_record, and keyfile_end_root ends it. A writer that was too small has failed. blob_bytes: up to TPM_BLOB_BYTES, recovery_bytes: up to KEYFILE_RECOVERY_MOST.
 */
void keyfile_begin_root(struct buf_writer *writer, const struct keyfile_root *root);
void keyfile_add_record(struct buf_writer *writer, const struct keyfile_record *record);
void keyfile_end_root(struct buf_writer *writer);

/* Looks at all of it, records too; what is returned points into bytes. Errors: SECPOOL_E_STORE (not such a file, or damaged). */
enum secpool_error keyfile_parse_root(const uint8_t *bytes, size_t count, struct keyfile_root *ret_root) MUST_USE;
/* The next record; false at the end. */
bool keyfile_next_record(struct keyfile_root *root, struct keyfile_record *ret_record);

/*
 * Writes the root's records to their places in the two files, and syncs both. Doing it again changes nothing.
 * Errors: SECPOOL_E_STORE: some of them may be written.
 */
enum secpool_error keyfile_apply(const struct keyfile_root *root, int nodes_fd, int wraps_fd) MUST_USE;

/* One place; not synced. Errors: SECPOOL_E_STORE. */
enum secpool_error keyfile_write_slot(int wraps_fd, uint32_t slot, const uint8_t bytes[KEYFILE_SLOT_BYTES]) MUST_USE;
enum secpool_error keyfile_write_node(int nodes_fd, uint32_t node, const uint8_t record[KEYFILE_NODE_BYTES]) MUST_USE;

/*
 * root.next was applied: it becomes root.sealed, without its records, on the disk when this returns, and root.next goes: its records are old copies of keys. Should it stay after a crash, root.sealed is the one that holds.
 * Errors: SECPOOL_E_STORE.
 */
enum secpool_error keyfile_take_next(const struct keyfile_root *root, const char *state_dir) MUST_USE;

#endif
