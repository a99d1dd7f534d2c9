/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What kind of file a program is, by its first bytes: whether the dynamic loader starts it, and so loads what LD_PRELOAD names (ld.so(8), elf(5)).
 * Threads: none; pure.
 */
#ifndef SECPOOL_CLI_PROGRAM_H
#define SECPOOL_CLI_PROGRAM_H

#include <limits.h>
#include <stddef.h>
#include <stdint.h>

enum program_kind {
	PROGRAM_DYNAMIC = 0, /* of this machine, with a loader */
	PROGRAM_STATIC = 1,  /* of this machine, without one */
	PROGRAM_SCRIPT = 2,  /* begins with #! and the path of its interpreter */
	PROGRAM_OTHER = 3,   /* nothing of these: another machine's, 32 bits, text, broken */
};

/* How much of the file is looked at: headers beyond it make a program PROGRAM_OTHER. */
enum { PROGRAM_HEAD_BYTES = 4096 };

/* bytes: as many as there are, PROGRAM_HEAD_BYTES at the most. ret_interpreter: a script's, with its NUL; else untouched. */
enum program_kind program_look(const uint8_t *head, size_t bytes, char ret_interpreter[PATH_MAX]);

#endif
