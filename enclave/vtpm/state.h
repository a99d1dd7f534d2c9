/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The permanent state of a software TPM on disk: DIR/state, an AES-256-GCM envelope around what
 * libtpms stores (it holds the seeds in clear), DIR/key (0600) beside it, and DIR/lock, which
 * keeps a second TPM away. The envelope finds damage, which libtpms itself does not always (a
 * flipped bit can silently give another endorsement key); it keeps the seeds from nobody who also
 * has the key file.
 *
 * A missing state is never made up silently: only `provision` makes one.
 * Threads: one at a time.
 */
#ifndef SECPOOL_ENCLAVE_VTPM_STATE_H
#define SECPOOL_ENCLAVE_VTPM_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

/*
 * Longest state that is read or written, without its envelope, in bytes (libtpms 0.9: 1.3 KB
 * fresh).
 */
enum { STATE_BYTES_MOST = 262144 };

struct state;

/*
 * Takes the lock and the key. dir: borrowed, made (0700) when provisioning. provision: a key is
 * made if neither key nor state is there, and a missing state is allowed; an existing state is
 * kept.
 * Errors: SECPOOL_E_BUSY (another TPM runs on it), SECPOOL_E_NOT_FOUND (no state and not
 * provisioning), SECPOOL_E_STORE (the key is missing, damaged or open to others, or the state is
 * damaged), SECPOOL_E_SYSTEM and the like. Only the folder and lock may be left.
 */
enum secpool_error state_open(const char *dir, bool provision, struct state **ret_state) MUST_USE;

/* Wipes the key and gives the lock back. NULL is allowed. */
void state_close(struct state *state);

/*
 * Reads, checks and decrypts the state. ret_bytes: STATE_BYTES_MOST bytes, secret; the caller
 * wipes it.
 * Errors: SECPOOL_E_NOT_FOUND (never stored, and provisioning), SECPOOL_E_STORE (damaged, or gone
 * since it was stored).
 */
enum secpool_error state_load(struct state *state, uint8_t *ret_bytes, size_t *ret_count) MUST_USE;

/*
 * Encrypts under a fresh random nonce and replaces the file durably. bytes: secret, borrowed.
 * Errors: SECPOOL_E_LIMIT, SECPOOL_E_CRYPTO, SECPOOL_E_NO_SPACE, SECPOOL_E_SYSTEM: the old state
 * stands.
 * Source: NIST SP 800-38D 8.2.2 (random nonces), 8.3 (at most 2^32 of them for a key).
 */
enum secpool_error state_store(struct state *state, const uint8_t *bytes, size_t count) MUST_USE;

#endif
