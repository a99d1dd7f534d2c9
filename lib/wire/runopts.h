/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What `secpool run` hands to libsecpool-preload.so: the options of its command line, as texts in the environment, one variable each. The command reads them to refuse a wrong one
 * before the program begins; the library reads them again in the program. They come from who runs the program, and none of them makes a check weaker.
 * Threads: none; no state.
 */
#ifndef SECPOOL_WIRE_RUNOPTS_H
#define SECPOOL_WIRE_RUNOPTS_H

#include <stdint.h>

#include "lib/base/err.h"
#include "lib/wire/msg.h"

enum runopts_option {
	RUNOPTS_TENANT = 0,
	RUNOPTS_LOCAL_BYTES = 1,
	RUNOPTS_REDUNDANCY = 2,
	RUNOPTS_ON_LOSS = 3,
	RUNOPTS_FORK = 4,
	RUNOPTS_OPTIONS = 5,
};

/* What a child made by fork(2) has of the pool's memory: all of it as at that moment, or SIGBUS. */
enum runopts_fork { RUNOPTS_FORK_SNAPSHOT = 0, RUNOPTS_FORK_DENY = 1 };

struct runopts {
	char tenant[MSG_NAME_BYTES];
	uint64_t local_bytes;  /* 0: the library's default */
	uint32_t data, lanes;  /* redundancy, as in msg_redundancy_read */
	uint32_t on_loss;      /* enum msg_on_loss; 0: the default of the redundancy */
	uint32_t signal;       /* for MSG_ON_LOSS_SIGNAL, else 0 */
	enum runopts_fork fork;
};

/* Tenant "default", one copy, and the defaults of the library. */
void runopts_init(struct runopts *options);

/* The option's name on the command line ("local-bytes"), and the variable that holds its text. */
const char *runopts_name(enum runopts_option option);
const char *runopts_variable(enum runopts_option option);

/* Reads one option's text. Errors: SECPOOL_E_INVALID with a sentence; then *options is as it was. */
enum secpool_error runopts_read(struct runopts *options, enum runopts_option option, const char *text) MUST_USE;

#endif
