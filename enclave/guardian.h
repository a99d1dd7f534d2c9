/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guardian: holds the enclave (and with it the verifier) as its ptrace tracee, from before the first key until the end. A process has at
 * most one tracer, so no debugger can attach to the enclave, not even root's; and with PTRACE_O_EXITKILL (ptrace(2)) the enclave dies with its guardian. The guardian itself dies with
 * the front. It has no descriptors, and its sandbox allows only waiting for its tracees and letting them go on: not detaching, not reading.
 *
 * Threads: single-threaded processes only.
 */
#ifndef SECPOOL_ENCLAVE_GUARDIAN_H
#define SECPOOL_ENCLAVE_GUARDIAN_H

#include <sys/types.h>

#include "lib/base/err.h"

/*
 * The guardian's whole life. starter: the process that must be its parent. socket: the enclave's end of the front's socket, on which an error of the
 * guardian itself is told. enclave_argv, envp: what the enclave is executed with, as /proc/self/exe. Ends the process: with the enclave's exit status, or 1.
 */
_Noreturn void guardian_run(pid_t starter, int socket, char *const enclave_argv[], char *const envp[]);

/* In the enclave: that the parent is the tracer. Errors: SECPOOL_E_SYSTEM when nobody or somebody else holds it. */
enum secpool_error guardian_check(void) MUST_USE;

#endif
