/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The page of secret memory in which a region's keys travel from the enclave to a client: a magic number, the binding (region, epoch, page size), the
 * protection, the XTS key with distinct halves, the tag key, which implementation may be used, the owner's key and the owned root of a sealed region. Written once by the enclave before it is sent, never changed after.
 * Only enclave/ code reads or writes it. Threads: any.
 */
#ifndef SECPOOL_ENCLAVE_KEYPAGE_H
#define SECPOOL_ENCLAVE_KEYPAGE_H

#include <stdint.h>

#include "enclave/pagecipher.h"
#include "lib/base/err.h"

enum { KEYPAGE_BYTES = 4096 };

/* Raw key bytes of one region and epoch. Lives only in secret memory. */
struct region_keys {
	uint8_t xts[PAGECIPHER_XTS_KEY_BYTES]; /* secret */
	uint8_t tag[PAGECIPHER_TAG_KEY_BYTES]; /* secret */
	uint8_t owner[PAGECIPHER_OWNER_KEY_BYTES]; /* secret; zeros in what a grantee gets: proves what the region's owner wants of the enclave */
	uint8_t root[PAGECIPHER_ROOT_BYTES];   /* of a sealed region: pagecipher_owned_root; else zeros */
};

/* Which implementation of the page cipher the policy lets the client use (`cipher`). */
enum keypage_engine { KEYPAGE_ANY = 0, KEYPAGE_OPENSSL = 1 };

/* Fills in a page of secret memory. */
void keypage_put(void *page, const struct pagecipher_binding *binding, uint32_t protection, enum keypage_engine engine, const struct region_keys *keys);

/* Checks magic and binding and copies the keys out (to secret memory). Errors: SECPOOL_E_KEY_GONE. */
enum secpool_error keypage_get(const void *page, const struct pagecipher_binding *expect, struct region_keys *ret_keys) MUST_USE;

/* Of a page that keypage_get took. */
enum keypage_engine keypage_engine(const void *page) MUST_USE;

#endif
