/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What tpm.c, tpm_seal.c and tpm_attest.c share: the connection, and how a TPM's answer becomes
 * an error. Nobody else includes it.
 * Threads: one at a time for each struct tpm.
 */
#ifndef SECPOOL_ENCLAVE_TPM_CONTEXT_H
#define SECPOOL_ENCLAVE_TPM_CONTEXT_H

#include <stdbool.h>
#include <tss2/tss2_esys.h>

#include "enclave/tpm.h"
#include "lib/base/err.h"

/*
 * A TPM name under SHA-256: the algorithm's number and the digest (TPM 2.0 part 1, section 16).
 * PCRs as in the PC Client profile.
 */
enum { TPM_NAME_BYTES = 34, TPM_PCRS = 24, TPM_WHERE_BYTES = 128, TPM_DESCRIPTION_BYTES = 96 };

struct tpm {
	TSS2_TCTI_CONTEXT *tcti; /* NULL after the transport failed */
	ESYS_CONTEXT *esys; /* for all but secrets: those have contexts of their own (tpm_seal.c) */
	ESYS_TR ek, ak;	    /* ESYS_TR_NONE: not loaded; the EK is only while it is used */
	bool ek_rsa;	    /* the EK is RSA-2048, as its certificate is: tpm_ek_certificate */
	bool device;	    /* /dev/tpmrm0: it has a resource manager */
	bool software;	    /* it says so itself: libtpms, behind secpool-vtpm or swtpm */
	bool srk_pinned;    /* srk_name is of the SRK that sealed or unsealed here */
	uint8_t srk_name[TPM_NAME_BYTES];
	char where[TPM_WHERE_BYTES];
	char description[TPM_DESCRIPTION_BYTES];
};

/*
 * Turns a TPM's or tpm2-tss's answer into SECPOOL_E_TPM with a sentence; after an error of the
 * transport drops the connection.
 * what: the command, as "TPM2_Quote". rc: not TSS2_RC_SUCCESS.
 */
enum secpool_error tpm_failed(struct tpm *tpm, TSS2_RC rc, const char *what) MUST_USE;

/* Drops the connection: contexts and transport are freed, loaded keys forgotten. */
void tpm_drop(struct tpm *tpm);

/* SECPOOL_E_TPM when the connection was dropped. */
enum secpool_error tpm_usable(const struct tpm *tpm) MUST_USE;

/*
 * The format-one error number in an answer, without handle, session or parameter numbers (TPM 2.0
 * part 2, section 6.6); other answers as they are.
 */
TSS2_RC tpm_plain_code(TSS2_RC rc) MUST_USE;

/* A selection of SHA-256 PCRs; pcrs: bit i is PCR i, below TPM_PCRS. */
TPML_PCR_SELECTION tpm_pcr_selection(uint32_t pcrs) MUST_USE;

/*
 * Whether pcrs names at least one PCR, at most `most`, and none that does not exist; else
 * SECPOOL_E_INVALID.
 */
enum secpool_error tpm_check_pcrs(uint32_t pcrs, unsigned most) MUST_USE;

/*
 * An ECC P-256 storage key, or with rsa an RSA-2048 one (restricted, decrypt, AES-128-CFB, sensitiveDataOrigin, fixedTPM,
 * fixedParent) with the given further attributes and policy (NULL: none), as a primary of the
 * hierarchy. The caller flushes *ret_handle.
 * Errors: SECPOOL_E_TPM.
 */
enum secpool_error tpm_make_primary(struct tpm *tpm, ESYS_CONTEXT *esys, ESYS_TR hierarchy, bool rsa,
	TPMA_OBJECT more_attributes, const TPM2B_DIGEST *policy, ESYS_TR *ret_handle,
	TPM2B_PUBLIC **ret_public) MUST_USE;

/* The name of a loaded key. Errors: SECPOOL_E_TPM. */
enum secpool_error tpm_name_of(struct tpm *tpm, ESYS_CONTEXT *esys, ESYS_TR handle,
	uint8_t ret_name[TPM_NAME_BYTES]) MUST_USE;

/*
 * Flushes *handle if it is not ESYS_TR_NONE and sets it to that. A refusal is of no interest:
 * tpm_open sweeps.
 */
void tpm_flush(struct tpm *tpm, ESYS_CONTEXT *esys, ESYS_TR *handle);

/*
 * A stored object: magic, a number (the PCR mask, or 0), the name of the key it lies under,
 * public and private area. blob: TPM_BLOB_BYTES bytes. Errors of both: SECPOOL_E_TPM, what:
 * "sealed key" or the like. get refuses any bytes that put did not write.
 */
struct tpm_blob {
	uint32_t magic, number;
	uint8_t parent[TPM_NAME_BYTES];
	TPM2B_PUBLIC public_area;
	TPM2B_PRIVATE private_area;
};
enum secpool_error tpm_blob_put(
	const struct tpm_blob *from, const char *what, uint8_t *blob, size_t *ret_bytes) MUST_USE;
enum secpool_error tpm_blob_get(const uint8_t *blob, size_t bytes, uint32_t magic, const char *what,
	struct tpm_blob *ret_blob) MUST_USE;

#endif
