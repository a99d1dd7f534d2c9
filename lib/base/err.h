/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors: a code, and beside it a sentence that names what failed, where, and what to do.
 *
 * The code is the return value; the sentence is kept per thread until the next one is set, so that whoever
 * shows the error to a person (a command, a log line, a reply on the wire) can show it whole.
 * Threads: any; the sentence is thread-local.
 */
#ifndef SECPOOL_BASE_ERR_H
#define SECPOOL_BASE_ERR_H

#include "lib/base/secpool_error.h"

#define MUST_USE         __attribute__((warn_unused_result))
#define PRINTF_LIKE(f, a) __attribute__((format(printf, f, a)))

/* Longest sentence kept, with its NUL, in bytes. */
enum { ERR_DETAIL_BYTES = 256 };

/* The text of a code; a code that is not in the list has a text too. Never NULL, never freed. */
const char *err_text(enum secpool_error error);

/* The name of a code, as "SECPOOL_E_LOST". Never NULL, never freed. */
const char *err_name(enum secpool_error error);

/* The code of a number from outside (the wire): a number that is not in the list is SECPOOL_E_PROTOCOL. */
enum secpool_error err_from_number(unsigned number);

/*
 * Keeps a sentence for this thread and returns the code, so that a failing function ends with
 * return err_set(SECPOOL_E_X, "what: where: what to do"). A sentence longer than ERR_DETAIL_BYTES is cut.
 */
enum secpool_error err_set(enum secpool_error error, const char *format, ...) PRINTF_LIKE(2, 3);

/* This thread's last sentence; "" when there is none. Valid until the thread's next err_set or err_clear. */
const char *err_detail(void);
void err_clear(void);

/* The code of that sentence; SECPOOL_OK when there is none. */
enum secpool_error err_last(void);

#endif
