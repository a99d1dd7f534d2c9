/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Moving a store whose TPM is gone to the TPM of now, by its recovery key. Before the normal start, and before the sandbox.
 *
 * All is looked at first: the key opens the root, the root opens the tree, the signing key opens under the tree, the audit is whole, and generation and audit are those that the operator has from elsewhere: nothing here can prove
 * that the store is the newest. Then a counter is made, every key of the tree but the service node's is drawn anew, a new recovery key is shown, and all of it is written as root.next: that is the moment from which on the
 * store is this TPM's. The next start finds it and goes on (anchor.h, `taking`).
 * Threads: one.
 */
#ifndef SECPOOL_ENCLAVE_RECOVER_H
#define SECPOOL_ENCLAVE_RECOVER_H

#include "enclave/anchor.h"
#include "enclave/audit.h"

struct recover_claim {
	int key_fd;          /* the recovery key's text, to its end */
	uint64_t generation; /* that the operator knows the store to be of */
	uint8_t audit_head[AUDIT_DIGEST_BYTES]; /* SHA-256 of the audit's last record, as the operator knows it */
	uint64_t next;       /* the new generation: above every one that was ever sealed for this store */
};

/*
 * tree: all zero, and so again afterwards. options->recovery: a new recovery key is made, else there is none from now on.
 * Errors: SECPOOL_E_DENIED (wrong recovery key; the claim does not fit: it says what is there), SECPOOL_E_INVALID (no recovery key in what was typed), SECPOOL_E_STORE (missing, damaged; rolled back; recovered already), SECPOOL_E_TPM,
 * SECPOOL_E_POLICY (nowhere to show the new key), SECPOOL_E_NO_LOCKED_MEMORY ... The store is as it was before; where the disk failed at the end, a root.next that the TPM of before was counting for may have become its root.
 */
enum secpool_error recover_run(const struct anchor_options *options, const struct recover_claim *claim, struct keytree *tree) MUST_USE;

#endif
