/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The heap behind secmem_new and all of OpenSSL: one jemalloc arena whose extents are secret pages. jemalloc's own bookkeeping
 * stays in ordinary memory, and no thread cache keeps a freed object. Freed memory is wiped.
 *
 * Secret pages are taken in chunks of SECHEAP_CHUNK_BYTES, because each mapping charges its whole length to RLIMIT_MEMLOCK (8 MiB for
 * users of Debian) when it is made. OpenSSL with all that the self-test touches takes one chunk (measured: 430 KiB).
 * Threads: secheap_init once, before other threads; the rest any.
 */
#ifndef SECPOOL_ENCLAVE_SECHEAP_H
#define SECPOOL_ENCLAVE_SECHEAP_H

#include <stddef.h>

#include "lib/base/err.h"

enum { SECHEAP_CHUNK_BYTES = 512 << 10 };

/*
 * Makes the arena and hands it to OpenSSL.
 * Errors: SECPOOL_E_NO_SECRET_MEMORY, SECPOOL_E_NO_LOCKED_MEMORY, SECPOOL_E_NO_MEMORY, SECPOOL_E_CRYPTO (OpenSSL allocated before).
 */
enum secpool_error secheap_init(void) MUST_USE;

/* Zeroed; NULL before secheap_init or when there is no more. */
void *secheap_new(size_t bytes) MUST_USE;

/* Wipes the whole object. NULL is allowed. */
void secheap_free(void *memory);

/* What the heap has taken from RLIMIT_MEMLOCK so far, in bytes. */
size_t secheap_locked_bytes(void);

#endif
