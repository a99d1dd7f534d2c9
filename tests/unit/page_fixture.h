/* SPDX-License-Identifier: Apache-2.0 */
/* Pages of docs/ that are made from a table: a test prints them, and fails when the page is another. Threads: one. */
#ifndef SECPOOL_TESTS_PAGE_FIXTURE_H
#define SECPOOL_TESTS_PAGE_FIXTURE_H

#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "lib/base/os.h"

/* The page, from the working folder or from a folder above the test program. Freed by the caller. */
static inline char *page_read(const char *name, size_t *ret_bytes)
{
	char path[PATH_MAX], *slash, *text = NULL;
	ssize_t length;

	if (os_read_file(name, 1 << 20, &text, ret_bytes) == SECPOOL_OK)
		return text;
	length = readlink("/proc/self/exe", path, sizeof path - 64);
	assert_true(length > 0);
	path[length] = '\0';
	while ((slash = strrchr(path, '/')) != NULL) {
		snprintf(slash, sizeof path - (size_t)(slash - path), "/%s", name);
		if (os_read_file(path, 1 << 20, &text, ret_bytes) == SECPOOL_OK)
			return text;
		*slash = '\0';
	}
	fail_msg("%s was not found: run the test in the project's folder", name);
	return NULL;
}

/* Fails unless the page is what print makes. */
static inline void page_check(const char *name, void (*print)(FILE *to))
{
	char *made = NULL, *page;
	size_t made_bytes, page_bytes;
	FILE *to = open_memstream(&made, &made_bytes);

	assert_non_null(to);
	print(to);
	assert_int_equal(fclose(to), 0);
	page = page_read(name, &page_bytes);
	if (page_bytes != made_bytes || strcmp(page, made) != 0)
		fail_msg("%s is not what the table says: run this test with --print > %s", name, name);
	free(page);
	free(made);
}

#endif
