/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keyed pseudorandom stream that scrub writes over released space and compares on read-back. Seekable, so that read-back needs no copy. It must be
 * made as fast as memory is written, which is faster than AES (7 GB/s by OpenSSL): a base of 256 KiB is made once by AES-256-CTR (NIST SP 800-38A) under a random key
 * that is thrown away afterwards, and each piece of 16 KiB of the stream is a slice of the base XOR a mask of 64 bytes, by AES at the piece's place, that is
 * repeated over it.
 *
 * What that gives: a device that was not told the base and masks can't predict a byte, and no two pieces are the same, so one that lost, kept or mixed up what was
 * stored is found out. What it does not give: the strength of a fresh stream for each byte. There are 256 KiB and 64 bytes a piece of randomness in it: a device
 * that knows this construction and keeps those (1/256 of what was stored, and the base) could answer the read-back and keep old contents elsewhere. A fresh stream
 * would not show either that nothing was kept elsewhere; no receipt says that a device was erased.
 *
 * Threads: one at a time for each stream.
 */
#ifndef SECPOOL_ENCLAVE_PRSTREAM_H
#define SECPOOL_ENCLAVE_PRSTREAM_H

#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

struct prstream;

enum {
	PRSTREAM_PIECE_BYTES = 16 << 10,
	PRSTREAM_BASE_BYTES = 256 << 10, /* pieces that are a multiple of it apart have the same slice of the base */
	PRSTREAM_MASK_BYTES = 64,
	PRSTREAM_SPAN_BYTES = 16 << 20, /* what masks are made for at a time */
};

/* A stream under a fresh random key. */
enum secpool_error prstream_new(struct prstream **ret_stream) MUST_USE;
void prstream_free(struct prstream *stream);

/* The stream's bytes from position on. */
enum secpool_error prstream_bytes(struct prstream *stream, uint64_t position, void *to, size_t count) MUST_USE;

/* What a piece is made of: byte i of it is slice[i] ^ mask[i % PRSTREAM_MASK_BYTES]. */
struct prstream_piece {
	const uint8_t *slice, *mask;
};

/*
 * The piece in which position is, for who compares in place. It is valid while no position of another span (a multiple of PRSTREAM_SPAN_BYTES and as many
 * bytes) is asked for.
 */
enum secpool_error prstream_piece(struct prstream *stream, uint64_t position, struct prstream_piece *ret_piece) MUST_USE;

#endif
