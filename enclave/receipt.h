/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Receipts: a signed JSON document that says what happened to a region's key and space after its release (DESIGN.md section 6), chained by
 * the SHA-256 of the one before. Signed with ECDSA P-256 by the enclave's signing key, which the host TPM's attestation key certifies: the certificate is a quote whose
 * nonce is the SHA-256 of the signing key (SubjectPublicKeyInfo, DER). A receipt never says "device erased".
 *
 * receipt_verify works offline on untrusted bytes. Threads: any; no state.
 */
#ifndef SECPOOL_ENCLAVE_RECEIPT_H
#define SECPOOL_ENCLAVE_RECEIPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "enclave/tpm.h"
#include "lib/base/err.h"
#include "lib/wire/msg.h"

/* The enclave's signing key with its certificate. */
struct receipt_signer {
	void *key; /* EVP_PKEY, secret memory */
	struct tpm_public ek, ak;
	struct tpm_quote certificate;
	bool backup_proof; /* false: the anchor is a software TPM, whose counter a copy of its state file puts back */
};

/* What receipt_verify found, for showing. */
struct receipt_facts {
	uint64_t region, number, generation;
	uint64_t epoch; /* of the region's last key; those before were destroyed when it was rotated */
	uint64_t destroyed_ns; /* since 1970 */
	char tenant[MSG_NAME_BYTES];
	char readback[32], client[32];
	uint64_t scrubbed_bytes, unreachable_bytes;
	uint64_t bytes, copies, released_ns;
	bool durable; /* the key tree has had this generation, with the TPM of now: no older copy of the store gives the key back */
	bool backup_proof; /* and the TPM's counter can't be put back either */
	uint8_t previous[32], digest[32]; /* SHA-256 of the one before; of this one */
	char ak_fingerprint[65];          /* hex SHA-256 of the attestation key (PEM's DER) */
};

/* A new signing key, or one from wrapped bytes; the raw private key has RECEIPT_KEY_BYTES bytes, in secret memory. The signer is emptied first; ek, ak and certificate are the caller's to fill in. */
enum { RECEIPT_KEY_BYTES = 32, RECEIPT_DOCUMENT_BYTES = MSG_RECEIPT_BYTES, RECEIPT_DIGEST_BYTES = 32 };
enum secpool_error receipt_signer_init(struct receipt_signer *signer, const uint8_t private_key[RECEIPT_KEY_BYTES]) MUST_USE;
void receipt_signer_done(struct receipt_signer *signer);
/* SHA-256 of the signer's public key: what the host's quote must have as nonce. */
enum secpool_error receipt_signer_digest(const struct receipt_signer *signer, uint8_t ret_digest[32]) MUST_USE;

/* SHA-256 of a document without the line ends behind it: what the next receipt carries as `previous`. Errors: SECPOOL_E_CRYPTO. */
enum secpool_error receipt_digest(const char *text, size_t bytes, uint8_t ret_digest[RECEIPT_DIGEST_BYTES]) MUST_USE;

/* enum msg_readback and enum msg_client_end for a receipt's word; 0 for another. */
uint32_t receipt_readback_number(const char *word);
uint32_t receipt_client_number(const char *word);

/*
 * Writes the signed document, NUL-terminated, into text (RECEIPT_DOCUMENT_BYTES); *ret_bytes is without the NUL. Runs no parser. generation: the key tree's now; the destruction is durable when facts->generation is not after it.
 * asserted: that of the newest recovery to another TPM, 0: none. What ended before that is durable no more, and not backup-proof: whether the TPM of then had counted over it, or was no software, this one's counter can't say.
 * Errors: SECPOOL_E_INVALID (facts that can't be stated), SECPOOL_E_LIMIT (too long), SECPOOL_E_CRYPTO. text is then untouched.
 */
enum secpool_error receipt_sign(const struct receipt_signer *signer, const struct msg_enc_receipt *facts, uint64_t generation, uint64_t asserted, char *text, size_t *ret_bytes) MUST_USE;

/*
 * Checks signature and certificate. anchor_pem: the host's attestation key as the operator knows it (PEM); NULL: the chain ends in the
 * fingerprint that is shown. Errors: SECPOOL_E_INTEGRITY with the reason; SECPOOL_E_PROTOCOL (not a receipt).
 */
enum secpool_error receipt_verify(const char *text, size_t bytes, const char *anchor_pem, struct receipt_facts *ret_facts) MUST_USE;

#endif
