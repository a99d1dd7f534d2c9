/* SPDX-License-Identifier: Apache-2.0 */
/* The end of a daemon whose own secret metadata contradict themselves. Never called by a library: a library returns. */
#ifndef SECPOOL_BASE_DIE_H
#define SECPOOL_BASE_DIE_H

#include "lib/base/err.h"

/* Logs the event and ends the process at once, without running exit handlers. */
_Noreturn void die(const char *event, const char *format, ...) PRINTF_LIKE(2, 3);

#endif
