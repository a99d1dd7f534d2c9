/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sealing under the SRK. Each call has an ESYS context of its own, freed at its end: tpm2-tss
 * keeps copies of a command's parameters in it, the secret among them.
 */
#include "enclave/tpm_context.h"

#include <openssl/crypto.h>
#include <string.h>

#include "enclave/secmem.h"

#define SEAL_MAGIC 0x4c415053u /* "SPAL" */
#define SEAL_WHAT  "sealed key"
/*
 * The most that a TPM seals (MAX_SYM_DATA, TPM 2.0 part 2, annex). How often an unseal is tried
 * while other PCRs are extended.
 */
enum { SEALED_MOST = 128, UNSEAL_TRIES = 4 };

/* One seal or unseal. */
struct work {
	struct tpm *tpm;
	ESYS_CONTEXT *esys;
	ESYS_TR srk, session, object;
	uint8_t srk_name[TPM_NAME_BYTES];
};

static enum secpool_error work_begin(struct work *work, struct tpm *tpm)
{
	TPM2B_PUBLIC *area = NULL;
	enum secpool_error error = tpm_usable(tpm);
	TSS2_RC rc;

	*work = (struct work){
		.tpm = tpm, .srk = ESYS_TR_NONE, .session = ESYS_TR_NONE, .object = ESYS_TR_NONE};
	if (error)
		return error;
	rc = Esys_Initialize(&work->esys, tpm->tcti, NULL);
	if (rc)
		return tpm_failed(tpm, rc, "Esys_Initialize");
	error = tpm_make_primary(tpm, work->esys, ESYS_TR_RH_OWNER, false,
		TPMA_OBJECT_USERWITHAUTH | TPMA_OBJECT_NODA, NULL, &work->srk, &area);
	if (error)
		return error;
	Esys_Free(area);
	return tpm_name_of(tpm, work->esys, work->srk, work->srk_name);
}

static void work_end(struct work *work)
{
	tpm_flush(work->tpm, work->esys, &work->object);
	tpm_flush(work->tpm, work->esys, &work->session);
	tpm_flush(work->tpm, work->esys, &work->srk);
	if (work->esys)
		Esys_Finalize(&work->esys);
}

/*
 * A session salted by the SRK (an unsalted one can be decrypted by who reads the bus), with
 * parameters encrypted in the ways that attributes name.
 */
static enum secpool_error start_session(struct work *work, TPM2_SE type, TPMA_SESSION attributes)
{
	const TPMT_SYM_DEF aes = {
		.algorithm = TPM2_ALG_AES, .keyBits.aes = 128, .mode.aes = TPM2_ALG_CFB};
	TSS2_RC rc;

	rc = Esys_StartAuthSession(work->esys, work->srk, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE,
		ESYS_TR_NONE, NULL, type, &aes, TPM2_ALG_SHA256, &work->session);
	if (rc) {
		work->session = ESYS_TR_NONE;
		return tpm_failed(work->tpm, rc, "TPM2_StartAuthSession");
	}
	attributes |= TPMA_SESSION_CONTINUESESSION;
	rc = Esys_TRSess_SetAttributes(work->esys, work->session, attributes, 0xff);
	return rc ? tpm_failed(work->tpm, rc, "session attributes") : SECPOOL_OK;
}

static enum secpool_error add_pcr_policy(struct work *work, uint32_t pcrs)
{
	const TPML_PCR_SELECTION selection = tpm_pcr_selection(pcrs);
	const TPM2B_DIGEST as_they_are = {.size = 0};
	TSS2_RC rc = Esys_PolicyPCR(work->esys, work->session, ESYS_TR_NONE, ESYS_TR_NONE,
		ESYS_TR_NONE, &as_they_are, &selection);

	return rc ? tpm_failed(work->tpm, rc, "TPM2_PolicyPCR") : SECPOOL_OK;
}

/* The policy digest for these PCRs as they are now, from a trial session. */
static enum secpool_error trial_policy(struct work *work, uint32_t pcrs, TPM2B_DIGEST *ret_policy)
{
	enum secpool_error error = start_session(work, TPM2_SE_TRIAL, 0);
	TPM2B_DIGEST *digest = NULL;
	TSS2_RC rc;

	if (!error)
		error = add_pcr_policy(work, pcrs);
	if (error)
		return error;
	rc = Esys_PolicyGetDigest(
		work->esys, work->session, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &digest);
	if (rc)
		return tpm_failed(work->tpm, rc, "TPM2_PolicyGetDigest");
	*ret_policy = *digest;
	Esys_Free(digest);
	tpm_flush(work->tpm, work->esys, &work->session);
	return SECPOOL_OK;
}

static enum secpool_error create_sealed(struct work *work, const TPM2B_DIGEST *policy,
	const void *secret, size_t secret_bytes, struct tpm_blob *ret_blob)
{
	const TPM2B_DATA outside = {.size = 0};
	const TPML_PCR_SELECTION creation = {.count = 0};
	TPM2B_SENSITIVE_CREATE sensitive = {.size = 0};
	TPM2B_PUBLIC template = {.size = 0};
	TPM2B_PRIVATE *private_area = NULL;
	TPM2B_PUBLIC *public_area = NULL;
	TPM2B_CREATION_DATA *data = NULL;
	TPM2B_DIGEST *hash = NULL;
	TPMT_TK_CREATION *ticket = NULL;
	TSS2_RC rc;

	template.publicArea.type = TPM2_ALG_KEYEDHASH;
	template.publicArea.nameAlg = TPM2_ALG_SHA256;
	template.publicArea.objectAttributes = TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT |
					       TPMA_OBJECT_NODA | TPMA_OBJECT_ADMINWITHPOLICY;
	template.publicArea.authPolicy = *policy;
	template.publicArea.parameters.keyedHashDetail.scheme.scheme = TPM2_ALG_NULL;
	sensitive.sensitive.data.size = (UINT16)secret_bytes;
	memcpy(sensitive.sensitive.data.buffer, secret, secret_bytes);
	rc = Esys_Create(work->esys, work->srk, work->session, ESYS_TR_NONE, ESYS_TR_NONE,
		&sensitive, &template, &outside, &creation, &private_area, &public_area, &data,
		&hash, &ticket);
	secmem_wipe(&sensitive, sizeof sensitive);
	if (rc)
		return tpm_failed(work->tpm, rc, "TPM2_Create");
	ret_blob->public_area = *public_area;
	ret_blob->private_area = *private_area;
	Esys_Free(private_area);
	Esys_Free(public_area);
	Esys_Free(data);
	Esys_Free(hash);
	Esys_Free(ticket);
	return SECPOOL_OK;
}

enum secpool_error tpm_seal(struct tpm *tpm, uint32_t pcrs, const void *secret, size_t secret_bytes,
	uint8_t *blob, size_t *ret_blob_bytes)
{
	struct tpm_blob made = {.magic = SEAL_MAGIC, .number = pcrs};
	enum secpool_error error = tpm_check_pcrs(pcrs, TPM_PCRS);
	TPM2B_DIGEST policy;
	struct work work;

	if (error)
		return error;
	if (secret_bytes == 0 || secret_bytes > SEALED_MOST)
		return err_set(SECPOOL_E_INVALID, "%zu bytes can't be sealed: 1 to %d can",
			secret_bytes, SEALED_MOST);
	error = work_begin(&work, tpm);
	if (!error)
		error = trial_policy(&work, pcrs, &policy);
	if (!error)
		error = start_session(
			&work, TPM2_SE_HMAC, TPMA_SESSION_DECRYPT | TPMA_SESSION_ENCRYPT);
	if (!error)
		error = create_sealed(&work, &policy, secret, secret_bytes, &made);
	if (!error) {
		memcpy(made.parent, work.srk_name, TPM_NAME_BYTES);
		error = tpm_blob_put(&made, SEAL_WHAT, blob, ret_blob_bytes);
	}
	work_end(&work);
	return error;
}

static enum secpool_error load_sealed(struct work *work, const struct tpm_blob *blob)
{
	TSS2_RC rc;

	if (CRYPTO_memcmp(work->srk_name, blob->parent, TPM_NAME_BYTES) != 0)
		return err_set(SECPOOL_E_TPM,
			"sealed to another TPM: %s has another storage key than the one that "
			"sealed this",
			work->tpm->where);
	rc = Esys_Load(work->esys, work->srk, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE,
		&blob->private_area, &blob->public_area, &work->object);
	if (!rc)
		return SECPOOL_OK;
	work->object = ESYS_TR_NONE;
	if (tpm_plain_code(rc) == TPM2_RC_INTEGRITY)
		return err_set(SECPOOL_E_TPM, "the " SEAL_WHAT " was changed since it was sealed");
	return tpm_failed(work->tpm, rc, "TPM2_Load of the " SEAL_WHAT);
}

/* One attempt; *ret_again: a PCR that does not concern us changed between two commands. */
static enum secpool_error unseal_once(
	struct work *work, uint32_t pcrs, void *ret_secret, size_t secret_bytes, bool *ret_again)
{
	enum secpool_error error = start_session(work, TPM2_SE_POLICY, TPMA_SESSION_ENCRYPT);
	TPM2B_SENSITIVE_DATA *data = NULL;
	TSS2_RC rc;

	if (!error)
		error = add_pcr_policy(work, pcrs);
	if (error)
		return error;
	rc = Esys_Unseal(
		work->esys, work->object, work->session, ESYS_TR_NONE, ESYS_TR_NONE, &data);
	tpm_flush(work->tpm, work->esys, &work->session);
	*ret_again = rc == TPM2_RC_PCR_CHANGED;
	if (tpm_plain_code(rc) == TPM2_RC_POLICY_FAIL)
		return err_set(SECPOOL_E_TPM,
			"PCRs changed: the TPM at %s gives the " SEAL_WHAT
			" back only in the state it was sealed in (PCR mask 0x%x)",
			work->tpm->where, pcrs);
	if (rc)
		return tpm_failed(work->tpm, rc, "TPM2_Unseal");
	if (data->size != secret_bytes)
		error = err_set(SECPOOL_E_TPM, "the " SEAL_WHAT " has %u bytes instead of %zu",
			data->size, secret_bytes);
	else
		memcpy(ret_secret, data->buffer, secret_bytes);
	secmem_wipe(data, sizeof *data);
	Esys_Free(data);
	return error;
}

enum secpool_error tpm_unseal(struct tpm *tpm, const uint8_t *blob, size_t blob_bytes,
	void *ret_secret, size_t secret_bytes)
{
	struct tpm_blob sealed;
	enum secpool_error error = tpm_blob_get(blob, blob_bytes, SEAL_MAGIC, SEAL_WHAT, &sealed);
	bool again = true;
	struct work work;

	if (error)
		return error;
	error = tpm_check_pcrs(sealed.number, TPM_PCRS);
	if (error)
		return err_set(SECPOOL_E_TPM, "the " SEAL_WHAT " is damaged: %s", err_detail());
	error = work_begin(&work, tpm);
	if (!error)
		error = load_sealed(&work, &sealed);
	for (unsigned i = 0; i < UNSEAL_TRIES && again && (!error || i > 0); i++) {
		again = false;
		error = unseal_once(&work, sealed.number, ret_secret, secret_bytes, &again);
	}
	work_end(&work);
	return error;
}
