/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SIGBUS, which belongs to the library, and the functions of libc that it interposes for the program: sigaction, signal,
 * sigprocmask, pthread_sigmask (SIGBUS stays ours and unblocked; the program's own action is kept and called for what is its own) and munmap, mremap, madvise, mprotect (refused on pool memory).
 *
 * The handler: a fault on a pool in fault mode inline is served (fault.h); a guarded access is sent to its end with an error; a wake-up sent to one of the library's threads writes to its eventfd; everything
 * else, a touch of a lost page included, goes to the program's action.
 */
#ifndef SECPOOL_SIGNALS_H
#define SECPOOL_SIGNALS_H

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/base/err.h"

/*
 * Installs the handler; once for the process, further calls do nothing. In a child made by fork or daemon(3) the window becomes a place where each touch is SIGBUS.
 */
enum secpool_error signals_install(void) MUST_USE;

/* Whether this is a child, made by fork, of a process that had the handler: it has no regions. */
extern _Atomic bool signals_is_child;
static inline bool signals_in_child(void)
{
	return atomic_load_explicit(&signals_is_child, memory_order_relaxed);
}

/* Address space that munmap, mremap, madvise and mprotect of the program are kept from. */
void signals_set_window(uint64_t base, uint64_t bytes);

/* Whether the range lies inside that space. */
bool signals_in_window(const void *start, uint64_t bytes);

/* Whether any of it does. */
bool signals_touch_window(const void *start, uint64_t bytes);

/* A thread with every signal blocked; SIGBUS until it calls one of the two below. */
enum secpool_error signals_start_thread(pthread_t *ret_thread, void *(*run)(void *), void *arg) MUST_USE;

/* To be called first by the service thread and by handler threads. */
void signals_enter_service(int wake_fd);
void signals_enter_handler(void);

/*
 * Blocks all signals but SIGBUS in the calling thread, for as long as it has a guest's place or a lock that a fault's serving may want; restore puts back what was.
 * Async-signal-safe.
 */
void signals_block(sigset_t *ret_before);
void signals_restore(const sigset_t *before);

/* Makes the service thread's poll return. Async-signal-safe. */
void signals_wake_service(pthread_t thread);

/* Interrupts a handler thread's read until it has ended, and joins it. */
void signals_end_thread(pthread_t thread);

#endif
