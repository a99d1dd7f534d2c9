/* SPDX-License-Identifier: Apache-2.0 */
/*
 * New generations of the key tree: what makes the destruction of keys durable (docs/keys.md, "Generations"). The enclave makes one and has the TPM count; here it is written before that, and put in its places afterwards.
 *
 * Each step is on the disk before the next: the greatest counter value that a root was ever sealed for (directory); root.next; the count; its records in nodes and wraps; root.next as root.sealed. After a crash the enclave's start
 * goes on from there (enclave/anchor.h). While one is made the loop does nothing else, so the tree and its files do not move under it.
 * Threads: one (the loop's).
 */
#ifndef SECPOOL_KEYMGR_ANCHOR_H
#define SECPOOL_KEYMGR_ANCHOR_H

#include "keymgr/daemon.h"
#include "keymgr/server.h"

/*
 * Compares the directory with the enclave's generation, and tells the enclave which leaves rows of the directory name; what is stored of others is dropped and overwritten.
 * state_dir: borrowed until anchor_free. Errors: SECPOOL_E_STORE (the directory, or the key store, was rolled back), SECPOOL_E_NO_MEMORY, SECPOOL_E_SYSTEM.
 */
enum secpool_error anchor_new(struct daemon *daemon, const char *state_dir, struct anchor **ret_anchor) MUST_USE;
/* NULL is allowed. */
void anchor_free(struct anchor *anchor);

/*
 * A number for a new root, on the disk before anything is sealed for it: so no two roots are ever sealed up to the same generation, whatever is done again after a crash. Errors: SECPOOL_E_NOT_FOUND (the directory had none yet), SECPOOL_E_STORE.
 */
enum secpool_error anchor_take_number(struct directory *directory, uint64_t *ret_last) MUST_USE;

/* A key was destroyed: there will be a new generation within the policy's anchor_after_seconds, however many follow until then. */
void anchor_wanted(struct daemon *daemon);

/* A generation now. Errors: SECPOOL_E_TPM, SECPOOL_E_STORE, SECPOOL_E_SYSTEM: the one before holds, or the daemon ends. */
enum secpool_error anchor_now(struct daemon *daemon) MUST_USE;

/* KEYSTORE_ANCHOR: one now. */
enum secpool_error anchor_handle_now(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra) MUST_USE;

#endif
