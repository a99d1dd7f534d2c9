/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the enclave keeps in the state folder, and how it comes back at start: the key tree under its sealed root (anchor.h), the TPM's attestation key
 * (host.ak, and anchor.pem for people), and the key that signs receipts (signer.wrapped, under the tree's service node). docs/keys.md.
 *
 * A root key is made only where there is nothing that an earlier one could have protected. Runs before the sandbox.
 * Threads: one.
 */
#ifndef SECPOOL_ENCLAVE_HOSTKEYS_H
#define SECPOOL_ENCLAVE_HOSTKEYS_H

#include <stdbool.h>
#include <stdint.h>

#include "enclave/anchor.h"
#include "enclave/receipt.h"
#include "enclave/tpm.h"
#include "lib/base/err.h"

enum { HOSTKEYS_TPM_TEXT_BYTES = 128 };

struct hostkeys {
	struct anchor anchor; /* its TPM stays open */
	struct receipt_signer signer;
	bool signer_ready;
	bool provisioned; /* the root key was made now */
	char tpm[HOSTKEYS_TPM_TEXT_BYTES]; /* tpm_describe */
};

/*
 * Opens the TPM, opens or makes the key tree (all zero before), loads or makes the rest. A store that was just recovered to this TPM gets a new attestation key, and is taken. options->may_provision is of the caller's own files: what is in the
 * state folder counts too.
 * Errors: those of anchor_start; SECPOOL_E_STORE (a file is damaged), SECPOOL_E_TPM, SECPOOL_E_NO_LOCKED_MEMORY,
 * SECPOOL_E_CRYPTO, SECPOOL_E_SYSTEM. *ret_keys is then untouched; a store that was made in this call may stay on disk, and opens at the next start.
 */
enum secpool_error hostkeys_open(const struct anchor_options *options, struct keytree *tree, struct hostkeys *ret_keys) MUST_USE;

/* Wipes; allowed on one that is all zero. */
void hostkeys_done(struct hostkeys *keys);

#endif
