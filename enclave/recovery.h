/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The recovery key: a P-256 private key that is drawn by the enclave, printed once, and kept by the operator alone. The store has its public half, so each generation's root can be encrypted to it without the key being there;
 * who has a memory image of the enclave has no way to older roots by it.
 *
 * Encryption is one-pass ECDH with a key pair of its own for each (NIST SP 800-56A rev. 3, section 6.2.2.2, C(1e, 1s, ECC CDH)), one-step key derivation with SHA-256 (SP 800-56C rev. 2, section 4), and AES-256 key wrap with
 * padding (kwp.h). It says nothing of who encrypted: the operator compares what was opened with what others hold (docs/keys.md).
 * Threads: any; no state.
 */
#ifndef SECPOOL_ENCLAVE_RECOVERY_H
#define SECPOOL_ENCLAVE_RECOVERY_H

#include <stddef.h>
#include <stdint.h>

#include "enclave/ecdsa.h"
#include "enclave/kwp.h"
#include "lib/base/err.h"

enum {
	RECOVERY_KEY_BYTES = ECDSA_PRIVATE_BYTES,   /* secret */
	RECOVERY_PUBLIC_BYTES = ECDSA_SPKI_BYTES,
	RECOVERY_PLAIN_BYTES_MOST = 128,
	RECOVERY_BLOB_BYTES_MOST = RECOVERY_PUBLIC_BYTES + RECOVERY_PLAIN_BYTES_MOST + KWP_ADDED_BYTES_MOST,
	RECOVERY_TEXT_BYTES = 76, /* "SPR1", 14 groups of 4 with a '-' before each, a NUL, and room */
	RECOVERY_TYPED_BYTES_MOST = 512, /* what is read of it: blanks may be in it */
};

/* Draws a key. key: secret memory. Errors: SECPOOL_E_CRYPTO. */
enum secpool_error recovery_make(uint8_t key[RECOVERY_KEY_BYTES], uint8_t ret_public[RECOVERY_PUBLIC_BYTES]) MUST_USE;

/* The key as text, NUL-terminated: base32 (RFC 4648, section 6) of the key and 3 bytes of its SHA-256. text: RECOVERY_TEXT_BYTES, secret memory. Errors: SECPOOL_E_CRYPTO, SECPOOL_E_NO_LOCKED_MEMORY. */
enum secpool_error recovery_print(const uint8_t key[RECOVERY_KEY_BYTES], char *text) MUST_USE;

/*
 * The key in a text as somebody typed it: blanks, line ends and dashes anywhere, capitals or not. text: bytes of it, secret. key: secret memory; wiped on error.
 * Errors: SECPOOL_E_INVALID (no recovery key, or mistyped), SECPOOL_E_CRYPTO, SECPOOL_E_NO_LOCKED_MEMORY.
 */
enum secpool_error recovery_read(const char *text, size_t bytes, uint8_t key[RECOVERY_KEY_BYTES]) MUST_USE;

/* Encrypts 1 to RECOVERY_PLAIN_BYTES_MOST bytes (secret memory) to a public key. blob: RECOVERY_BLOB_BYTES_MOST. Errors: SECPOOL_E_INTEGRITY (no public key), SECPOOL_E_INVALID, SECPOOL_E_CRYPTO, SECPOOL_E_NO_LOCKED_MEMORY. */
enum secpool_error recovery_seal(const uint8_t public[RECOVERY_PUBLIC_BYTES], const void *plain, size_t bytes, uint8_t *blob, size_t *ret_blob_bytes) MUST_USE;

/* Decrypts exactly plain_bytes into secret memory; untouched on error. Errors: SECPOOL_E_KEY_GONE (another key, or changed), SECPOOL_E_CRYPTO, SECPOOL_E_NO_LOCKED_MEMORY. */
enum secpool_error recovery_open(const uint8_t key[RECOVERY_KEY_BYTES], const uint8_t *blob, size_t blob_bytes, void *ret_plain, size_t plain_bytes) MUST_USE;

#endif
