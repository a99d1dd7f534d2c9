/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The key store's files in the state folder: the regions' wrapped keys, in slots of fixed size (wraps), and the nodes of the key tree above them (nodes); enclave/keyfile.h says what is in a place. SQLite moves cells between pages
 * and keeps a log, so that a deleted key may stay in its files; here a slot is written in place and overwritten in place.
 *
 * The enclave says which slot a key goes to. The region's row in the directory names it, and that of the key that it is rotated to, from 1 on; 0 is none. A flash disk, or a file system that copies on write, may keep an overwritten
 * block, and a backup has it: what ends those is the next generation of the key tree (anchor.h). Threads: one (the loop's).
 */
#ifndef SECPOOL_KEYMGR_WRAPS_H
#define SECPOOL_KEYMGR_WRAPS_H

#include "enclave/keyfile.h"
#include "keymgr/directory.h"
#include "lib/wire/msg.h"

struct wraps;

/*
 * Opens both files, or makes them (mode 0600), and notes which slots rows of the directory name.
 * state_dir, directory: borrowed for the call. Errors: SECPOOL_E_STORE naming the file (can't be opened; wraps ends before a slot
 * that a region names), SECPOOL_E_NO_MEMORY.
 */
enum secpool_error wraps_open(
	const char *state_dir, struct directory *directory, struct wraps **ret_wraps) MUST_USE;
/* NULL is allowed. */
void wraps_close(struct wraps *wraps);

/*
 * Writes what came with new wrapped keys, nodes first, with one wait for the disk for each file; it is on the disk when this returns: all or none.
 * Errors: SECPOOL_E_INVALID (no such place, or its slot is in use), SECPOOL_E_STORE. The slots are then overwritten, or lost until the next opening; nodes may be missing that the enclave believes to be there.
 */
enum secpool_error wraps_put_all(
	struct wraps *wraps, const struct msg_enc_key_wrapped *const *keys, size_t count) MUST_USE;

/*
 * Overwrites a slot with random bytes, on the disk when this returns, and frees it. Slot 0: nothing.
 * Errors: SECPOOL_E_INVALID (no such slot), SECPOOL_E_STORE: it may still hold the key, and is not used again before the next opening.
 */
enum secpool_error wraps_erase(struct wraps *wraps, uint64_t slot) MUST_USE;

/* The same for several, with one wait for the disk. On error any of them may still hold its key. */
enum secpool_error wraps_erase_all(
	struct wraps *wraps, const uint64_t *slots, size_t count) MUST_USE;

/* Overwrites each slot that no row names and that holds something: what a crash between a row's end and the overwriting left. Errors: SECPOOL_E_STORE. */
enum secpool_error wraps_erase_unnamed(struct wraps *wraps) MUST_USE;

/* keyfile_apply. Errors: SECPOOL_E_STORE. */
enum secpool_error wraps_apply(struct wraps *wraps, const struct keyfile_root *root) MUST_USE;

#endif
