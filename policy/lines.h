/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where each value of a YAML text stands: libcyaml 1.3 does not keep lines, and its own messages give the place of the value before.
 * Also refuses what libcyaml lets pass or reports without a place: bad syntax, a key given twice, a second document.
 * Threads: one at a time for each struct lines.
 */
#ifndef SECPOOL_POLICY_LINES_H
#define SECPOOL_POLICY_LINES_H

#include <stddef.h>

#include "lib/base/err.h"

struct lines;

/*
 * Reads the text once. name is for the messages.
 * Errors: SECPOOL_E_POLICY with "NAME:LINE: what was expected"; SECPOOL_E_NO_MEMORY.
 */
enum secpool_error lines_new(
	const char *text, size_t bytes, const char *name, struct lines **ret_lines) MUST_USE;
void lines_free(struct lines *lines);

/*
 * The line (from 1) of the value at a path such as "tenants[1].quota.bytes"; of the nearest enclosing value when there is no such one.
 */
unsigned lines_of(const struct lines *lines, const char *path);

/* The line of a key itself in the mapping at path; the mapping's when it has no such key. */
unsigned lines_of_key(const struct lines *lines, const char *path, const char *key);

#endif
