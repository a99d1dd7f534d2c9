/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Touching pool memory when a page may be lost: a SIGBUS there ends the touch and not the process. One that comes elsewhere is a crash of the client, said as such: no finding about data.
 * Threads: any; each has a guard of its own.
 */
#ifndef SECPOOL_TESTS_TORTURE_TOUCH_H
#define SECPOOL_TESTS_TORTURE_TOUCH_H

#include <stdbool.h>
#include <stddef.h>

/* Once in a process, before it touches. */
void touch_prepare(void);

/* Copies by loads and stores. False when a SIGBUS ended it; *ret_at is where. */
bool touch_copy(void *to, const void *from, size_t bytes, const void **ret_at);

#endif
