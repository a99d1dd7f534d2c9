/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loads and stores on device memory that may vanish in the middle: a copy, a store past the caches and a comparison, in assembly, whose
 * SIGBUS (or SIGSEGV) becomes a return value. The SIGBUS handler finds the interrupted instruction in their range and continues at its end; there is no sigsetjmp on the way (147 ns each, measured) and nothing is allocated.
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
#include <stdint.h>

#include "lib/base/err.h"

/*
 * Copies count bytes, each loaded once and stored once. The ranges may not overlap.
 * Errors: SECPOOL_E_DEVICE_GONE when a load or store took a SIGBUS or SIGSEGV; then part of the bytes may have been copied.
 */
enum secpool_error guarded_copy(void *to, const void *from, size_t count) MUST_USE;

/* Loads the eight bytes at `at` (a multiple of 8) by one instruction, in this machine's order. Errors: SECPOOL_E_DEVICE_GONE as guarded_copy: *ret_value is untouched. */
enum secpool_error guarded_load(const void *at, uint64_t *ret_value) MUST_USE;

/* Stores eight bytes at `at` and tells what was there before, by two instructions. Errors: SECPOOL_E_DEVICE_GONE as guarded_copy: *ret_before is untouched. */
enum secpool_error guarded_swap(void *at, uint64_t value, uint64_t *ret_before) MUST_USE;

enum { GUARDED_RANGES = 4, GUARDED_MASK_BYTES = 64 };

/*
 * Stores from[i] ^ mask[i % 64] as byte i, for what is not read again soon: non-temporal stores, which leave no cache line behind and need not load one first. They are
 * not ordered with later stores, nor seen by others, before guarded_fence. The ranges may not overlap.
 * Errors: as guarded_copy, and SECPOOL_E_INVALID where `to` is not a multiple of 16 or count not of 64: nothing is stored.
 */
enum secpool_error guarded_store_masked(void *to, const void *from, const uint8_t *mask, size_t count) MUST_USE;

/* Waits until this thread's streamed stores before are on their way to the device (sfence). */
void guarded_fence(void);

/* GUARDED_RANGES ranges of `count` bytes (a multiple of 64), the first at `at`, the others each `stride` further, with what should be in them: byte i of range r is from[i] ^ mask[r][i % 64]. */
struct guarded_expected {
	const uint8_t *at;
	size_t stride, count;
	const uint8_t *from;
	const uint8_t *mask[GUARDED_RANGES];
};

/*
 * Whether a byte of the ranges is another than expected. They are compared where they are, without a copy, and side by side, because a CPU
 * loads from memory faster in several places at a time than in one (14 and 24 GB/s, measured with `from` in the second-level cache).
 * Errors: SECPOOL_E_DEVICE_GONE as guarded_copy, SECPOOL_E_INVALID for a count that isn't a multiple of 64.
 */
enum secpool_error guarded_differs(const struct guarded_expected *expected, bool *ret_differs) MUST_USE;

/* Waits until stores made before are out of the CPU's caches on their way to the device (clflushopt, mfence). */
enum secpool_error guarded_flush(const void *at, size_t count) MUST_USE;

/*
 * For a SIGBUS handler: if the signal, one of the kernel's own (si_code > 0), came from a guarded access (or guarded_run.h's), changes the context so that it ends with
 * an error, and returns true. Async-signal-safe.
 */
bool guarded_copy_fixup(const siginfo_t *info, ucontext_t *context);

/* Installs a SIGBUS handler that serves guarded copies and passes anything else to the action that was there. For daemons and tests. */
enum secpool_error guarded_copy_install(void) MUST_USE;

#endif
