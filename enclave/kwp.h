/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AES-256 key wrap with padding as it stands in RFC 5649 (section 4.1 wraps, 4.2 unwraps) and NIST SP 800-38F (KWP, section 6.3, algorithms 5 and 6): bytes in, bytes out. wrap.h adds what a key is for.
 * Threads: any; no state.
 */
#ifndef SECPOOL_ENCLAVE_KWP_H
#define SECPOOL_ENCLAVE_KWP_H

#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

/* The key; what wrapping adds at most (8 bytes, and up to 7 of padding: RFC 5649 section 4.1); the longest plaintext that is wrapped here, far below the 2^32 - 1 of SP 800-38F 5.3.1. Bytes. */
enum { KWP_KEY_BYTES = 32, KWP_ADDED_BYTES_MOST = 15, KWP_PLAIN_BYTES_MOST = 512 };

/* plain: 1 to KWP_PLAIN_BYTES_MOST bytes, secret. wrapped has bytes + KWP_ADDED_BYTES_MOST. Errors: SECPOOL_E_INVALID, SECPOOL_E_CRYPTO. */
enum secpool_error kwp_seal(const uint8_t key[KWP_KEY_BYTES], const void *plain, size_t bytes, uint8_t *wrapped, size_t *ret_bytes) MUST_USE;

/* plain has as many bytes as wrapped, in secret memory; wiped on error. Errors: SECPOOL_E_KEY_GONE (not wrapped with this key), SECPOOL_E_CRYPTO. */
enum secpool_error kwp_open(const uint8_t key[KWP_KEY_BYTES], const uint8_t *wrapped, size_t bytes, void *plain, size_t *ret_bytes) MUST_USE;

#endif
