/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fork(2) of a program under the preload library. A child has no pool: its own allocations are ordinary memory. What it has of the pool's memory says the mode: a copy of all as it was at
 * that moment (lib/snapshot.h), or nothing but SIGBUS. fork fails with ENOMEM where the copy can't be had. Where libc forks by itself (daemon, forkpty) a child without its copy ends
 * with status FORK_FAILED_STATUS at once.
 * Threads: any.
 */
#ifndef SECPOOL_PRELOAD_FORK_H
#define SECPOOL_PRELOAD_FORK_H

#include <stdbool.h>

#include "lib/base/err.h"
#include "lib/secpool.h"
#include "lib/wire/runopts.h"

enum { FORK_FAILED_STATUS = 127 };

/*
 * Before the pool is opened, in the program's only thread: the first handler that is registered is the last that runs before a fork: it stops the pool. jemalloc's are registered when the pool is opened: they take its
 * locks, which nobody must hold who waits for a pool that is stopped. Errors: SECPOOL_E_NO_MEMORY.
 */
enum secpool_error fork_prepare_first(void) MUST_USE;

/*
 * After the pool was opened: after a fork jemalloc's handlers, and the library's own in the child, run before these; before it they run after: until then the heap and the service are held (heap_hold,
 * snapshot_hold), so that nobody who has jemalloc's locks waits for the service, nor the service for them. Errors: SECPOOL_E_NO_MEMORY.
 */
enum secpool_error fork_prepare(struct secpool *pool, enum runopts_fork mode) MUST_USE;

/* Whether this process is a child made by fork. */
bool fork_is_child(void);

#endif
