/* SPDX-License-Identifier: Apache-2.0 */
/* The pool's heap: a jemalloc arena whose memory is regions. One for each pool, made at the first allocation. Threads: the program's. */
#ifndef SECPOOL_HEAP_H
#define SECPOOL_HEAP_H

#include "lib/pool.h"

/* Ends the heap; its regions are released with the pool's others. */
void heap_free(struct secpool *pool);

#endif
