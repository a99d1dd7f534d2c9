/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ECDSA P-256 with SHA-256 (FIPS 186-5 sections 6.4.1 and 6.4.2) on raw keys: a private key is its 32-byte scalar, a public key its SubjectPublicKeyInfo in
 * DER, of which P-256 has exactly one form (RFC 5480), so that nothing here parses ASN.1 from outside.
 * Threads: any; a key is not changed by use.
 */
#ifndef SECPOOL_ENCLAVE_ECDSA_H
#define SECPOOL_ENCLAVE_ECDSA_H

#include <openssl/evp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

/* Scalar, SubjectPublicKeyInfo, and the longest signature in DER. Bytes. */
enum { ECDSA_PRIVATE_BYTES = 32, ECDSA_SPKI_BYTES = 91, ECDSA_SIGNATURE_BYTES_MOST = 72 };

/* scalar: secret. Errors: SECPOOL_E_CRYPTO, also for a scalar that is 0 or not below the order (FIPS 186-5 A.2): draw another. */
enum secpool_error ecdsa_private(const uint8_t scalar[ECDSA_PRIVATE_BYTES], EVP_PKEY **ret_key) MUST_USE;

/* Errors: SECPOOL_E_INTEGRITY (not a P-256 key, or not on the curve). */
enum secpool_error ecdsa_public(const uint8_t *spki, size_t bytes, EVP_PKEY **ret_key) MUST_USE;

/* The public half of any P-256 key. Errors: SECPOOL_E_CRYPTO. */
enum secpool_error ecdsa_spki(const EVP_PKEY *key, uint8_t ret_spki[ECDSA_SPKI_BYTES]) MUST_USE;

/* Signs the SHA-256 of message. Errors: SECPOOL_E_CRYPTO. */
enum secpool_error ecdsa_sign(EVP_PKEY *key, const void *message, size_t bytes, uint8_t ret_signature[ECDSA_SIGNATURE_BYTES_MOST], size_t *ret_bytes) MUST_USE;

/* Errors: SECPOOL_E_INTEGRITY. */
enum secpool_error ecdsa_verify(EVP_PKEY *key, const void *message, size_t bytes, const uint8_t *signature, size_t signature_bytes) MUST_USE;

#endif
