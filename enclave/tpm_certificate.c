/* SPDX-License-Identifier: Apache-2.0 */
/* The EK certificate in a TPM's NV memory. */
#include "enclave/tpm_context.h"

#include <string.h>

/* TCG EK Credential Profile 2.5, section 2.2.1.4 */
enum { NV_ECC_P256 = 0x01c0000a, NV_RSA_2048 = 0x01c00002 };
/* TPM2_NV_Read gives at most TPM2_PT_NV_BUFFER_MAX a call, which no TPM has below this. */
enum { NV_READ_BYTES = 512 };

/* An index that is defined; ESYS_TR_NONE and no error: it is not. */
static enum secpool_error open_index(struct tpm *tpm, uint32_t index, ESYS_TR *ret_index)
{
	TSS2_RC rc = Esys_TR_FromTPMPublic(
		tpm->esys, index, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, ret_index);

	if (!rc)
		return SECPOOL_OK;
	*ret_index = ESYS_TR_NONE;
	if ((rc & TSS2_RC_LAYER_MASK) == TSS2_TPM_RC_LAYER && tpm_plain_code(rc) == TPM2_RC_HANDLE)
		return SECPOOL_OK;
	return tpm_failed(tpm, rc, "TPM2_NV_ReadPublic of the EK certificate");
}

static enum secpool_error read_public(struct tpm *tpm, ESYS_TR index, TPMS_NV_PUBLIC *ret_public)
{
	TPM2B_NV_PUBLIC *area = NULL;
	TPM2B_NAME *name = NULL;
	TSS2_RC rc = Esys_NV_ReadPublic(
		tpm->esys, index, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &area, &name);

	if (rc)
		return tpm_failed(tpm, rc, "TPM2_NV_ReadPublic of the EK certificate");
	*ret_public = area->nvPublic;
	Esys_Free(area);
	Esys_Free(name);
	return SECPOOL_OK;
}

/* count of at most NV_READ_BYTES, from offset on. */
static enum secpool_error read_part(struct tpm *tpm, ESYS_TR index, ESYS_TR authority,
	size_t offset, size_t count, uint8_t *bytes)
{
	TPM2B_MAX_NV_BUFFER *part = NULL;
	enum secpool_error error = SECPOOL_OK;
	TSS2_RC rc = Esys_NV_Read(tpm->esys, authority, index, ESYS_TR_PASSWORD, ESYS_TR_NONE,
		ESYS_TR_NONE, (UINT16)count, (UINT16)offset, &part);

	if (rc)
		return tpm_failed(tpm, rc, "TPM2_NV_Read of the EK certificate");
	if (part->size == count)
		memcpy(bytes, part->buffer, count);
	else
		error = err_set(SECPOOL_E_TPM,
			"TPM at %s gave %u bytes of its EK certificate, not %zu", tpm->where,
			part->size, count);
	Esys_Free(part);
	return error;
}

static enum secpool_error read_index(struct tpm *tpm, ESYS_TR index, uint8_t *certificate,
	size_t certificate_bytes, size_t *ret_bytes)
{
	TPMS_NV_PUBLIC area = {.dataSize = 0};
	enum secpool_error error = read_public(tpm, index, &area);
	ESYS_TR authority = area.attributes & TPMA_NV_AUTHREAD ? index : ESYS_TR_RH_OWNER;
	size_t used = 0;

	if (!error && area.dataSize > certificate_bytes)
		error = err_set(SECPOOL_E_TPM,
			"TPM at %s has an EK certificate of %u bytes: at most %zu are read",
			tpm->where, area.dataSize, certificate_bytes);
	while (!error && used < area.dataSize) {
		size_t count =
			area.dataSize - used < NV_READ_BYTES ? area.dataSize - used : NV_READ_BYTES;

		error = read_part(tpm, index, authority, used, count, certificate + used);
		used += count;
	}
	if (!error)
		*ret_bytes = used;
	return error;
}

enum secpool_error tpm_ek_certificate(
	struct tpm *tpm, uint8_t *certificate, size_t certificate_bytes, size_t *ret_bytes)
{
	static const uint32_t indices[] = {NV_ECC_P256, NV_RSA_2048};
	enum secpool_error error = tpm_usable(tpm);
	ESYS_TR index = ESYS_TR_NONE;
	size_t bytes = 0;
	unsigned i;

	for (i = 0; !error && index == ESYS_TR_NONE && i < 2; i++)
		error = open_index(tpm, indices[i], &index);
	if (!error && index != ESYS_TR_NONE)
		error = read_index(tpm, index, certificate, certificate_bytes, &bytes);
	if (index != ESYS_TR_NONE && tpm->esys)
		Esys_TR_Close(tpm->esys, &index);
	if (error)
		return error;
	tpm->ek_rsa = bytes > 0 && indices[i - 1] == NV_RSA_2048;
	*ret_bytes = bytes;
	return SECPOOL_OK;
}
