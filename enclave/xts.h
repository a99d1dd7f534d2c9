/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AES-256-XTS (IEEE 1619-2018 section 5, NIST SP 800-38E) of whole data units with any 16-byte tweak: one prepared key schedule for each direction, so
 * that a data unit costs no allocation and no key expansion.
 * Threads: one at a time for each struct xts.
 */
#ifndef SECPOOL_ENCLAVE_XTS_H
#define SECPOOL_ENCLAVE_XTS_H

#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

/* Bytes of the key (two halves of 32) and the tweak. */
enum { XTS_KEY_BYTES = 64, XTS_TWEAK_BYTES = 16 };
/* IEEE 1619-2018 5.1 and NIST SP 800-38E: at least one block, at most 2^20 blocks in a data unit. Bytes. */
enum { XTS_UNIT_BYTES_LEAST = 16, XTS_UNIT_BYTES_MOST = 16 << 20 };

struct xts {
	void *seal, *open; /* EVP_CIPHER_CTX, secret memory */
};

/*
 * key: XTS_KEY_BYTES, secret, copied into the schedules.
 * Errors: SECPOOL_E_CRYPTO, also when the key's halves are equal (FIPS 140-2 IG A.9, 140-3 IG C.I).
 */
enum secpool_error xts_init(struct xts *xts, const uint8_t *key) MUST_USE;
void xts_done(struct xts *xts);

/* from and to: bytes each, the same or not overlapping. Errors: SECPOOL_E_INVALID (length), SECPOOL_E_CRYPTO; to then holds nothing of use. */
enum secpool_error xts_seal(struct xts *xts, const uint8_t tweak[XTS_TWEAK_BYTES], const void *from, void *to, size_t bytes) MUST_USE;
enum secpool_error xts_open(struct xts *xts, const uint8_t tweak[XTS_TWEAK_BYTES], const void *from, void *to, size_t bytes) MUST_USE;

#endif
