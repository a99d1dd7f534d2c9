/* SPDX-License-Identifier: Apache-2.0 */
/* Sizes as people write and read them: "512M", "64 GiB". K, M, G, T are powers of 1024. Threads: any; no state. */
#ifndef SECPOOL_BASE_SIZE_H
#define SECPOOL_BASE_SIZE_H

#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

/* Longest text of size_format, with its NUL. */
enum { SIZE_TEXT_BYTES = 24 };

/*
 * Reads a number of bytes: decimal or 0x hexadecimal; a decimal one may end in K, M, G or T (upper or lower case), then optionally in "iB" or "B".
 * Errors: SECPOOL_E_INVALID (not a size, or more than 64 bits), with a sentence.
 */
enum secpool_error size_parse(const char *text, uint64_t *ret_bytes) MUST_USE;

/* Writes "1.5 GiB", "512 MiB" or "17 B" into text (SIZE_TEXT_BYTES) and returns it. */
const char *size_format(uint64_t bytes, char *text);

#endif
