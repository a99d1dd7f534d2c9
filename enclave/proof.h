/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a region's owner wants of the enclave, proved: keymgrd's front passes wishes on, and has no key to make one by (pagecipher_prove is the owner's side; docs/sealed.md). Threads: any; no state.
 */
#ifndef SECPOOL_ENCLAVE_PROOF_H
#define SECPOOL_ENCLAVE_PROOF_H

#include <stdint.h>

#include "enclave/pagecipher.h"
#include "lib/base/err.h"

/* HMAC-SHA-256 (FIPS 198-1) by key (PAGECIPHER_OWNER_KEY_BYTES, secret) over wish 4 | region 8 | epoch 8 bytes, little end first, and the subject. Errors: SECPOOL_E_CRYPTO. */
enum secpool_error proof_make(const uint8_t *key, enum pagecipher_wish wish, uint64_t region, uint64_t epoch, const uint8_t subject[PAGECIPHER_SUBJECT_BYTES], uint8_t ret_proof[PAGECIPHER_PROOF_BYTES]) MUST_USE;

/* Whether a proof is the one that proof_make gives, in constant time. Errors: SECPOOL_E_DENIED (it is not), SECPOOL_E_CRYPTO. */
enum secpool_error proof_check(const uint8_t *key, enum pagecipher_wish wish, uint64_t region, uint64_t epoch, const uint8_t subject[PAGECIPHER_SUBJECT_BYTES], const uint8_t proof[PAGECIPHER_PROOF_BYTES]) MUST_USE;

#endif
