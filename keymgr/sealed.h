/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the directory knows of sealed regions (docs/sealed.md): the root of their manifest, and who may attach them. A sealed region is no process's: its row has process 0. All of it is a hint
 * for the front: what counts is in the enclave's wrapped leaves. Threads: one (the loop's).
 */
#ifndef SECPOOL_KEYMGR_SEALED_H
#define SECPOOL_KEYMGR_SEALED_H

#include "keymgr/regions.h"

enum { SEALED_ROOT_BYTES = 32, SEALED_GRANTS_MOST = 64 };

/*
 * The live region is sealed, under that name and with the leaf in the slot `wrap`. Errors: SECPOOL_E_EXISTS (its tenant has a sealed region of that name), SECPOOL_E_BUSY (it is not live, or gets a
 * new key), SECPOOL_E_STORE. Nothing is changed then.
 */
enum secpool_error sealed_set(struct directory *directory, uint64_t region, const char *name,
	const uint8_t root[SEALED_ROOT_BYTES], uint64_t wrap) MUST_USE;

/* The tenant's sealed region of that name. Errors: SECPOOL_E_NOT_FOUND, SECPOOL_E_STORE. */
enum secpool_error sealed_find(struct directory *directory, const char *tenant, const char *name,
	struct regions_row *ret_row) MUST_USE;

/* Errors: SECPOOL_E_NOT_FOUND (it was never sealed), SECPOOL_E_STORE. */
enum secpool_error sealed_root(struct directory *directory, uint64_t region,
	uint8_t ret_root[SEALED_ROOT_BYTES]) MUST_USE;

/* The tenant may attach the region; its leaf is in the slot `wrap`. Errors: SECPOOL_E_EXISTS, SECPOOL_E_STORE. */
enum secpool_error sealed_grant(
	struct directory *directory, uint64_t region, const char *tenant, uint64_t wrap) MUST_USE;
/* The slot of the tenant's leaf. Errors: SECPOOL_E_NOT_FOUND, SECPOOL_E_STORE. */
enum secpool_error sealed_granted(struct directory *directory, uint64_t region, const char *tenant,
	uint64_t *ret_wrap) MUST_USE;
enum secpool_error sealed_ungrant(
	struct directory *directory, uint64_t region, const char *tenant) MUST_USE;

/* The slots of all grants of a region; there are at most SEALED_GRANTS_MOST. */
enum secpool_error sealed_grants(struct directory *directory, uint64_t region,
	uint64_t ret_slots[SEALED_GRANTS_MOST], size_t *ret_count) MUST_USE;

#endif
