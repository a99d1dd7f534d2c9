/* SPDX-License-Identifier: Apache-2.0 */
/* For tests that hold a page under docs/ against the code. Include cmocka.h first. Threads: one. */
#ifndef SECPOOL_TESTS_UNIT_DOCS_PAGE_H
#define SECPOOL_TESTS_UNIT_DOCS_PAGE_H

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/os.h"

/* The text of docs/<name>, from the working folder or from a folder above the test program; the caller frees it. Fails the test when it is not found. */
static inline char *docs_page(const char *name, size_t *ret_bytes)
{
	char path[PATH_MAX], relative[64], *slash, *text = NULL;
	ssize_t length;

	snprintf(relative, sizeof relative, "/docs/%s", name);
	if (os_read_file(relative + 1, 1 << 20, &text, ret_bytes) == SECPOOL_OK)
		return text;
	length = readlink("/proc/self/exe", path, sizeof path - sizeof relative - 1);
	assert_true(length > 0);
	path[length] = '\0';
	while ((slash = strrchr(path, '/')) != NULL) {
		strcpy(slash, relative);
		if (os_read_file(path, 1 << 20, &text, ret_bytes) == SECPOOL_OK)
			return text;
		*slash = '\0';
	}
	fail_msg("docs/%s was not found: run the test in the project's folder", name);
	return NULL;
}

#endif
