/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The commands of `secpool`: one function each, called by the table in main.c with the options and words already read.
 * A command prints its result on stdout, its errors on stderr, and returns the exit status (DESIGN.md section 9).
 * Threads: none; a command runs alone in its process.
 */
#ifndef SECPOOL_CLI_COMMANDS_H
#define SECPOOL_CLI_COMMANDS_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/base/err.h"
#include "lib/wire/runopts.h"

enum { STATUS_DONE = 0, STATUS_FAILED = 1, STATUS_USAGE = 2, STATUS_REFUSED = 3 };

/* What the command line said; pointers are borrowed from argv. */
struct args {
	char runtime[PATH_MAX]; /* the runtime folder, for commands with ARG_RUNTIME */
	const char *policy;     /* NULL: not given */
	const char *anchor;
	const char *audit, *receipt; /* files; NULL: not given */
	uint64_t devices, device_bytes;
	bool json, follow, no_wait;
	const char *state_dir, *tpm, *generation, *audit_head; /* of the key store; NULL: not given */
	const char *evidence;   /* a folder; NULL: not given */
	const char *tenant, *user, *action;
	uint32_t silent_ms; /* 0: not silent */
	const char *run[RUNOPTS_OPTIONS]; /* texts; NULL: not given */
	const char *fault_mode; /* NULL: not given */
	char **words; /* what is no option, NULL beyond the last */
};

/* Bits for the options that a command takes. */
enum {
	ARG_RUNTIME = 1,
	ARG_JSON = 2,
	ARG_FOLLOW = 4,
	ARG_SILENT = 8,
	ARG_ANCHOR = 16,
	ARG_POLICY = 32,
	ARG_NO_WAIT = 128,
	ARG_EVIDENCE = 256,
	ARG_EXPLAIN = 512, /* --tenant, --user, --action */
	ARG_AUDIT = 1024,
	ARG_RECEIPT = 2048,
	ARG_STORE = 16384,  /* --state-dir, --tpm */
	ARG_CONFIRM = 32768, /* --generation, --audit-head */
	ARG_DEVICES = 64, /* --devices and --device-bytes */
	ARG_RUN = 4096,   /* what `secpool run` hands to the program (lib/wire/runopts.h) */
	ARG_REST = 8192,  /* options end at the first word; there are `words` of them or more */
};

int command_run(const struct args *args);
int command_up(const struct args *args);
int command_down(const struct args *args);
int command_status(const struct args *args);
int command_top(const struct args *args);
int command_policy_check(const struct args *args);
int command_policy_explain(const struct args *args);
int command_device_list(const struct args *args);
int command_device_pull(const struct args *args);
int command_device_plug(const struct args *args);
int command_device_attest(const struct args *args);
int command_device_drain(const struct args *args);
int command_device_enrol(const struct args *args);
int command_device_retire(const struct args *args);
int command_device_scrub(const struct args *args);
int command_device_inject(const struct args *args);
int command_region_list(const struct args *args);
int command_tenant_list(const struct args *args);
int command_tenant_rotate(const struct args *args);
int command_events(const struct args *args);
int command_keystore_anchor(const struct args *args);
int command_keystore_provision(const struct args *args);
int command_keystore_recover(const struct args *args);
int command_receipt_get(const struct args *args);
int command_receipt_verify(const struct args *args);
int command_audit_verify(const struct args *args);
int command_audit_list(const struct args *args);

/*
 * Prints "secpool: " and what failed: this thread's detail, or the error's text. Bytes that a terminal would act on are replaced: a
 * detail can quote a device. Returns the exit status for the error.
 */
int command_failed(enum secpool_error error);

#endif
