/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The page cipher alone, over a buffer of pages, under fresh keys: what the library's ways are compared with. It uses the engine that the process
 * uses (after secpool_open: the fastest). Threads: one.
 */
#ifndef SECPOOL_TESTS_CRYPT_H
#define SECPOOL_TESTS_CRYPT_H

#include <stddef.h>
#include <stdint.h>

#include "enclave/pagecipher.h"

/* Larger than the second-level cache. */
enum { CRYPT_BYTES = 8 << 20 };

struct crypt {
	size_t page_bytes;
	struct pagecipher *cipher;
	uint8_t *plain, *sealed;
	uint8_t (*tags)[PAGECIPHER_TAG_BYTES];
	uint64_t version;
};

/* Errors: SECPOOL_E_NO_LOCKED_MEMORY, SECPOOL_E_NO_MEMORY, SECPOOL_E_CRYPTO. */
enum secpool_error crypt_open(struct crypt *crypt, size_t page_bytes) MUST_USE;
void crypt_close(struct crypt *crypt);

/* Seals, or opens again, all of CRYPT_BYTES; the time in seconds. Errors: the page cipher's. */
enum secpool_error crypt_seal(struct crypt *crypt, double *ret_seconds) MUST_USE;
enum secpool_error crypt_unseal(struct crypt *crypt, double *ret_seconds) MUST_USE;

/* Copies all of it, page after page. */
void crypt_copy(struct crypt *crypt, double *ret_seconds);

#endif
