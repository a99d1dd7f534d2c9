/* SPDX-License-Identifier: Apache-2.0 */
/* What the programs here share, which know nothing of secpool and are run by `secpool run`. Not so: a sentence, and 1. */
#ifndef SECPOOL_TESTS_PLAIN_PLAIN_H
#define SECPOOL_TESTS_PLAIN_PLAIN_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>
#include <sys/wait.h>

/* secpool's window in the default policy: DESIGN.md section 8. */
#define WINDOW_START 0x110000000000ull
#define WINDOW_END   (WINDOW_START + (64ull << 40))

enum { MIB = 1 << 20, PAGE = 4096, LARGE = 24 * MIB, THREADS = 4 };

static inline void expect_at(bool held, const char *file, int line, const char *what)
{
	if (held)
		return;
	fprintf(stderr, "%s:%d: not so: %s (errno %d)\n", file, line, what, errno);
	exit(1);
}
#define expect(condition) expect_at(condition, __FILE__, __LINE__, #condition)

static inline bool in_pool(const void *memory)
{
	return (uintptr_t)memory >= WINDOW_START && (uintptr_t)memory < WINDOW_END;
}

static inline void fill(uint64_t *words, size_t bytes, uint64_t seed)
{
	for (size_t i = 0; i < bytes / sizeof *words; i++)
		words[i] = seed + i;
}

static inline bool holds(const uint64_t *words, size_t bytes, uint64_t seed)
{
	for (size_t i = 0; i < bytes / sizeof *words; i++)
		if (words[i] != seed + i)
			return false;
	return true;
}

static inline void *grow(void *memory, size_t bytes)
{
	void *grown = realloc(memory, bytes);

	expect(grown);
	return grown;
}

/* Pushes everything else out of local memory, of which there are 8 MiB. */
static inline void push_out(void)
{
	char *other = malloc(LARGE);

	expect(in_pool(other));
	for (size_t at = 0; at < LARGE; at += PAGE)
		other[at] = 1;
	free(other);
}

static inline int status_of(pid_t pid)
{
	int status = 0;

	expect(pid > 0 && waitpid(pid, &status, 0) == pid);
	return status;
}

#endif
