/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A TPM's public key from outside, checked: what quote_verify.c and quote_credential.c share.
 * Nobody else includes it.
 * Threads: any; no state.
 */
#ifndef SECPOOL_ENCLAVE_QUOTE_KEY_H
#define SECPOOL_ENCLAVE_QUOTE_KEY_H

#include <openssl/evp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "enclave/quote_verify.h"
#include "lib/base/err.h"

/* P-256: bytes of a coordinate. */
enum { QUOTE_COORDINATE_BYTES = 32 };

/*
 * What a key must be. EK: ECC P-256 (TCG template L-2) or RSA-2048 (L-1), decrypts, restricted, AES-128-CFB. AK: signs, restricted, ECDSA with
 * SHA-256. Both: fixedTPM, fixedParent, sensitiveDataOrigin.
 */
enum quote_key_kind { QUOTE_KEY_ANY, QUOTE_KEY_EK, QUOTE_KEY_AK };

struct quote_key {
	uint8_t name[QUOTE_NAME_BYTES];
	uint8_t x[QUOTE_COORDINATE_BYTES], y[QUOTE_COORDINATE_BYTES];
	EVP_PKEY *pkey;
	bool rsa; /* of an EK; x and y are zero then */
};

/*
 * Parses a marshalled TPM2B_PUBLIC (name algorithm SHA-256; all of the bytes, nothing
 * behind) and checks what the kind demands.
 * Errors: SECPOOL_E_ATTESTATION with the reason. Afterwards quote_key_done.
 */
enum secpool_error quote_key_init(enum quote_key_kind kind, const uint8_t *area, size_t bytes,
	struct quote_key *ret_key) MUST_USE;
void quote_key_done(struct quote_key *key);

/*
 * A P-256 public key from coordinates; the point is checked to be on the curve. NULL: it is not,
 * or no memory.
 */
EVP_PKEY *quote_key_from_point(
	const uint8_t x[QUOTE_COORDINATE_BYTES], const uint8_t y[QUOTE_COORDINATE_BYTES]) MUST_USE;

#endif
