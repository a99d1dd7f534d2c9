/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Serving faults. In fault mode thread the handler threads read them and serve them one by one (handlers.h); in fault mode inline a fault is a SIGBUS, and
 * the thread that made it serves it itself, in the signal's handler, with a guest's place (worker.h).
 */
#ifndef SECPOOL_FAULT_H
#define SECPOOL_FAULT_H

#include <signal.h>

#include "lib/pool.h"

/* Makes the workers' memory and starts the handlers and the cleaner. On error nothing is left. Threads: the service. */
enum secpool_error fault_start(struct secpool *pool) MUST_USE;
void fault_stop(struct secpool *pool);

/* Serves one fault. Threads: workers that are inside. */
void fault_serve(struct worker *worker, const struct uffd_fault *fault);

/*
 * Waits for a busy page, as `seen`, to change, a bounded time: the owner may have ended before. Threads: workers that own no page.
 */
void fault_await_page(struct worker *worker, struct page *page, uint64_t seen);

/* Ends the wait of everybody who waits for the page: threads asleep in a fault, and those in fault_await_page. After a step whose *seen had PAGE_WAITERS. */
void fault_wake_page(struct worker *worker, struct secpool_region *region, uint64_t pgno);

/*
 * A SIGBUS: if it is a fault on a region of a pool in fault mode inline, and the page is not lost, serves it and returns true: the access is to be made again.
 * Async-signal-safe where the library keeps its rule: no thread of the program holds a lock that workers take unless its signals are blocked.
 * Threads: the program's, in the handler, with all signals but SIGBUS blocked.
 */
bool fault_signal(const siginfo_t *info, const ucontext_t *context);

#endif
