/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loads and stores on device memory that may vanish in the middle: one copy, in assembly, whose SIGBUS (or SIGSEGV)
 * becomes a return value. The SIGBUS handler finds the interrupted instruction in the copy's range and continues at its
 * end; there is no sigsetjmp on the way (147 ns each, measured) and nothing is allocated.
 *
 * Whoever uses it must have called guarded_copy_install, or forward SIGBUS to guarded_copy_fixup from a handler of its own.
 * SIGBUS must not be blocked in the calling thread: a blocked synchronous SIGBUS ends the process.
 * Threads: any.
 */
#ifndef SECPOOL_BASE_GUARDED_COPY_H
#define SECPOOL_BASE_GUARDED_COPY_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>

#include "lib/base/err.h"

/*
 * Copies count bytes, each loaded once and stored once. The ranges may not overlap.
 * Errors: SECPOOL_E_DEVICE_GONE when a load or store took a SIGBUS or SIGSEGV; then part of the bytes may have been copied.
 */
enum secpool_error guarded_copy(void *to, const void *from, size_t count) MUST_USE;

/*
 * Stores count bytes past the caches (non-temporal stores, then a fence): for memory that nobody reads soon. `from` is loaded by ordinary loads. What is not whole
 * lines of 64 bytes, and everything if `to` is not a multiple of 16, is copied and flushed instead. The ranges may not overlap. Errors: as guarded_copy.
 */
enum secpool_error guarded_store(void *to, const void *from, size_t count) MUST_USE;

/* Waits until stores made before are out of the CPU's caches on their way to the device (clflushopt, mfence). */
enum secpool_error guarded_flush(const void *at, size_t count) MUST_USE;

/*
 * For a SIGBUS handler: if the signal came from a guarded access, changes the context so that it ends with
 * an error, and returns true. Async-signal-safe.
 */
bool guarded_copy_fixup(ucontext_t *context);

/* Installs a SIGBUS handler that serves guarded copies and passes anything else to the action that was there. For daemons and tests. */
enum secpool_error guarded_copy_install(void) MUST_USE;

#endif
