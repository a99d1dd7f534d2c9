/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where regions are mapped: each has a range of the window of its own, the same in every process, so that pointers
 * inside stay valid. Ranges start at ADDRESSES_ALIGN_BYTES and have a gap of that size between them, where nothing
 * is ever mapped. A range is taken by the region's row and free again when the row is gone.
 * Threads: one (the loop's).
 */
#ifndef SECPOOL_KEYMGR_ADDRESSES_H
#define SECPOOL_KEYMGR_ADDRESSES_H

#include "keymgr/directory.h"

/* A huge page of the processor, so that mappings can use one. */
#define ADDRESSES_ALIGN_BYTES (2ull << 20)

/*
 * The lowest address in the window where bytes (1 or more) fit between what the regions table holds.
 * Errors: SECPOOL_E_NO_SPACE (the window is full), SECPOOL_E_INVALID (window not aligned, bytes 0), SECPOOL_E_STORE.
 */
enum secpool_error addresses_find(struct directory *directory, uint64_t window_base,
	uint64_t window_bytes, uint64_t bytes, uint64_t *ret_address) MUST_USE;

#endif
