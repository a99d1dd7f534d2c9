/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One piece of work with secrets under the SRK (tpm_seal.c, tpm_counter.c): an ESYS context of its own, freed at its end, since tpm2-tss keeps copies of a command's
 * parameters in it, the secret among them. Nobody else includes it. Threads: one at a time for each struct tpm.
 */
#ifndef SECPOOL_ENCLAVE_TPM_WORK_H
#define SECPOOL_ENCLAVE_TPM_WORK_H

#include "enclave/tpm_context.h"

struct tpm_work {
	struct tpm *tpm;
	ESYS_CONTEXT *esys;
	ESYS_TR srk, session, object; /* ESYS_TR_NONE: not there */
	uint8_t srk_name[TPM_NAME_BYTES];
};

/*
 * Makes context and SRK. Errors: SECPOOL_E_TPM, also when the SRK is not the one that something was sealed to or unsealed under on this connection. tpm_work_end is called
 * in any case.
 */
enum secpool_error tpm_work_begin(struct tpm_work *work, struct tpm *tpm) MUST_USE;
void tpm_work_end(struct tpm_work *work);

/*
 * Starts work->session, salted by the SRK (an unsalted one can be decrypted by who reads the bus), with parameters encrypted in the ways that attributes name.
 * Errors: SECPOOL_E_TPM.
 */
enum secpool_error tpm_work_session(struct tpm_work *work, TPM2_SE type, TPMA_SESSION attributes) MUST_USE;

/* The counter's NV index as an object of work->esys. Errors: SECPOOL_E_NOT_FOUND (the TPM has no such index), SECPOOL_E_TPM. */
enum secpool_error tpm_work_counter(struct tpm_work *work, uint32_t index, ESYS_TR *ret_counter) MUST_USE;

#endif
