/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keyed pseudorandom stream that scrub writes over released space and compares on read-back. It must be made as fast as memory takes it, faster than AES runs: so a
 * base of 256 KiB is AES-256-CTR (NIST SP 800-38A) under a random key that is thrown away, and each piece of 16 KiB is a part of the base, XORed with 64 bytes of the same
 * key's stream that are the piece's own. Incompressible, different at every place, and nothing that a device could tell beforehand. It is weaker than a fresh stream for every
 * byte: a device made to cheat could keep the base and the pieces' 64 bytes instead, and answer the read-back from them. A receipt says that an overwrite was issued and read back, never that a device was erased.
 * Seekable, so that read-back needs no copy. Threads: one at a time for each stream.
 */
#ifndef SECPOOL_ENCLAVE_PRSTREAM_H
#define SECPOOL_ENCLAVE_PRSTREAM_H

#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

enum { PRSTREAM_LINE_BYTES = 64, PRSTREAM_PIECE_BYTES = 16 << 10 };

struct prstream;

/* A stream under a fresh random key. Errors: SECPOOL_E_NO_MEMORY, SECPOOL_E_CRYPTO. */
enum secpool_error prstream_new(struct prstream **ret_stream) MUST_USE;
void prstream_free(struct prstream *stream);

/* The stream's bytes from position (a multiple of PRSTREAM_LINE_BYTES) on. Errors: SECPOOL_E_INVALID, SECPOOL_E_CRYPTO. */
enum secpool_error prstream_bytes(struct prstream *stream, uint64_t position, void *to, size_t count) MUST_USE;

#endif
