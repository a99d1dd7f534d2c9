/* SPDX-License-Identifier: Apache-2.0 */
/* Sealing under the SRK, to PCRs and to values of a counter. */
#include "enclave/tpm_work.h"

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

static enum secpool_error add_pcr_policy(struct tpm_work *work, uint32_t pcrs)
{
	const TPML_PCR_SELECTION selection = tpm_pcr_selection(pcrs);
	const TPM2B_DIGEST as_they_are = {.size = 0};
	TSS2_RC rc = Esys_PolicyPCR(work->esys, work->session, ESYS_TR_NONE, ESYS_TR_NONE,
		ESYS_TR_NONE, &as_they_are, &selection);

	return rc ? tpm_failed(work->tpm, rc, "TPM2_PolicyPCR") : SECPOOL_OK;
}

static enum secpool_error compare_counter(
	struct tpm_work *work, ESYS_TR counter, uint64_t value, TPM2_EO operation)
{
	TPM2B_OPERAND operand = {.size = sizeof value};
	TSS2_RC rc;

	for (unsigned i = 0; i < sizeof value; i++)
		operand.buffer[i] = (BYTE)(value >> (56 - 8 * i));
	rc = Esys_PolicyNV(work->esys, ESYS_TR_RH_OWNER, counter, work->session, ESYS_TR_PASSWORD,
		ESYS_TR_NONE, ESYS_TR_NONE, &operand, 0, operation);
	if (rc == TPM2_RC_POLICY)
		return err_set(SECPOOL_E_TPM,
			"the TPM's counter has another value than the " SEAL_WHAT
			" was sealed to: it was rolled back, put back the newest");
	return rc ? tpm_failed(work->tpm, rc, "TPM2_PolicyNV") : SECPOOL_OK;
}

/* The counter is at one of its values (TPM 2.0 part 3, section 23.9). */
static enum secpool_error add_counter_policy(
	struct tpm_work *work, const struct tpm_counter *counter)
{
	ESYS_TR object = ESYS_TR_NONE;
	enum secpool_error error = tpm_work_counter(work, counter->index, &object);

	if (!error)
		error = compare_counter(work, object, counter->first, TPM2_EO_UNSIGNED_GE);
	if (!error)
		error = compare_counter(work, object, counter->last, TPM2_EO_UNSIGNED_LE);
	return error;
}

static enum secpool_error add_policy(
	struct tpm_work *work, uint32_t pcrs, const struct tpm_counter *counter)
{
	enum secpool_error error = add_pcr_policy(work, pcrs);

	return error || !counter ? error : add_counter_policy(work, counter);
}

/* The policy digest for these PCRs as they are now, from a trial session. */
static enum secpool_error trial_policy(struct tpm_work *work, uint32_t pcrs,
	const struct tpm_counter *counter, TPM2B_DIGEST *ret_policy)
{
	enum secpool_error error = tpm_work_session(work, TPM2_SE_TRIAL, 0);
	TPM2B_DIGEST *digest = NULL;
	TSS2_RC rc;

	if (!error)
		error = add_policy(work, pcrs, counter);
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

static enum secpool_error create_sealed(struct tpm_work *work, const TPM2B_DIGEST *policy,
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

/* From now on this connection is to that TPM and no other. */
static void pin(struct tpm_work *work)
{
	memcpy(work->tpm->srk_name, work->srk_name, TPM_NAME_BYTES);
	work->tpm->srk_pinned = true;
}

enum secpool_error tpm_seal(struct tpm *tpm, uint32_t pcrs, const struct tpm_counter *counter,
	const void *secret, size_t secret_bytes, uint8_t *blob, size_t *ret_blob_bytes)
{
	struct tpm_blob made = {.magic = SEAL_MAGIC, .number = pcrs};
	enum secpool_error error = tpm_check_pcrs(pcrs, TPM_PCRS);
	TPM2B_DIGEST policy;
	struct tpm_work work;

	if (error)
		return error;
	if (secret_bytes == 0 || secret_bytes > SEALED_MOST)
		return err_set(SECPOOL_E_INVALID, "%zu bytes can't be sealed: 1 to %d can",
			secret_bytes, SEALED_MOST);
	error = tpm_work_begin(&work, tpm);
	if (!error)
		error = trial_policy(&work, pcrs, counter, &policy);
	if (!error)
		error = tpm_work_session(
			&work, TPM2_SE_HMAC, TPMA_SESSION_DECRYPT | TPMA_SESSION_ENCRYPT);
	if (!error)
		error = create_sealed(&work, &policy, secret, secret_bytes, &made);
	if (!error) {
		memcpy(made.parent, work.srk_name, TPM_NAME_BYTES);
		error = tpm_blob_put(&made, SEAL_WHAT, blob, ret_blob_bytes);
		pin(&work);
	}
	tpm_work_end(&work);
	return error;
}

static enum secpool_error load_sealed(struct tpm_work *work, const struct tpm_blob *blob)
{
	TSS2_RC rc;

	if (CRYPTO_memcmp(work->srk_name, blob->parent, TPM_NAME_BYTES) != 0)
		return err_set(SECPOOL_E_TPM,
			"sealed to another TPM: %s has another storage key than the one that "
			"sealed this",
			work->tpm->where);
	rc = Esys_Load(work->esys, work->srk, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE,
		&blob->private_area, &blob->public_area, &work->object);
	if (!rc) {
		pin(work);
		return SECPOOL_OK;
	}
	work->object = ESYS_TR_NONE;
	if (tpm_plain_code(rc) == TPM2_RC_INTEGRITY)
		return err_set(SECPOOL_E_TPM, "the " SEAL_WHAT " was changed since it was sealed");
	return tpm_failed(work->tpm, rc, "TPM2_Load of the " SEAL_WHAT);
}

/* One attempt; *ret_again: a PCR that does not concern us changed between two commands. */
static enum secpool_error unseal_once(struct tpm_work *work, uint32_t pcrs,
	const struct tpm_counter *counter, void *ret_secret, size_t secret_bytes, bool *ret_again)
{
	enum secpool_error error = tpm_work_session(work, TPM2_SE_POLICY, TPMA_SESSION_ENCRYPT);
	TPM2B_SENSITIVE_DATA *data = NULL;
	TSS2_RC rc;

	if (!error)
		error = add_policy(work, pcrs, counter);
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

enum secpool_error tpm_unseal(struct tpm *tpm, const struct tpm_counter *counter,
	const uint8_t *blob, size_t blob_bytes, void *ret_secret, size_t secret_bytes)
{
	struct tpm_blob sealed;
	enum secpool_error error = tpm_blob_get(blob, blob_bytes, SEAL_MAGIC, SEAL_WHAT, &sealed);
	bool again = true;
	struct tpm_work work;

	if (error)
		return error;
	error = tpm_check_pcrs(sealed.number, TPM_PCRS);
	if (error)
		return err_set(SECPOOL_E_TPM, "the " SEAL_WHAT " is damaged: %s", err_detail());
	error = tpm_work_begin(&work, tpm);
	if (!error)
		error = load_sealed(&work, &sealed);
	for (unsigned i = 0; i < UNSEAL_TRIES && again && (!error || i > 0); i++) {
		again = false;
		error = unseal_once(
			&work, sealed.number, counter, ret_secret, secret_bytes, &again);
	}
	tpm_work_end(&work);
	return error;
}
