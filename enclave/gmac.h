/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GMAC with AES-256 (NIST SP 800-38D sections 6.4 and 7): the tag of GCM over data that is authenticated only, with one prepared key schedule.
 *
 * A nonce may be used with one message at most for each key: a second message gives the hash key away. Threads: one at a time for each struct gmac.
 */
#ifndef SECPOOL_ENCLAVE_GMAC_H
#define SECPOOL_ENCLAVE_GMAC_H

#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

/* Bytes. A nonce of 96 bits is used as it is (NIST SP 800-38D 8.2.1). */
enum { GMAC_KEY_BYTES = 32, GMAC_NONCE_BYTES = 12, GMAC_TAG_BYTES = 16 };

struct gmac {
	void *context; /* EVP_CIPHER_CTX, secret memory */
};

/* key: GMAC_KEY_BYTES, secret, copied into the schedule. Errors: SECPOOL_E_CRYPTO. */
enum secpool_error gmac_init(struct gmac *gmac, const uint8_t *key) MUST_USE;
void gmac_done(struct gmac *gmac);

/* The tag of data. Errors: SECPOOL_E_INVALID (over 1 GiB), SECPOOL_E_CRYPTO; the tag is not written. */
enum secpool_error gmac_tag(struct gmac *gmac, const uint8_t nonce[GMAC_NONCE_BYTES], const void *data, size_t bytes, uint8_t ret_tag[GMAC_TAG_BYTES]) MUST_USE;

/* Compares in constant time. Errors: SECPOOL_E_INTEGRITY, and those of gmac_tag. */
enum secpool_error gmac_check(struct gmac *gmac, const uint8_t nonce[GMAC_NONCE_BYTES], const void *data, size_t bytes, const uint8_t tag[GMAC_TAG_BYTES]) MUST_USE;

#endif
