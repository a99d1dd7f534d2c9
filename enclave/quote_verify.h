/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Verification of a TPM's evidence with OpenSSL alone; no TPM is asked. All input is from outside and may be anything.
 *
 * In secpool this code runs in the verifier process, which holds no keys (verifier.h); the command links it to check receipts.
 * Threads: any; no state.
 */
#ifndef SECPOOL_ENCLAVE_QUOTE_VERIFY_H
#define SECPOOL_ENCLAVE_QUOTE_VERIFY_H

#include <stddef.h>
#include <stdint.h>

#include "enclave/tpm.h"
#include "lib/base/err.h"

enum { QUOTE_NAME_BYTES = 34, QUOTE_NONCE_BYTES = 32, QUOTE_SECRET_BYTES = 32 };

/* What a good quote says. */
struct quote_facts {
	uint32_t reset_count, restart_count;
	uint64_t clock_ms;
	uint8_t pcr_digest[32];
};

/* The TPM name of a marshalled TPM2B_PUBLIC with SHA-256 as name algorithm (TPM 2.0 part 1, section 16). Errors: SECPOOL_E_ATTESTATION. */
enum secpool_error quote_public_name(const uint8_t *area, size_t bytes, uint8_t ret_name[QUOTE_NAME_BYTES]) MUST_USE;

/*
 * Makes a credential that only the TPM holding this EK opens, and only for this AK (TPM2_MakeCredential in software, TPM 2.0 part 1 section 24, KDFe/KDFa part 1 section 11.4).
 * Checks that the AK is fixedTPM, fixedParent, restricted, signing, sensitiveDataOrigin. credential and encrypted_secret have TPM_PUBLIC_BYTES bytes.
 * Errors: SECPOOL_E_ATTESTATION (with the reason).
 */
enum secpool_error quote_make_credential(const uint8_t *ek, size_t ek_bytes, const uint8_t *ak, size_t ak_bytes, const uint8_t secret[QUOTE_SECRET_BYTES], uint8_t *credential,
	size_t *ret_credential_bytes, uint8_t *encrypted_secret, size_t *ret_encrypted_secret_bytes) MUST_USE;

/*
 * Checks signature, magic and type, nonce, the exact PCR selection, that pcr_values hash to the digest in the quote, and that the qualified signer is this AK under this EK.
 * pcr_values: one TPM_PCR_BYTES value for each bit of pcrs, lowest first.
 * Errors: SECPOOL_E_ATTESTATION, each with its own reason.
 */
enum secpool_error quote_verify(const uint8_t *ek, size_t ek_bytes, const uint8_t *ak, size_t ak_bytes, const uint8_t *attest, size_t attest_bytes, const uint8_t *signature, size_t signature_bytes,
	const uint8_t *nonce, size_t nonce_bytes, uint32_t pcrs, const uint8_t *pcr_values, size_t pcr_count, struct quote_facts *ret_facts) MUST_USE;

/* PEM of a marshalled TPM2B_PUBLIC (ECC P-256), for people and files. text has 512 bytes. */
enum secpool_error quote_public_pem(const uint8_t *area, size_t bytes, char *text, size_t text_bytes) MUST_USE;

#endif
