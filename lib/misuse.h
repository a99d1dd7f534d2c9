/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a program does with handles and objects that are no more. A call that returns an error returns SECPOOL_E_CLOSED; one that can't ends the program with a sentence, as free(3) of the C library does: what
 * would follow else is silent damage.
 * Threads: any.
 */
#ifndef SECPOOL_MISUSE_H
#define SECPOOL_MISUSE_H

#include <stddef.h>

#include "lib/base/err.h"

/* The sentence goes to standard error, after "secpool: "; then SIGABRT. */
_Noreturn void misuse_end(const char *format, ...) PRINTF_LIKE(1, 2);

enum { MISUSE_KEPT = 64 };

/*
 * The struct behind a handle (from malloc, taken), when the handle has ended: it is zeroed and freed after MISUSE_KEPT others have followed, so that a call with the handle finds out until then. Zeroes must mean that it has ended.
 */
void misuse_retire(void *handle, size_t bytes);

#endif
