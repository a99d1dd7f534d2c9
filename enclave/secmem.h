/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Secret memory: pages from memfd_secret(2), which no other process, no system call and no core file can read, with an
 * inaccessible guard page on either side, locked, not dumped, not inherited by fork; wiped when freed.
 *
 * secmem_init makes all of this process's OpenSSL (its contexts hold key schedules) allocate from a heap of such pages, so it must be called
 * before any other OpenSSL call. A child made by fork has none of it: OpenSSL can't be used there, so fork first. Threads: secmem_init once, before other threads; the rest any.
 */
#ifndef SECPOOL_ENCLAVE_SECMEM_H
#define SECPOOL_ENCLAVE_SECMEM_H

#include <stdbool.h>
#include <stddef.h>

#include "lib/base/err.h"

/* What to do where the kernel has no memfd_secret: refuse, or (policy: allow.memfd_without_secret) use locked, undumpable anonymous memory. */
enum secmem_fallback { SECMEM_REFUSE = 0, SECMEM_ALLOW_LOCKED = 1 };

/*
 * Sets up the heap and OpenSSL (no configuration file is read, no exit handler is left). A second call with the same choice does nothing.
 * Errors: SECPOOL_E_NO_SECRET_MEMORY, SECPOOL_E_NO_LOCKED_MEMORY, SECPOOL_E_CRYPTO (OpenSSL was in use already).
 */
enum secpool_error secmem_init(enum secmem_fallback fallback) MUST_USE;

/* Whether this process's secret memory is memfd_secret (true) or the fallback. */
bool secmem_is_secret(void);

/* Pages of their own between guard pages; zeroed. bytes is rounded up to pages. Errors: SECPOOL_E_NO_LOCKED_MEMORY, SECPOOL_E_NO_SECRET_MEMORY, SECPOOL_E_INVALID (no bytes), SECPOOL_E_INTERNAL (before secmem_init). */
enum secpool_error secmem_new_pages(size_t bytes, void **ret_pages) MUST_USE;

/* Wipes and unmaps; bytes as given to secmem_new_pages. NULL is allowed. A page of secmem_new_shared is only unmapped: its receiver reads it. */
void secmem_free_pages(void *pages, size_t bytes);

/* Small objects from the heap; zeroed; wiped on free. */
void *secmem_new(size_t bytes) MUST_USE;
void secmem_free(void *memory);

/*
 * A secret descriptor (memfd_secret, or a sealed locked memfd where the fallback is allowed) of one page, mapped writable in this process
 * for filling in. Pass the descriptor on, then secmem_free_pages the mapping and close the descriptor.
 */
enum secpool_error secmem_new_shared(int *ret_fd, void **ret_page) MUST_USE;

/* Maps a received secret descriptor of one page, read-only, locked, DONTFORK, DONTDUMP. Refuses a descriptor that is not secret memory unless the fallback is allowed. Unmap with secmem_unmap_shared. */
enum secpool_error secmem_map_shared(int fd, const void **ret_page) MUST_USE;
void secmem_unmap_shared(const void *page);

/* Wipes memory in a way the compiler keeps. */
void secmem_wipe(void *memory, size_t bytes);

#endif
