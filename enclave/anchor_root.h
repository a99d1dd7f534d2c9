/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A root in its two wrappings: sealed to the TPM, and encrypted to the recovery key's public half. For anchor.c and recover.c.
 * Threads: one at a time for each anchor.
 */
#ifndef SECPOOL_ENCLAVE_ANCHOR_ROOT_H
#define SECPOOL_ENCLAVE_ANCHOR_ROOT_H

#include "enclave/anchor.h"
#include "enclave/keyfile.h"

/*
 * Begins a root file (keyfile.h) for root (WRAP_KEY_BYTES, secret), which opens at the generations from first to last, with all that the anchor has. Errors: SECPOOL_E_LIMIT (`asserted` is 2^56 or more), SECPOOL_E_TPM, SECPOOL_E_CRYPTO, SECPOOL_E_NO_LOCKED_MEMORY.
 */
enum secpool_error anchor_root_seal(struct anchor *anchor, const uint8_t *root, uint64_t first, uint64_t last, struct buf_writer *writer) MUST_USE;

/* What was sealed, into the anchor, and *ret_root, new secret memory. Errors: SECPOOL_E_TPM with its reason, SECPOOL_E_STORE (what is for the recovery key was changed), SECPOOL_E_NO_LOCKED_MEMORY. */
enum secpool_error anchor_root_unseal(struct anchor *anchor, const struct keyfile_root *file, uint8_t **ret_root) MUST_USE;

/*
 * The same by a recovery key (RECOVERY_KEY_BYTES, secret) and without a TPM: root, generation and the audit's head and length; base and the counter are those of the TPM that is gone, and are not given.
 * Errors: SECPOOL_E_KEY_GONE (another key; there is none for this store), SECPOOL_E_CRYPTO, SECPOOL_E_NO_LOCKED_MEMORY.
 */
enum secpool_error anchor_root_recover(struct anchor *anchor, const struct keyfile_root *file, const uint8_t *key, uint8_t **ret_root) MUST_USE;

/*
 * A new recovery key: its public half goes into the anchor, and it is written to fd as a line of text and to nowhere else. Errors: SECPOOL_E_POLICY (fd is not positive: nobody would see it), SECPOOL_E_SYSTEM (it can't be written), SECPOOL_E_CRYPTO ...
 */
enum secpool_error anchor_root_new_key(struct anchor *anchor, int fd) MUST_USE;

#endif
