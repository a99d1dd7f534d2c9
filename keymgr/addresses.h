/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where regions are mapped: each has a range of the window of its own, the same in every process, so that pointers
 * inside stay valid. Ranges start at ADDRESSES_ALIGN_BYTES and have a gap of that size between them, where nothing
 * is ever mapped. The free ranges are rows of the directory, found by their size; they are made anew when a policy brings another window.
 * Both functions are called within a change of the directory. Threads: one (the loop's).
 */
#ifndef SECPOOL_KEYMGR_ADDRESSES_H
#define SECPOOL_KEYMGR_ADDRESSES_H

#include "keymgr/directory.h"

/* A huge page of the processor, so that mappings can use one. */
#define ADDRESSES_ALIGN_BYTES (2ull << 20)

/*
 * Takes a range of bytes (1 or more) at the begin of the smallest gap of the window that holds it, the lowest of several; the caller makes the region's row in the same change.
 * Errors: SECPOOL_E_NO_SPACE (no gap is large enough), SECPOOL_E_INVALID (window not aligned, bytes 0), SECPOOL_E_STORE.
 */
enum secpool_error addresses_take(struct directory *directory, uint64_t window_base,
	uint64_t window_bytes, uint64_t bytes, uint64_t *ret_address) MUST_USE;

/* The range of a region whose row goes in the same change. What of it is not in the window does not matter. */
enum secpool_error addresses_give(
	struct directory *directory, uint64_t address, uint64_t bytes) MUST_USE;

#endif
