/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the enclave's processes give up before they serve: dumps and debuggers, capabilities, and nearly all system calls. The lists of
 * what each role may still call, with the reason beside each, are in sandbox.c; any other call kills the process.
 *
 * Nothing here can be undone, and nothing outside (environment, build, switch) makes it weaker.
 * Threads: call from a single-threaded process.
 */
#ifndef SECPOOL_ENCLAVE_SANDBOX_H
#define SECPOOL_ENCLAVE_SANDBOX_H

#include <sys/types.h>

#include "lib/base/err.h"

enum sandbox_role {
	SANDBOX_ENCLAVE = 0,  /* holds keys: messages, memory, time */
	SANDBOX_VERIFIER = 1, /* parses outside evidence: messages on its socket, memory */
	SANDBOX_GUARDIAN = 2, /* holds the enclave as its tracee: wait and continue */
	SANDBOX_ROLES = 3,
};

/*
 * Not dumpable, no core file, no new privileges; SIGINT, SIGTERM, SIGHUP and SIGPIPE are ignored: these processes end when their socket does, so that a
 * signal to the whole group does not end them before the front. The first thing such a process does.
 * Errors: SECPOOL_E_SYSTEM.
 */
enum secpool_error sandbox_harden(void) MUST_USE;

/*
 * Raises what the enclave needs after its capabilities are gone, as far as it may: locked memory without limit, and descriptors up to fds. *ret_fds: how many it may have.
 * Errors: SECPOOL_E_SYSTEM.
 */
enum secpool_error sandbox_raise_limits(unsigned fds, unsigned *ret_fds) MUST_USE;

/* Drops every capability, also from the bounding set where it may. Errors: SECPOOL_E_SYSTEM; the process must then end. */
enum secpool_error sandbox_drop_capabilities(void) MUST_USE;

/*
 * Enters the role's filter of system calls. verifier: the one process that the enclave may kill (SIGKILL); 0 for none, and for other roles. tpm: the descriptor that the enclave may also read and write: its TPM's; store: the one that it may read at an offset: the wrapped keys; -1: none.
 * Errors: SECPOOL_E_SYSTEM; the process must then end.
 */
enum secpool_error sandbox_enter(enum sandbox_role role, pid_t verifier, int tpm, int store) MUST_USE;

/* Closes every descriptor but keep; -1 keeps none. Errors: SECPOOL_E_SYSTEM. */
enum secpool_error sandbox_close_all_but(int keep) MUST_USE;

#endif
