/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The regions' wrapped keys, in a file of their own (state/wraps) with a slot of fixed size for each. SQLite moves cells between pages
 * and keeps a log, so that a deleted key may stay in its files; here a slot is written in place and overwritten in place.
 *
 * The region's row in the directory names its slot, and that of the key that it is rotated to, from 1 on; 0 is none. A slot that no row names is overwritten when the file is opened:
 * a crash between the row's end and the overwriting leaves nothing. A flash disk, or a file system that copies on write, may keep the old
 * block all the same: receipts say `durable: no`. Threads: one (the loop's).
 */
#ifndef SECPOOL_KEYMGR_WRAPS_H
#define SECPOOL_KEYMGR_WRAPS_H

#include "keymgr/directory.h"

/* A slot: the count of bytes (32 bits, little endian), the bytes, and random bytes up to its end. */
enum { WRAPS_SLOT_BYTES = 512, WRAPS_HEAD_BYTES = 4, WRAPS_BYTES_MOST = WRAPS_SLOT_BYTES - WRAPS_HEAD_BYTES };
/* The most keys at once. */
enum { WRAPS_SLOTS_MOST = 1 << 20 };

struct wraps;

/*
 * Opens the file, or makes it (mode 0600), and overwrites each slot that no region of the directory names.
 * path, directory: borrowed for the call. Errors: SECPOOL_E_STORE naming the file (can't be opened or written; it ends before a slot
 * that a region names), SECPOOL_E_NO_MEMORY.
 */
enum secpool_error wraps_open(
	const char *path, struct directory *directory, struct wraps **ret_wraps) MUST_USE;
/* NULL is allowed. */
void wraps_close(struct wraps *wraps);

/*
 * Writes a wrapped key into a free slot; it is on the disk when this returns.
 * count: 1 to WRAPS_BYTES_MOST. Errors: SECPOOL_E_INVALID (count), SECPOOL_E_LIMIT, SECPOOL_E_STORE. The slot is then free, or lost until the next opening.
 */
enum secpool_error wraps_put(
	struct wraps *wraps, const uint8_t *bytes, size_t count, uint64_t *ret_slot) MUST_USE;

/* One key of several; slot: set by wraps_put_all. */
struct wraps_key {
	const uint8_t *bytes;
	size_t count;
	uint64_t slot;
};

/* The same for several, with one wait for the disk: all or none. Errors: as wraps_put. */
enum secpool_error wraps_put_all(struct wraps *wraps, struct wraps_key *keys, size_t count) MUST_USE;

/*
 * Overwrites a slot with random bytes, on the disk when this returns, and frees it. Slot 0: nothing.
 * Errors: SECPOOL_E_INVALID (no such slot), SECPOOL_E_STORE: it may still hold the key, and is not used again before the next opening overwrites it.
 */
enum secpool_error wraps_erase(struct wraps *wraps, uint64_t slot) MUST_USE;

/* The same for several, with one wait for the disk. On error any of them may still hold its key. */
enum secpool_error wraps_erase_all(
	struct wraps *wraps, const uint64_t *slots, size_t count) MUST_USE;

#endif
