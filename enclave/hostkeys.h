/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the enclave keeps in the state folder, and how it comes back at start: the root key sealed to the host's TPM (root.sealed), the TPM's attestation key
 * (host.ak, and anchor.pem for people), and the key that signs receipts (signer.wrapped, under the root key). docs/keys.md.
 *
 * A root key is made only where there is nothing that an earlier one could have protected. Runs before the sandbox.
 * Threads: one.
 */
#ifndef SECPOOL_ENCLAVE_HOSTKEYS_H
#define SECPOOL_ENCLAVE_HOSTKEYS_H

#include <stdbool.h>
#include <stdint.h>

#include "enclave/receipt.h"
#include "enclave/tpm.h"
#include "lib/base/err.h"

enum { HOSTKEYS_TPM_TEXT_BYTES = 128 };

struct hostkeys {
	uint8_t *root; /* secret, WRAP_KEY_BYTES, from secmem_new */
	struct receipt_signer signer;
	bool signer_ready;
	bool provisioned; /* the root key was made now */
	char tpm[HOSTKEYS_TPM_TEXT_BYTES]; /* tpm_describe */
};

/*
 * Opens the TPM at `where`, unseals or makes the root key, loads or makes the rest, and closes the TPM. pcrs: SHA-256 PCRs a new root key is sealed to.
 * store_exists: the front's directory exists.
 * Errors: SECPOOL_E_STORE (root.sealed is missing though something was protected by it, or a file is damaged), SECPOOL_E_TPM, SECPOOL_E_NO_LOCKED_MEMORY,
 * SECPOOL_E_CRYPTO, SECPOOL_E_SYSTEM. *ret_keys is then untouched; a root key that was sealed in this call may stay on disk, and opens at the next start.
 */
enum secpool_error hostkeys_open(const char *where, const char *state_dir, uint32_t pcrs, bool store_exists, struct hostkeys *ret_keys) MUST_USE;

/* Wipes; allowed on one that is all zero. */
void hostkeys_done(struct hostkeys *keys);

#endif
