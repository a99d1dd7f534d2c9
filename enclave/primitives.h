/* SPDX-License-Identifier: Apache-2.0 */
/*
 * OpenSSL's algorithms as secpool uses them: each fetched once for the process, so that later use neither searches providers
 * nor opens a file (the enclave's sandbox has no open). Threads: any; what is returned lives as long as the process.
 */
#ifndef SECPOOL_ENCLAVE_PRIMITIVES_H
#define SECPOOL_ENCLAVE_PRIMITIVES_H

#include <openssl/evp.h>
#include <openssl/kdf.h>

#include "lib/base/err.h"

struct primitives {
	EVP_CIPHER *xts;  /* AES-256-XTS */
	EVP_CIPHER *gcm;  /* AES-256-GCM, for GMAC */
	EVP_CIPHER *wrap; /* AES-256-WRAP-PAD */
	EVP_CIPHER *ctr;  /* AES-256-CTR */
	EVP_MD *sha256;
	EVP_KDF *sskdf; /* one-step key derivation, SP 800-56C */
};

/* Errors: SECPOOL_E_CRYPTO naming the algorithm that OpenSSL does not have. */
enum secpool_error primitives_get(const struct primitives **ret_primitives) MUST_USE;

/* SHA-256 (FIPS 180-4). */
enum secpool_error primitives_sha256(const void *bytes, size_t count, unsigned char ret_digest[32]) MUST_USE;

/* The error of an OpenSSL call that failed; empties OpenSSL's queue. */
enum secpool_error primitives_failed(const char *what) MUST_USE;

#endif
