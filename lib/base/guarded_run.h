/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A function of C that loads from device memory which may vanish in the middle: where guarded_copy.h has assembly for a few loops, this takes any function that only computes. A fault in the given range ends it at once,
 * as longjmp(3) would, and without a word of the kernel's on the way in. The SIGBUS handler is guarded_copy.h's; whoever has one of its own calls guarded_copy_fixup, which serves both.
 * Threads: any.
 */
#ifndef SECPOOL_BASE_GUARDED_RUN_H
#define SECPOOL_BASE_GUARDED_RUN_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <ucontext.h>

#include "lib/base/err.h"

/* What is run: at is the range's start. It holds no lock, owns nothing that must be given back, and returns anything but SECPOOL_E_DEVICE_GONE. */
typedef enum secpool_error guarded_work(const uint8_t *at, void *arg);

/*
 * Runs work(at, arg), which loads from the count bytes at `at` and from nothing else that may vanish. Returns what it returns.
 * Errors: SECPOOL_E_DEVICE_GONE when a load in the range took SIGBUS: work was left where it was; the stack that it used and the vector registers are wiped, what it stored elsewhere stays.
 */
enum secpool_error guarded_run(const uint8_t *at, size_t count, guarded_work *work, void *arg) MUST_USE;

/* For guarded_copy_fixup: whether the signal came from a load that guarded_run watches; the context is then changed so that it ends. Async-signal-safe. */
bool guarded_run_fixup(const siginfo_t *info, ucontext_t *context);

#endif
