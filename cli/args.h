/* SPDX-License-Identifier: Apache-2.0 */
/* The table of commands and the reading of a command line. Threads: none. */
#ifndef SECPOOL_CLI_ARGS_H
#define SECPOOL_CLI_ARGS_H

#include "cli/commands.h"

struct command {
	const char *group; /* "device"; NULL for a command of one word */
	const char *name;
	unsigned options;  /* ARG_ bits */
	int words;         /* how many words it needs, exactly */
	const char *usage; /* of the words and options */
	const char *summary;
	int (*run)(const struct args *args);
};

/* What args_parse returns when the command is to be run. */
enum { ARGS_RUN = -1 };

/*
 * Reads the options and words of a command; argv[0] is the command's last word. runtime_dir: --runtime-dir given before the command, or NULL.
 * Returns ARGS_RUN, or the exit status after --help or a wrong line, which it has explained.
 */
int args_parse(const struct command *command, const char *runtime_dir, int argc, char **argv,
	struct args *ret_args);

/* Prints how one command is used. */
void args_help(const struct command *command);

#endif
