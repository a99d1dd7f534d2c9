/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The manifests of sealed regions: a file for each, <state_dir>/manifests/<region>, as its owner gave it (docs/sealed.md). Nobody believes them: who attaches checks a manifest against the root that came with the
 * key. They hold no secret. Threads: one (the loop's).
 */
#ifndef SECPOOL_KEYMGR_MANIFESTS_H
#define SECPOOL_KEYMGR_MANIFESTS_H

#include <stdbool.h>

#include "keymgr/directory.h"

struct manifests;

/* Opens the folder, or makes it (mode 0700), and removes what no sealed region of the directory (borrowed for the call) has. Errors: SECPOOL_E_STORE, SECPOOL_E_NO_MEMORY. */
enum secpool_error manifests_open(
	const char *state_dir, struct directory *directory, struct manifests **ret_manifests) MUST_USE;
/* NULL is allowed. */
void manifests_close(struct manifests *manifests);

/* Whether a descriptor is memory of exactly that size, which nobody can change any more. Errors: SECPOOL_E_INVALID. */
enum secpool_error manifests_check(int fd, uint64_t bytes) MUST_USE;

/* A copy under way, in pieces, so that nothing else waits for it. */
struct manifests_copy {
	uint64_t region, bytes, done;
	int from, to; /* owned */
};

/* Begins one; *fd is moved and left -1. Errors: SECPOOL_E_STORE; *fd is still the caller's. */
enum secpool_error manifests_begin(struct manifests *manifests, uint64_t region, uint64_t bytes, int *fd, struct manifests_copy *ret_copy) MUST_USE;
/* Copies a piece more; *ret_done: that was all of it. Errors: SECPOOL_E_STORE. */
enum secpool_error manifests_go_on(struct manifests_copy *copy, bool *ret_done) MUST_USE;
/* All of it was copied: it is on the disk, and the region's manifest, in the place of one that there was. Errors: SECPOOL_E_STORE: it may be. */
enum secpool_error manifests_keep(struct manifests *manifests, struct manifests_copy *copy) MUST_USE;
/* Closes the descriptors; one that was not kept leaves nothing. Allowed for one that is all zero but -1 descriptors. */
void manifests_end(struct manifests *manifests, struct manifests_copy *copy);

/* For reading alone. Errors: SECPOOL_E_STORE (it is missing). */
enum secpool_error manifests_get(struct manifests *manifests, uint64_t region, int *ret_fd) MUST_USE;

/* The region has ended. One that is not there: nothing. */
void manifests_remove(struct manifests *manifests, uint64_t region);

#endif
