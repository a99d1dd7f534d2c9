/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tpm2-tss transports (TCTI) that carry plain TPM commands: over a unix stream socket (secpool-vtpm's, or swtpm's data socket), and over the kernel's device. Unlike tpm2-tss's own they have real deadlines: a TPM that hangs gives an
 * error, never a hang. Its device transport waits for room to write where it should wait for an answer, which is there at once, and then reads without end.
 *
 * After any error of the transport the connection is closed and every further call fails: free it
 * and open a new one. After opening it uses only sendto, recvfrom, read, write, poll, close and clock_gettime,
 * so it works in a sandbox that was entered since.
 * Threads: one at a time for each context.
 */
#ifndef SECPOOL_ENCLAVE_TCTI_H
#define SECPOOL_ENCLAVE_TCTI_H

#include <tss2/tss2_tcti.h>

#include "lib/base/err.h"

/*
 * How long one command may take, from its first byte sent to its answer's last byte, in
 * milliseconds.
 */
enum { TCTI_TIMEOUT_MS = 5000, TCTI_DEVICE_TIMEOUT_MS = 30000 /* a hardware TPM's slowest command that is used here, with room */ };

/* Longest command or answer, in bytes. */
enum { TCTI_BUFFER_BYTES = 4096 };

/*
 * Connects. path: borrowed. timeout_ms: for each command; 0 is TCTI_TIMEOUT_MS.
 * Errors: SECPOOL_E_TPM (nobody listens there, path too long), SECPOOL_E_NO_MEMORY.
 */
enum secpool_error tcti_open_socket(
	const char *path, unsigned timeout_ms, TSS2_TCTI_CONTEXT **ret_tcti) MUST_USE;

/*
 * Opens a character device that takes a whole command by one write and gives its answer by reads: /dev/tpmrm0 (Linux 5.0 and later). path: borrowed. timeout_ms: for each command; 0 is TCTI_DEVICE_TIMEOUT_MS.
 * It can't end a wait that the kernel itself makes for the hardware, which has limits of its own. Errors: SECPOOL_E_TPM (can't be opened), SECPOOL_E_NO_MEMORY.
 */
enum secpool_error tcti_open_device(
	const char *path, unsigned timeout_ms, TSS2_TCTI_CONTEXT **ret_tcti) MUST_USE;

/* Closes the connection and frees. NULL is allowed. Only for what is opened here. */
void tcti_free(TSS2_TCTI_CONTEXT *tcti);

#endif
