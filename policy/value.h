/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Values of a policy file, checked one by one for build.c and devices.c. What is wrong is refused with the file's name, the line and what was expected.
 * Threads: any; no state.
 */
#ifndef SECPOOL_POLICY_VALUE_H
#define SECPOOL_POLICY_VALUE_H

#include "policy/model.h"

/* A TPM's PCRs (TCG PC Client Platform TPM Profile 1.05, section 4.6); the longest time that a policy can name; a path in the file, with its NUL. */
enum { VALUE_PCRS = 24, VALUE_SECONDS_MOST = 366 * 86400, VALUE_PATH_BYTES = 96 };

/* What is being checked: for the messages. */
struct value_source {
	const struct lines *lines;
	const char *name;
};

/* "NAME:LINE: PATH: " and the sentence, for the value at path: SECPOOL_E_POLICY. */
enum secpool_error value_refuse(const struct value_source *source, const char *path, const char *format, ...) PRINTF_LIKE(3, 4) MUST_USE;

/* A path of formatted parts; what does not fit is cut, and then names the enclosing value. Returns path. */
const char *value_path(char path[VALUE_PATH_BYTES], const char *format, ...) PRINTF_LIKE(2, 3);

/* Each checks the text of the value at path. Errors: SECPOOL_E_POLICY, and nothing is written. */
enum secpool_error value_name(const struct value_source *source, const char *path, const char *text, char name[MODEL_NAME_BYTES]) MUST_USE;
/* text NULL (the file has nothing) leaves *ret_value as it is. */
enum secpool_error value_number(const struct value_source *source, const char *path, const char *text, uint64_t most, uint64_t *ret_value) MUST_USE;
/* Bytes, or with K, M, G, T. */
enum secpool_error value_size(const struct value_source *source, const char *path, const char *text, uint64_t *ret_bytes) MUST_USE;
/* A list of PCRs, as bits; an empty one leaves *ret_mask as it is. */
enum secpool_error value_pcrs(const struct value_source *source, const char *key, char *const *texts, unsigned count, uint32_t *ret_mask) MUST_USE;

#endif
