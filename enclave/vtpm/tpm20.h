/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one TPM 2.0 of this process, through libtpms, which has room for one only. This is the one
 * door to libtpms.
 *
 * The order: tpm20_start (power on and TPM2_Startup(CLEAR)), then tpm20_extend and tpm20_process
 * as often as wanted, then tpm20_stop. Threads: one.
 */
#ifndef SECPOOL_ENCLAVE_VTPM_TPM20_H
#define SECPOOL_ENCLAVE_VTPM_TPM20_H

#include <stddef.h>
#include <stdint.h>

#include "enclave/vtpm/state.h"
#include "lib/base/err.h"

/*
 * Longest command or answer, and the header that each has (tag, size, code), in bytes: TPM 2.0
 * part 1, section 18.
 */
enum { TPM20_BUFFER_BYTES = 4096, TPM20_HEADER_BYTES = 10 };

/* PCRs 0 to TPM20_PCRS - 1 (TCG PC Client Platform TPM Profile). */
enum { TPM20_PCRS = 24 };

/*
 * Powers the TPM on with this state (borrowed until tpm20_stop) and starts it; makes a new TPM if
 * the state allows it.
 * Errors: SECPOOL_E_TPM (libtpms refuses), SECPOOL_E_STORE.
 */
enum secpool_error tpm20_start(struct state *state) MUST_USE;

/*
 * Extends a PCR's SHA-256 bank with the SHA-256 of text. Errors: SECPOOL_E_INVALID (no such PCR),
 * SECPOOL_E_TPM.
 */
enum secpool_error tpm20_extend(unsigned pcr, const char *text) MUST_USE;

/*
 * Runs one command. command: count bytes (at most TPM20_BUFFER_BYTES), may be anything. answer:
 * TPM20_BUFFER_BYTES bytes. An error of the TPM is an answer, not an error here. Errors:
 * SECPOOL_E_TPM (libtpms itself failed: the process should end).
 */
enum secpool_error tpm20_process(
	uint8_t *command, size_t count, uint8_t *answer, size_t *ret_count) MUST_USE;

/*
 * TPM2_Shutdown(CLEAR) and power off. Errors: SECPOOL_E_TPM (the shutdown was refused; power is
 * off all the same).
 */
enum secpool_error tpm20_stop(void) MUST_USE;

#endif
