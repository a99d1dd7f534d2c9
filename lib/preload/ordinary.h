/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ordinary memory under the preload library: glibc's own allocator by the names that it keeps for those who replace malloc, and the question who asks for memory. No dlsym is
 * needed for it, so that it serves the loader and the first constructors too.
 *
 * All code of libsecpool inside the preload library (its own, OpenSSL's, jemalloc's) is linked with -Wl,--wrap for the malloc family, and so gets ordinary memory by these names.
 * Threads: any.
 */
#ifndef SECPOOL_PRELOAD_ORDINARY_H
#define SECPOOL_PRELOAD_ORDINARY_H

#include <stdbool.h>
#include <stddef.h>

void *ordinary_malloc(size_t bytes);
void *ordinary_calloc(size_t count, size_t bytes);
void *ordinary_realloc(void *memory, size_t bytes);
void *ordinary_memalign(size_t alignment, size_t bytes);
void ordinary_free(void *memory);

/* How much of it can be used, without asking the malloc_usable_size that the program sees. NULL: 0. */
size_t ordinary_usable_size(void *memory);

/* Finds where libc and the loader are. Before it, ordinary_wanted is true for everybody. */
void ordinary_find_callers(void);

/*
 * Whether the caller (a return address) is libc or the loader. What they allocate is theirs: streams, thread descriptors, the loader's tables. fork(3) and the loader use
 * these in a child before it has anything of the pool, and under locks that a fault must not wait for.
 */
bool ordinary_wanted(const void *caller);

#endif
