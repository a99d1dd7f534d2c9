/* SPDX-License-Identifier: Apache-2.0 */
/* The key store's files at the enclave's start (keyfile.h says what is in them): read, mapped, and brought up to the generation that was committed. For anchor.c. Threads: one. */
#ifndef SECPOOL_ENCLAVE_ANCHOR_FILES_H
#define SECPOOL_ENCLAVE_ANCHOR_FILES_H

#include "enclave/keyfile.h"
#include "enclave/keytree.h"
#include "lib/base/err.h"

struct anchor_files {
	const char *state_dir; /* borrowed */
	int nodes_fd, wraps_fd; /* wraps_fd is the anchor's */
	bool has_root, has_next;
	struct keyfile_root root, next;
	char *root_bytes, *next_bytes;
};

/*
 * Opens or makes nodes and wraps (mode 0600), and reads the roots that are there. Errors: SECPOOL_E_STORE (damaged), SECPOOL_E_SYSTEM ...; anchor_files_close is called in any case.
 */
enum secpool_error anchor_files_open(const char *state_dir, struct anchor_files *files) MUST_USE;
void anchor_files_close(struct anchor_files *files);

/* keytree_reader, which reads the file itself; its argument for these files. */
bool anchor_files_read_slot(void *arg, uint32_t slot, uint8_t bytes[KEYFILE_SLOT_BYTES]);
void *anchor_files_arg(const struct anchor_files *files);

/* The service node of a new store, and its root, each on the disk when it returns. Errors: SECPOOL_E_STORE ... */
enum secpool_error anchor_files_first(struct anchor_files *files, const uint8_t record[KEYFILE_NODE_BYTES]) MUST_USE;
enum secpool_error anchor_files_write_root(const struct anchor_files *files, const void *bytes, size_t count) MUST_USE;

/* root.next was committed: its records go to their places; keyfile_take_next comes after that. */
enum secpool_error anchor_files_apply_next(struct anchor_files *files) MUST_USE;
/*
 * The same in copies of nodes and wraps in memory, which view gets: what would be there then can be looked at, and nothing on the disk changes. view: its descriptors are -1, and the caller's to close in any case; it is not
 * for anchor_files_close. Errors: SECPOOL_E_SYSTEM, SECPOOL_E_STORE.
 */
enum secpool_error anchor_files_as_next(const struct anchor_files *files, struct anchor_files *view) MUST_USE;
/* root.next was not committed, and never will be: it goes, if it is there, and does not come back: a recovery would take it for one that was. Errors: SECPOOL_E_SYSTEM ... */
enum secpool_error anchor_files_drop_next(struct anchor_files *files) MUST_USE;

/* keytree_load of the files as they are now. root: moved. */
enum secpool_error anchor_files_load(struct anchor_files *files, struct keytree *tree, uint8_t **root) MUST_USE;

#endif
