/* SPDX-License-Identifier: Apache-2.0 */
/* What sealing and attestation share; tpm_open.c opens the connection. */
#include "enclave/tpm_context.h"

#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tss2/tss2_mu.h>
#include <tss2/tss2_rc.h>

#include "enclave/secmem.h"
#include "enclave/tcti.h"
#include "lib/base/buf.h"
#include "lib/base/os.h"

enum { RSA_BITS = 2048 };

enum secpool_error tpm_usable(const struct tpm *tpm)
{
	if (tpm->tcti && tpm->esys)
		return SECPOOL_OK;
	return err_set(SECPOOL_E_TPM,
		"the connection to the TPM at %s was dropped after an error: open it again",
		tpm->where);
}

void tpm_drop(struct tpm *tpm)
{
	if (tpm->esys)
		Esys_Finalize(&tpm->esys);
	tcti_free(tpm->tcti);
	tpm->tcti = NULL;
	tpm->ek = tpm->ak = ESYS_TR_NONE;
}

TSS2_RC tpm_plain_code(TSS2_RC rc)
{
	if (rc & ~(TSS2_RC)0xfff || !(rc & 0x80))
		return rc;
	return rc & 0xbf;
}

enum secpool_error tpm_failed(struct tpm *tpm, TSS2_RC rc, const char *what)
{
	TSS2_RC layer = rc & TSS2_RC_LAYER_MASK;

	/* what the TPM itself did not say leaves tpm2-tss's contexts in an unknown state */
	if (layer != TSS2_TPM_RC_LAYER && layer != TSS2_RESMGR_RC_LAYER &&
		layer != TSS2_RESMGR_TPM_RC_LAYER)
		tpm_drop(tpm);
	if (layer == TSS2_TCTI_RC_LAYER)
		return err_set(SECPOOL_E_TPM,
			"TPM at %s: %s: no answer in time, or the connection broke (0x%x): see "
			"whether the TPM runs, then open it again",
			tpm->where, what, rc);
	return err_set(SECPOOL_E_TPM, "TPM at %s: %s: %s (0x%x)", tpm->where, what,
		Tss2_RC_Decode(rc), rc);
}

TPML_PCR_SELECTION tpm_pcr_selection(uint32_t pcrs)
{
	TPML_PCR_SELECTION selection = {.count = 1};

	selection.pcrSelections[0].hash = TPM2_ALG_SHA256;
	selection.pcrSelections[0].sizeofSelect = TPM_PCRS / 8;
	for (unsigned i = 0; i < TPM_PCRS / 8; i++)
		selection.pcrSelections[0].pcrSelect[i] = (BYTE)(pcrs >> (8 * i));
	return selection;
}

enum secpool_error tpm_check_pcrs(uint32_t pcrs, unsigned most)
{
	if (pcrs == 0 || pcrs >> TPM_PCRS != 0 || (unsigned)__builtin_popcount(pcrs) > most)
		return err_set(SECPOOL_E_INVALID,
			"PCR mask 0x%x: it must name 1 to %u of the PCRs 0 to %d", pcrs, most,
			TPM_PCRS - 1);
	return SECPOOL_OK;
}

/* What the two kinds differ in; unique is of zeros: TCG's templates L-1 and L-2. */
static void fill_parameters(bool rsa, TPMT_PUBLIC *area)
{
	TPMT_SYM_DEF_OBJECT *symmetric =
		rsa ? &area->parameters.rsaDetail.symmetric : &area->parameters.eccDetail.symmetric;

	area->type = rsa ? TPM2_ALG_RSA : TPM2_ALG_ECC;
	symmetric->algorithm = TPM2_ALG_AES;
	symmetric->keyBits.aes = 128;
	symmetric->mode.aes = TPM2_ALG_CFB;
	if (rsa) {
		area->parameters.rsaDetail.scheme.scheme = TPM2_ALG_NULL;
		area->parameters.rsaDetail.keyBits = RSA_BITS;
		area->unique.rsa.size = RSA_BITS / 8;
	} else {
		area->parameters.eccDetail.scheme.scheme = TPM2_ALG_NULL;
		area->parameters.eccDetail.curveID = TPM2_ECC_NIST_P256;
		area->parameters.eccDetail.kdf.scheme = TPM2_ALG_NULL;
		area->unique.ecc.x.size = area->unique.ecc.y.size = 32;
	}
}

enum secpool_error tpm_make_primary(struct tpm *tpm, ESYS_CONTEXT *esys, ESYS_TR hierarchy,
	bool rsa, TPMA_OBJECT more_attributes, const TPM2B_DIGEST *policy, ESYS_TR *ret_handle,
	TPM2B_PUBLIC **ret_public)
{
	const TPM2B_SENSITIVE_CREATE sensitive = {.size = 0};
	const TPM2B_DATA outside = {.size = 0};
	const TPML_PCR_SELECTION creation = {.count = 0};
	TPM2B_PUBLIC template = {.size = 0};
	TPMT_PUBLIC *area = &template.publicArea;
	TPM2B_CREATION_DATA *data = NULL;
	TPM2B_DIGEST *hash = NULL;
	TPMT_TK_CREATION *ticket = NULL;
	TSS2_RC rc;

	fill_parameters(rsa, area);
	area->nameAlg = TPM2_ALG_SHA256;
	area->objectAttributes = TPMA_OBJECT_RESTRICTED | TPMA_OBJECT_DECRYPT |
				 TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT |
				 TPMA_OBJECT_SENSITIVEDATAORIGIN | more_attributes;
	if (policy)
		area->authPolicy = *policy;
	rc = Esys_CreatePrimary(esys, hierarchy, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE,
		&sensitive, &template, &outside, &creation, ret_handle, ret_public, &data, &hash,
		&ticket);
	if (rc)
		return tpm_failed(tpm, rc, "TPM2_CreatePrimary");
	Esys_Free(data);
	Esys_Free(hash);
	Esys_Free(ticket);
	return SECPOOL_OK;
}

enum secpool_error tpm_name_of(
	struct tpm *tpm, ESYS_CONTEXT *esys, ESYS_TR handle, uint8_t ret_name[TPM_NAME_BYTES])
{
	TPM2B_NAME *name = NULL;
	TSS2_RC rc = Esys_TR_GetName(esys, handle, &name);
	enum secpool_error error = SECPOOL_OK;

	if (rc)
		return tpm_failed(tpm, rc, "name of a key");
	if (name->size == TPM_NAME_BYTES)
		memcpy(ret_name, name->name, TPM_NAME_BYTES);
	else
		error = err_set(SECPOOL_E_TPM, "TPM at %s: a key's name has %u bytes", tpm->where,
			name->size);
	Esys_Free(name);
	return error;
}

void tpm_flush(struct tpm *tpm, ESYS_CONTEXT *esys, ESYS_TR *handle)
{
	if (*handle != ESYS_TR_NONE && esys && tpm->tcti &&
		Esys_FlushContext(esys, *handle) != TSS2_RC_SUCCESS)
		Esys_TR_Close(esys, handle);
	*handle = ESYS_TR_NONE;
}

enum secpool_error tpm_blob_put(
	const struct tpm_blob *from, const char *what, uint8_t *blob, size_t *ret_bytes)
{
	struct buf_writer writer = {.bytes = blob, .capacity = TPM_BLOB_BYTES};
	size_t used;

	buf_put_number(&writer, from->magic, 4);
	buf_put_number(&writer, from->number, 4);
	buf_put(&writer, from->parent, TPM_NAME_BYTES);
	used = writer.used;
	if (Tss2_MU_TPM2B_PUBLIC_Marshal(&from->public_area, blob, TPM_BLOB_BYTES, &used) ||
		Tss2_MU_TPM2B_PRIVATE_Marshal(&from->private_area, blob, TPM_BLOB_BYTES, &used))
		return err_set(SECPOOL_E_TPM, "the %s is too long for its blob", what);
	*ret_bytes = used;
	return SECPOOL_OK;
}

enum secpool_error tpm_blob_get(const uint8_t *blob, size_t bytes, uint32_t magic, const char *what,
	struct tpm_blob *ret_blob)
{
	struct buf_reader reader = {.bytes = blob, .count = bytes};
	struct tpm_blob found = {.number = 0};
	uint8_t again[TPM_BLOB_BYTES];
	size_t used, again_bytes = 0;
	bool good;

	found.magic = (uint32_t)buf_get_number(&reader, 4);
	found.number = (uint32_t)buf_get_number(&reader, 4);
	buf_get(&reader, found.parent, TPM_NAME_BYTES);
	used = reader.used;
	good = !reader.failed && found.magic == magic && bytes <= TPM_BLOB_BYTES &&
	       !Tss2_MU_TPM2B_PUBLIC_Unmarshal(blob, bytes, &used, &found.public_area) &&
	       !Tss2_MU_TPM2B_PRIVATE_Unmarshal(blob, bytes, &used, &found.private_area) &&
	       used == bytes;
	/* tpm2-tss overlooks a wrong inner size: only what put writes is accepted */
	good = good && tpm_blob_put(&found, what, again, &again_bytes) == SECPOOL_OK &&
	       again_bytes == bytes && CRYPTO_memcmp(again, blob, bytes) == 0;
	if (!good)
		return err_set(SECPOOL_E_TPM,
			"the %s (%zu bytes) is damaged or was not made by secpool", what, bytes);
	*ret_blob = found;
	return SECPOOL_OK;
}

void tpm_describe(struct tpm *tpm, char *text, size_t text_bytes)
{
	snprintf(text, text_bytes, "%s", tpm->description);
}

bool tpm_is_software(const struct tpm *tpm)
{
	return tpm->software;
}

int tpm_descriptor(const struct tpm *tpm)
{
	TSS2_TCTI_POLL_HANDLE handle = {.fd = -1};
	size_t count = 1;

	if (!tpm->tcti || Tss2_Tcti_GetPollHandles(tpm->tcti, &handle, &count) || count != 1)
		return -1;
	return handle.fd;
}

void tpm_attestation_key_done(struct tpm *tpm)
{
	if (!tpm->tcti || !tpm->esys)
		return;
	tpm_flush(tpm, tpm->esys, &tpm->ak);
	tpm_flush(tpm, tpm->esys, &tpm->ek);
}

void tpm_close(struct tpm *tpm)
{
	if (!tpm)
		return;
	tpm_attestation_key_done(tpm);
	/*
	 * A TPM behind a socket has no kernel that would tell it of a power loss to
	 * come (TPM 2.0 part 3, 9.4). It may be used again without a start; a refusal
	 * changes nothing, since all that is ours in it was written.
	 */
	if (tpm->tcti && tpm->esys && !tpm->device)
		(void)Esys_Shutdown(
			tpm->esys, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, TPM2_SU_CLEAR);
	tpm_drop(tpm);
	secmem_wipe(tpm, sizeof *tpm);
	free(tpm);
}
