/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The manifest of a sealed region (docs/sealed.md): a head that says which region it is, and for each page its version, which copies hold it, its tag and the SHA-256 of its ciphertext. It comes from keymgrd, and is
 * believed only when its own SHA-256 is the root that came with the region's key. No secret. Threads: any; no state.
 */
#ifndef SECPOOL_MANIFEST_H
#define SECPOOL_MANIFEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "enclave/pagecipher.h"
#include "lib/base/err.h"
#include "lib/wire/msg.h"

enum { MANIFEST_DIGEST_BYTES = 32 };

/* Which region it is of; address: where its pointers are valid. */
struct manifest_head {
	char tenant[MSG_NAME_BYTES], name[MSG_NAME_BYTES];
	uint64_t region, epoch, address, bytes, page_bytes;
	uint32_t lanes;
};

struct manifest_page {
	uint64_t version; /* without PAGE_KEY_BIT; 0: it was never written, and is zeros */
	unsigned copies;  /* bit c: copy c holds it */
	uint8_t tag[PAGECIPHER_TAG_BYTES];
	uint8_t digest[MANIFEST_DIGEST_BYTES]; /* SHA-256 of its ciphertext */
};

/* Writes the head, MSG_MANIFEST_HEAD_BYTES. */
void manifest_put_head(uint8_t *manifest, const struct manifest_head *head);
/* Writes a page's entry. */
void manifest_put_page(uint8_t *manifest, uint64_t pgno, const struct manifest_page *page);

/*
 * Whether count bytes are a manifest of just this region. Its pages are looked at by manifest_get_page.
 * Errors: SECPOOL_E_INTEGRITY naming what differs.
 */
enum secpool_error manifest_check(const uint8_t *manifest, size_t count, const struct manifest_head *expect) MUST_USE;

/* A page of a manifest that manifest_check took. False: the entry makes no sense (no copy, one beyond lanes, a version that can't be, something beside version 0). */
bool manifest_get_page(const uint8_t *manifest, uint64_t pgno, uint32_t lanes, struct manifest_page *ret_page) MUST_USE;

#endif
