/* SPDX-License-Identifier: Apache-2.0 */
/* The endorsement and attestation keys, credential activation, quotes, and extending a PCR. */
#include "enclave/tpm_context.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <string.h>
#include <tss2/tss2_mu.h>

#include "enclave/secmem.h"

#define AK_MAGIC 0x4b415053u /* "SPAK" */
#define AK_WHAT	 "attestation key"
enum { NONCE_MOST = 64, QUOTE_TRIES = 4, DIGEST_BYTES = 32 };

/* PolicyA_SHA256, that is PolicySecret(endorsement): TCG EK Credential Profile 2.5, B.6.3 */
static const TPM2B_DIGEST EK_POLICY = {.size = 32,
	.buffer = {0x83, 0x71, 0x97, 0x67, 0x44, 0x84, 0xb3, 0xf8, 0x1a, 0x90, 0xcc, 0x8d, 0x46,
		0xa5, 0xd7, 0x24, 0xfd, 0x52, 0xd7, 0x6e, 0x06, 0x52, 0x0b, 0x64, 0xf2, 0xa1, 0xda,
		0x1b, 0x33, 0x14, 0x69, 0xaa}};

/* A policy session that satisfies the EK's policy; it serves one use. */
static enum secpool_error ek_session(struct tpm *tpm, ESYS_TR *ret_session)
{
	const TPMT_SYM_DEF none = {.algorithm = TPM2_ALG_NULL};
	TSS2_RC rc;

	rc = Esys_StartAuthSession(tpm->esys, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE,
		ESYS_TR_NONE, ESYS_TR_NONE, NULL, TPM2_SE_POLICY, &none, TPM2_ALG_SHA256,
		ret_session);
	if (rc) {
		*ret_session = ESYS_TR_NONE;
		return tpm_failed(tpm, rc, "TPM2_StartAuthSession");
	}
	rc = Esys_PolicySecret(tpm->esys, ESYS_TR_RH_ENDORSEMENT, *ret_session, ESYS_TR_PASSWORD,
		ESYS_TR_NONE, ESYS_TR_NONE, NULL, NULL, NULL, 0, NULL, NULL);
	if (!rc)
		return SECPOOL_OK;
	tpm_flush(tpm, tpm->esys, ret_session);
	return tpm_failed(tpm, rc, "TPM2_PolicySecret(endorsement)");
}

/* Restricted: it signs nothing that the TPM did not make itself. */
static enum secpool_error create_key(struct tpm *tpm, ESYS_TR session, struct tpm_blob *ret_blob)
{
	const TPM2B_SENSITIVE_CREATE sensitive = {.size = 0};
	const TPM2B_DATA outside = {.size = 0};
	const TPML_PCR_SELECTION creation = {.count = 0};
	TPM2B_PUBLIC template = {.size = 0}, *public_area = NULL;
	TPMS_ECC_PARMS *ecc = &template.publicArea.parameters.eccDetail;
	TPM2B_PRIVATE *private_area = NULL;
	TPM2B_CREATION_DATA *data = NULL;
	TPM2B_DIGEST *hash = NULL;
	TPMT_TK_CREATION *ticket = NULL;
	TSS2_RC rc;

	template.publicArea.type = TPM2_ALG_ECC;
	template.publicArea.nameAlg = TPM2_ALG_SHA256;
	template.publicArea.objectAttributes = TPMA_OBJECT_RESTRICTED | TPMA_OBJECT_SIGN_ENCRYPT |
					       TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT |
					       TPMA_OBJECT_SENSITIVEDATAORIGIN |
					       TPMA_OBJECT_USERWITHAUTH | TPMA_OBJECT_NODA;
	ecc->symmetric.algorithm = TPM2_ALG_NULL;
	ecc->scheme.scheme = TPM2_ALG_ECDSA;
	ecc->scheme.details.ecdsa.hashAlg = TPM2_ALG_SHA256;
	ecc->curveID = TPM2_ECC_NIST_P256;
	ecc->kdf.scheme = TPM2_ALG_NULL;
	rc = Esys_Create(tpm->esys, tpm->ek, session, ESYS_TR_NONE, ESYS_TR_NONE, &sensitive,
		&template, &outside, &creation, &private_area, &public_area, &data, &hash, &ticket);
	if (rc)
		return tpm_failed(tpm, rc, "TPM2_Create of the " AK_WHAT);
	ret_blob->public_area = *public_area;
	ret_blob->private_area = *private_area;
	Esys_Free(private_area);
	Esys_Free(public_area);
	Esys_Free(data);
	Esys_Free(hash);
	Esys_Free(ticket);
	return SECPOOL_OK;
}

static enum secpool_error load_key(struct tpm *tpm, const struct tpm_blob *blob)
{
	ESYS_TR session = ESYS_TR_NONE;
	enum secpool_error error = ek_session(tpm, &session);
	TSS2_RC rc;

	if (error)
		return error;
	rc = Esys_Load(tpm->esys, tpm->ek, session, ESYS_TR_NONE, ESYS_TR_NONE, &blob->private_area,
		&blob->public_area, &tpm->ak);
	if (!rc) {
		tpm_flush(tpm, tpm->esys, &session);
		return SECPOOL_OK;
	}
	tpm->ak = ESYS_TR_NONE;
	tpm_flush(tpm, tpm->esys, &session);
	if (tpm_plain_code(rc) == TPM2_RC_INTEGRITY)
		return err_set(
			SECPOOL_E_TPM, "the " AK_WHAT "'s blob was changed since it was made");
	return tpm_failed(tpm, rc, "TPM2_Load of the " AK_WHAT);
}

static enum secpool_error put_public(const TPM2B_PUBLIC *from, struct tpm_public *ret_public)
{
	size_t used = 0;

	if (Tss2_MU_TPM2B_PUBLIC_Marshal(from, ret_public->area, sizeof ret_public->area, &used))
		return err_set(SECPOOL_E_TPM, "a public area is too long");
	ret_public->bytes = used;
	return SECPOOL_OK;
}

static enum secpool_error make_ek(struct tpm *tpm, TPM2B_PUBLIC **ret_area)
{
	enum secpool_error error = tpm_make_primary(tpm, tpm->esys, ESYS_TR_RH_ENDORSEMENT,
		tpm->ek_rsa, TPMA_OBJECT_ADMINWITHPOLICY, &EK_POLICY, &tpm->ek, ret_area);

	if (error)
		tpm->ek = ESYS_TR_NONE;
	return error;
}

/* The key from the blob, or a new one for an empty blob; then it is loaded. */
static enum secpool_error take_key(
	struct tpm *tpm, const uint8_t *blob, size_t blob_bytes, struct tpm_blob *ret_key)
{
	uint8_t ek_name[TPM_NAME_BYTES];
	ESYS_TR session = ESYS_TR_NONE;
	enum secpool_error error = tpm_name_of(tpm, tpm->esys, tpm->ek, ek_name);

	if (error)
		return error;
	if (blob_bytes == 0) {
		*ret_key = (struct tpm_blob){.magic = AK_MAGIC};
		memcpy(ret_key->parent, ek_name, TPM_NAME_BYTES);
		error = ek_session(tpm, &session);
		if (!error)
			error = create_key(tpm, session, ret_key);
		tpm_flush(tpm, tpm->esys, &session);
	} else {
		error = tpm_blob_get(blob, blob_bytes, AK_MAGIC, AK_WHAT, ret_key);
		if (!error && ret_key->number != 0)
			error = err_set(SECPOOL_E_TPM, "the " AK_WHAT "'s blob is damaged");
		if (!error && CRYPTO_memcmp(ek_name, ret_key->parent, TPM_NAME_BYTES) != 0)
			error = err_set(SECPOOL_E_TPM,
				"the " AK_WHAT " belongs to another TPM than the one at %s",
				tpm->where);
	}
	return error ? error : load_key(tpm, ret_key);
}

enum secpool_error tpm_attestation_key(struct tpm *tpm, uint8_t *blob, size_t *blob_bytes,
	struct tpm_public *ret_ek, struct tpm_public *ret_ak)
{
	struct tpm_blob key = {.number = 0};
	struct tpm_public ek, ak;
	TPM2B_PUBLIC *ek_area = NULL;
	enum secpool_error error = tpm_usable(tpm);
	size_t made_bytes = *blob_bytes;

	if (error)
		return error;
	tpm_flush(tpm, tpm->esys, &tpm->ak);
	tpm_flush(tpm, tpm->esys, &tpm->ek);
	error = make_ek(tpm, &ek_area);
	if (error)
		return error;
	error = take_key(tpm, blob, *blob_bytes, &key);
	if (!error)
		error = put_public(ek_area, &ek);
	if (!error)
		error = put_public(&key.public_area, &ak);
	if (!error && *blob_bytes == 0)
		error = tpm_blob_put(&key, AK_WHAT, blob, &made_bytes);
	Esys_Free(ek_area);
	/*
	 * a TPM has room for three objects, and sealing needs two of them: the EK is made again
	 * where it is used
	 */
	tpm_flush(tpm, tpm->esys, &tpm->ek);
	if (error) {
		tpm_flush(tpm, tpm->esys, &tpm->ak);
		return error;
	}
	*blob_bytes = made_bytes;
	*ret_ek = ek;
	*ret_ak = ak;
	return SECPOOL_OK;
}

static enum secpool_error need_key(const struct tpm *tpm)
{
	enum secpool_error error = tpm_usable(tpm);

	if (!error && tpm->ak == ESYS_TR_NONE)
		error = err_set(
			SECPOOL_E_INVALID, "the TPM at %s has no " AK_WHAT " loaded", tpm->where);
	return error;
}

enum secpool_error tpm_activate(struct tpm *tpm, const uint8_t *credential, size_t credential_bytes,
	const uint8_t *encrypted_secret, size_t encrypted_secret_bytes, uint8_t *secret,
	size_t *ret_secret_bytes)
{
	TPM2B_ID_OBJECT object = {.size = 0};
	TPM2B_ENCRYPTED_SECRET sealed = {.size = 0};
	ESYS_TR session = ESYS_TR_NONE;
	size_t object_used = 0, sealed_used = 0;
	enum secpool_error error = need_key(tpm);
	TPM2B_PUBLIC *ek_area = NULL;
	TPM2B_DIGEST *found = NULL;
	TSS2_RC rc;

	if (error)
		return error;
	if (Tss2_MU_TPM2B_ID_OBJECT_Unmarshal(
		    credential, credential_bytes, &object_used, &object) ||
		Tss2_MU_TPM2B_ENCRYPTED_SECRET_Unmarshal(
			encrypted_secret, encrypted_secret_bytes, &sealed_used, &sealed) ||
		object_used != credential_bytes || sealed_used != encrypted_secret_bytes)
		return err_set(SECPOOL_E_INVALID, "the challenge is malformed");
	error = make_ek(tpm, &ek_area);
	if (error)
		return error;
	Esys_Free(ek_area);
	error = ek_session(tpm, &session);
	if (error) {
		tpm_flush(tpm, tpm->esys, &tpm->ek);
		return error;
	}
	rc = Esys_ActivateCredential(tpm->esys, tpm->ak, tpm->ek, ESYS_TR_PASSWORD, session,
		ESYS_TR_NONE, &object, &sealed, &found);
	tpm_flush(tpm, tpm->esys, &session);
	tpm_flush(tpm, tpm->esys, &tpm->ek);
	if (tpm_plain_code(rc) == TPM2_RC_INTEGRITY)
		return err_set(SECPOOL_E_TPM,
			"the challenge was made for another TPM or another " AK_WHAT);
	if (rc)
		return tpm_failed(tpm, rc, "TPM2_ActivateCredential");
	memcpy(secret, found->buffer, found->size);
	*ret_secret_bytes = found->size;
	secmem_wipe(found, sizeof *found);
	Esys_Free(found);
	return SECPOOL_OK;
}

/*
 * Reads the PCRs one by one: a TPM gives at most eight a call, and need not give all that were
 * asked for.
 */
static enum secpool_error read_pcrs(struct tpm *tpm, uint32_t pcrs, struct tpm_quote *quote)
{
	quote->pcr_count = 0;
	for (unsigned pcr = 0; pcr < TPM_PCRS; pcr++) {
		const TPML_PCR_SELECTION selection = tpm_pcr_selection(1u << pcr);
		TPML_PCR_SELECTION *given = NULL;
		TPML_DIGEST *values = NULL;
		UINT32 counter;
		bool good;
		TSS2_RC rc;

		if (!(pcrs & 1u << pcr))
			continue;
		rc = Esys_PCR_Read(tpm->esys, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &selection,
			&counter, &given, &values);
		if (rc)
			return tpm_failed(tpm, rc, "TPM2_PCR_Read");
		good = values->count == 1 && values->digests[0].size == TPM_PCR_BYTES;
		if (good)
			memcpy(quote->pcr_values[quote->pcr_count++], values->digests[0].buffer,
				TPM_PCR_BYTES);
		Esys_Free(given);
		Esys_Free(values);
		if (!good)
			return err_set(
				SECPOOL_E_TPM, "TPM at %s has no SHA-256 PCR %u", tpm->where, pcr);
	}
	return SECPOOL_OK;
}

static enum secpool_error sign_quote(struct tpm *tpm, const TPM2B_DATA *nonce,
	const TPML_PCR_SELECTION *selection, struct tpm_quote *quote)
{
	const TPMT_SIG_SCHEME keys_own = {.scheme = TPM2_ALG_NULL};
	enum secpool_error error = SECPOOL_OK;
	TPM2B_ATTEST *attest = NULL;
	TPMT_SIGNATURE *signature = NULL;
	size_t used = 0;
	TSS2_RC rc;

	rc = Esys_Quote(tpm->esys, tpm->ak, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, nonce,
		&keys_own, selection, &attest, &signature);
	if (rc)
		return tpm_failed(tpm, rc, "TPM2_Quote");
	if (attest->size > sizeof quote->attest ||
		Tss2_MU_TPMT_SIGNATURE_Marshal(
			signature, quote->signature, sizeof quote->signature, &used)) {
		error = err_set(SECPOOL_E_TPM, "the quote is too long");
	} else {
		memcpy(quote->attest, attest->attestationData, attest->size);
		quote->attest_bytes = attest->size;
		quote->signature_bytes = used;
	}
	Esys_Free(attest);
	Esys_Free(signature);
	return error;
}

/*
 * Whether the values that were read are those that were quoted: a PCR may have been extended
 * between.
 */
static bool same_values(const struct tpm_quote *quote)
{
	uint8_t digest[DIGEST_BYTES];
	TPMS_ATTEST attest;
	size_t used = 0;

	if (Tss2_MU_TPMS_ATTEST_Unmarshal(quote->attest, quote->attest_bytes, &used, &attest) ||
		attest.type != TPM2_ST_ATTEST_QUOTE ||
		attest.attested.quote.pcrDigest.size != DIGEST_BYTES ||
		EVP_Digest(quote->pcr_values, (size_t)quote->pcr_count * TPM_PCR_BYTES, digest,
			NULL, EVP_sha256(), NULL) != 1)
		return false;
	return CRYPTO_memcmp(digest, attest.attested.quote.pcrDigest.buffer, DIGEST_BYTES) == 0;
}

enum secpool_error tpm_quote(struct tpm *tpm, uint32_t pcrs, const uint8_t *nonce,
	size_t nonce_bytes, struct tpm_quote *ret_quote)
{
	const TPML_PCR_SELECTION selection = tpm_pcr_selection(pcrs);
	enum secpool_error error = tpm_check_pcrs(pcrs, TPM_PCRS_MOST);
	TPM2B_DATA qualifying = {.size = (UINT16)nonce_bytes};
	struct tpm_quote quote;

	if (!error && nonce_bytes > NONCE_MOST)
		error = err_set(SECPOOL_E_INVALID, "a nonce of %zu bytes is too long, %d may be",
			nonce_bytes, NONCE_MOST);
	if (!error)
		error = need_key(tpm);
	if (error)
		return error;
	if (nonce_bytes > 0)
		memcpy(qualifying.buffer, nonce, nonce_bytes);
	for (unsigned i = 0; i < QUOTE_TRIES; i++) {
		memset(&quote, 0, sizeof quote);
		error = sign_quote(tpm, &qualifying, &selection, &quote);
		if (!error)
			error = read_pcrs(tpm, pcrs, &quote);
		if (error)
			return error;
		if (same_values(&quote)) {
			*ret_quote = quote;
			return SECPOOL_OK;
		}
	}
	return err_set(SECPOOL_E_TPM,
		"TPM at %s: its PCRs changed while they were quoted, again and again", tpm->where);
}

enum secpool_error tpm_extend(struct tpm *tpm, unsigned pcr, const char *text)
{
	TPML_DIGEST_VALUES digests = {.count = 1};
	enum secpool_error error;
	TSS2_RC rc;

	if (pcr >= TPM_PCRS)
		return err_set(SECPOOL_E_INVALID, "there is no PCR %u, the last one is %d", pcr,
			TPM_PCRS - 1);
	error = tpm_usable(tpm);
	if (error)
		return error;
	digests.digests[0].hashAlg = TPM2_ALG_SHA256;
	if (EVP_Digest(text, strlen(text), digests.digests[0].digest.sha256, NULL, EVP_sha256(),
		    NULL) != 1)
		return err_set(SECPOOL_E_CRYPTO, "SHA-256 failed");
	rc = Esys_PCR_Extend(tpm->esys, ESYS_TR_PCR0 + pcr, ESYS_TR_PASSWORD, ESYS_TR_NONE,
		ESYS_TR_NONE, &digests);
	return rc ? tpm_failed(tpm, rc, "TPM2_PCR_Extend") : SECPOOL_OK;
}

enum secpool_error tpm_measure(struct tpm *tpm, unsigned pcr, const char *text)
{
	static const uint8_t zero[TPM_PCR_BYTES];
	struct tpm_quote now = {.pcr_count = 0};
	enum secpool_error error = tpm_usable(tpm);

	if (!error)
		error = tpm_check_pcrs(pcr < TPM_PCRS ? 1u << pcr : 0, 1);
	if (!error)
		error = read_pcrs(tpm, 1u << pcr, &now);
	if (!error && CRYPTO_memcmp(now.pcr_values[0], zero, sizeof zero) == 0)
		error = tpm_extend(tpm, pcr, text);
	return error;
}
