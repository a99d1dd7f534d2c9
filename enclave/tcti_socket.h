/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tpm2-tss transport (TCTI) over a unix stream socket that carries plain TPM commands:
 * secpool-vtpm's socket, or swtpm's data socket. Unlike tpm2-tss's own swtpm transport it has
 * real deadlines: a TPM that hangs gives an error, never a hang.
 *
 * After any error of the transport the connection is closed and every further call fails: free it
 * and open a new one. After opening it uses only sendto, recvfrom, poll, close and clock_gettime,
 * so it works in a sandbox that was entered since.
 * Threads: one at a time for each context.
 */
#ifndef SECPOOL_ENCLAVE_TCTI_SOCKET_H
#define SECPOOL_ENCLAVE_TCTI_SOCKET_H

#include <tss2/tss2_tcti.h>

#include "lib/base/err.h"

/*
 * How long one command may take, from its first byte sent to its answer's last byte, in
 * milliseconds.
 */
enum { TCTI_SOCKET_TIMEOUT_MS = 5000 };

/* Longest command or answer, in bytes. */
enum { TCTI_SOCKET_BUFFER_BYTES = 4096 };

/*
 * Connects. path: borrowed. timeout_ms: for each command; 0 is TCTI_SOCKET_TIMEOUT_MS.
 * Errors: SECPOOL_E_TPM (nobody listens there, path too long), SECPOOL_E_NO_MEMORY.
 */
enum secpool_error tcti_socket_new(
	const char *path, unsigned timeout_ms, TSS2_TCTI_CONTEXT **ret_tcti) MUST_USE;

/* Closes the connection and frees. NULL is allowed. Only for what tcti_socket_new gave. */
void tcti_socket_free(TSS2_TCTI_CONTEXT *tcti);

#endif
