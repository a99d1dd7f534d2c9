/* SPDX-License-Identifier: Apache-2.0 */
/* The policy file's values, one by one, with the place for the message. For build.c. Threads: any; no state. */
#ifndef SECPOOL_POLICY_CHECK_H
#define SECPOOL_POLICY_CHECK_H

#include "lib/base/err.h"
#include "policy/lines.h"
#include "policy/model.h"

/* What is being checked: for the messages. */
struct check_source {
	const struct lines *lines;
	const char *name;
};

enum { CHECK_PATH_BYTES = 96 };

/* SECPOOL_E_POLICY with "NAME:LINE: " and the sentence, for the value at path. */
enum secpool_error check_refuse(const struct check_source *source, const char *path, const char *format, ...) PRINTF_LIKE(3, 4) MUST_USE;

/* A path of formatted parts; what does not fit is cut, and then names the enclosing value. Returns path. */
const char *check_path_of(char path[CHECK_PATH_BYTES], const char *format, ...) PRINTF_LIKE(2, 3);

/* Errors of all: SECPOOL_E_POLICY. A number's text may be NULL: *ret_value stays as it is. */
enum secpool_error check_name(const struct check_source *source, const char *path, const char *text, char name[MODEL_NAME_BYTES]) MUST_USE;
enum secpool_error check_number(const struct check_source *source, const char *path, const char *text, uint64_t most, uint64_t *ret_value) MUST_USE;
enum secpool_error check_size(const struct check_source *source, const char *path, const char *text, uint64_t *ret_bytes) MUST_USE;

#endif
