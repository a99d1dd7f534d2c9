/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/tpm_work.h"

#include <openssl/crypto.h>

enum secpool_error tpm_work_begin(struct tpm_work *work, struct tpm *tpm)
{
	TPM2B_PUBLIC *area = NULL;
	enum secpool_error error = tpm_usable(tpm);
	TSS2_RC rc;

	*work = (struct tpm_work){
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
	error = tpm_name_of(tpm, work->esys, work->srk, work->srk_name);
	if (!error && tpm->srk_pinned &&
		CRYPTO_memcmp(tpm->srk_name, work->srk_name, TPM_NAME_BYTES) != 0)
		error = err_set(SECPOOL_E_TPM,
			"the TPM at %s has another storage key than before: it was exchanged",
			tpm->where);
	return error;
}

void tpm_work_end(struct tpm_work *work)
{
	tpm_flush(work->tpm, work->esys, &work->object);
	tpm_flush(work->tpm, work->esys, &work->session);
	tpm_flush(work->tpm, work->esys, &work->srk);
	if (work->esys)
		Esys_Finalize(&work->esys);
}

enum secpool_error tpm_work_session(struct tpm_work *work, TPM2_SE type, TPMA_SESSION attributes)
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

enum secpool_error tpm_work_counter(struct tpm_work *work, uint32_t index, ESYS_TR *ret_counter)
{
	ESYS_TR counter = ESYS_TR_NONE;
	TSS2_RC rc = Esys_TR_FromTPMPublic(
		work->esys, index, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &counter);

	if (tpm_plain_code(rc) == TPM2_RC_HANDLE)
		return err_set(SECPOOL_E_NOT_FOUND,
			"the TPM at %s has no counter 0x%x: it was cleared, or is another TPM",
			work->tpm->where, index);
	if (rc)
		return tpm_failed(work->tpm, rc, "TPM2_NV_ReadPublic");
	*ret_counter = counter;
	return SECPOOL_OK;
}
