/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of secpool-keymgrd, as its man page says it. Threads: one. */
#ifndef SECPOOL_KEYMGR_ARGUMENTS_H
#define SECPOOL_KEYMGR_ARGUMENTS_H

#include <stdbool.h>

/* Texts are argv's. */
struct arguments {
	const char *runtime_dir, *state_dir, *policy, *tpm;
	bool new_audit, once;
	int recovery_fd, key_fd; /* 0: none */
	char *recover;		 /* GENERATION:HEAD; NULL: none */
};

/* Reads it; what is wrong with it, and what is asked of it (--help), is printed. -1 when the daemon is to run, else the status to end with. */
int arguments_read(int argc, char **argv, struct arguments *arguments);

#endif
