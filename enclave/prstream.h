/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keyed pseudorandom stream that scrub writes over released space and compares on read-back: AES-256-CTR (NIST SP 800-38A) under a
 * random key that is thrown away afterwards. Seekable, so that read-back needs no copy. Threads: one at a time for each stream.
 */
#ifndef SECPOOL_ENCLAVE_PRSTREAM_H
#define SECPOOL_ENCLAVE_PRSTREAM_H

#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

struct prstream;

/* A stream under a fresh random key. */
enum secpool_error prstream_new(struct prstream **ret_stream) MUST_USE;
void prstream_free(struct prstream *stream);

/* The stream's bytes from position (a multiple of 16) on. */
enum secpool_error prstream_bytes(struct prstream *stream, uint64_t position, void *to, size_t count) MUST_USE;

#endif
