/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sealed regions (docs/sealed.md): freezing one and giving its manifest to keymgrd, and attaching one that was sealed.
 *
 * Sealing: the service freezes the region (its memory can only be read, no walk of the service's touches it), the program's thread flushes it and reads back each page for its SHA-256, and the service has it sealed.
 * A region that was attached never writes: not to its memory, not to devices, not to keymgrd.
 */
#ifndef SECPOOL_SEAL_H
#define SECPOOL_SEAL_H

#include "lib/manifest.h"
#include "lib/pool.h"

/* Checks a page's ciphertext, in private memory, against a sealed region's manifest; others have none. Errors: SECPOOL_E_INTEGRITY, SECPOOL_E_CRYPTO. Threads: workers. */
enum secpool_error seal_check_page(const struct secpool_region *region, uint64_t pgno, const uint8_t *ciphertext) MUST_USE;

/* What a call says that would change a region that is sealed, or being sealed: SECPOOL_E_DENIED. */
enum secpool_error seal_refuse_write(void) MUST_USE;

/*
 * Takes over what a manifest that was checked says of each page of a region whose placement was read: pages of which no copy can be reached are lost. Errors: SECPOOL_E_INTEGRITY, SECPOOL_E_NO_MEMORY. Threads: the service, before others know the region.
 */
enum secpool_error seal_take_pages(struct secpool_region *region, const uint8_t *manifest) MUST_USE;

/* Memory for the digests of a region's pages, zeros; for seal_free once it is the region's. Errors: SECPOOL_E_NO_MEMORY. */
enum secpool_error seal_new_digests(const struct secpool_region *region, uint8_t **ret_digests) MUST_USE;

/* Frees a region's digests, if it has any. */
void seal_free(struct secpool_region *region);

/* keymgrd says that a sealed region has ended; one that is not attached here: nothing. Threads: the service. */
void seal_ended(struct secpool *pool, uint64_t region);

#endif
