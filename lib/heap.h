/* SPDX-License-Identifier: Apache-2.0 */
/* The pool's heap: a jemalloc arena whose memory is regions. One for each pool, made at the first allocation. Threads: the program's. */
#ifndef SECPOOL_HEAP_H
#define SECPOOL_HEAP_H

#include "lib/pool.h"

/* Ends the heap; its regions are released with the pool's others. */
void heap_free(struct secpool *pool);

/*
 * Before a fork: the heap does not grow from now on, and nobody who holds jemalloc's locks waits for the service. A thread whose allocation needs more waits without a lock until heap_let_go; the calling
 * thread itself gets NULL. Waits for the service's answer to who grows the heap just now, as that thread does. One thread at a time.
 */
void heap_hold(struct secpool *pool);
void heap_let_go(struct secpool *pool);

#endif
