/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keys of a region: one, and two while it is rotated. Each page knows under which of the two it was last written: the top bit of its version (PAGE_KEY_BIT) says so. All that is
 * written from keyring_turn on is under the new key; when no page is under the old one any more (rotate.h), it is wiped.
 *
 * Versions go on rising from one key to the next, though a new key would let them begin anew; so a page in its old state is told by its version as well. Only a number beyond
 * KEYRING_RISES_TO begins at 1 again with a new key: with what one key may seal it stays within its bits for ever.
 *
 * Threads: workers that are inside (worker.h) use it; the service turns and retires, with workers_await between.
 */
#ifndef SECPOOL_KEYRING_H
#define SECPOOL_KEYRING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "enclave/pagecipher.h"
#include "lib/page.h"

/* A page's number of writings that still rises when the key changes. */
#define KEYRING_RISES_TO (1ull << 38)

_Static_assert(KEYRING_RISES_TO + PAGECIPHER_BLOCKS_HARD / (PAGECIPHER_PAGE_BYTES_LEAST / 16) < PAGE_KEY_BIT, "what one key may seal fits behind it");

struct keyring {
	struct pagecipher *ciphers[2]; /* by the versions' PAGE_KEY_BIT; NULL: wiped, or not there yet */
	_Atomic unsigned current;      /* under which pages are written */
};

/* Puts the region's first key in; *cipher is moved and left NULL. */
void keyring_init(struct keyring *ring, struct pagecipher **cipher);

/* Wipes what is there. A ring of zeros is allowed. */
void keyring_done(struct keyring *ring);

/*
 * The version under which a page is written next whose last one is `version`. It is used for one sealing, or for none.
 */
uint64_t keyring_next(const struct keyring *ring, uint64_t version);

/* Whether that version was written under the key that is going. */
bool keyring_is_old(const struct keyring *ring, uint64_t version);

/* Whether there is a key that is going. Threads: the service. */
bool keyring_is_turning(const struct keyring *ring);

/* As pagecipher_seal, _open, _open_exposed, _open_live and _check, for a page of data: under the version's key. Errors: also SECPOOL_E_LIMIT for a version that keyring_next could not make. */
enum secpool_error keyring_seal(struct keyring *ring, unsigned worker, uint64_t pgno, uint64_t version, const void *plain, void *ciphertext,
	uint8_t tag[PAGECIPHER_TAG_BYTES]) MUST_USE;
enum secpool_error keyring_open(struct keyring *ring, unsigned worker, uint64_t pgno, uint64_t version, const void *ciphertext,
	const uint8_t tag[PAGECIPHER_TAG_BYTES], void *plain) MUST_USE;
enum secpool_error keyring_open_exposed(struct keyring *ring, unsigned worker, uint64_t pgno, uint64_t version, const void *ciphertext,
	const uint8_t tag[PAGECIPHER_TAG_BYTES], void *plain) MUST_USE;
enum secpool_error keyring_open_live(struct keyring *ring, unsigned worker, uint64_t pgno, uint64_t version, const void *ciphertext,
	const uint8_t tag[PAGECIPHER_TAG_BYTES], bool exposed, void *kept, void *plain) MUST_USE;
enum secpool_error keyring_check(struct keyring *ring, unsigned worker, uint64_t pgno, uint64_t version, const void *ciphertext,
	const uint8_t tag[PAGECIPHER_TAG_BYTES]) MUST_USE;

/*
 * From now on pages are written under this key; *cipher is moved and left NULL. None is going already. Stays (worker.h) that began before may still write under the old one: workers_await.
 */
void keyring_turn(struct keyring *ring, struct pagecipher **cipher);

/* Wipes the key that is going. No page is under it, and every stay that may have read one that was has ended. */
void keyring_retire(struct keyring *ring);

/* The key under which pages are written now; borrowed. */
const struct pagecipher *keyring_current(const struct keyring *ring);

/* Blocks of 16 bytes that were sealed under the current key, as pagecipher_blocks. */
uint64_t keyring_blocks(const struct keyring *ring);

#endif
