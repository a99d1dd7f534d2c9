/* SPDX-License-Identifier: Apache-2.0 */
/* The counter that the root key is bound to: TPM 2.0 part 3, sections 31.3 (NV_DefineSpace), 31.8 (NV_Increment), 31.13 (NV_Read). */
#include "enclave/tpm_work.h"

#include <string.h>

#include "enclave/secmem.h"
#include "lib/base/os.h"

/* Indices of the owner's that nobody else is assigned (TCG's registry of reserved TPM 2.0 handles). */
enum { INDEX_FIRST = 0x01800000, INDEX_MASK = 0x003fffff, INDEX_TRIES = 16, COUNTER_BYTES = 8 };

/* Everybody who may use the TPM may read it, as PolicyNV must before the root key is open; only who knows auth counts. */
static const TPMA_NV counter_attributes = (TPMA_NV)(TPM2_NT_COUNTER << TPMA_NV_TPM2_NT_SHIFT) |
					  TPMA_NV_AUTHWRITE | TPMA_NV_AUTHREAD | TPMA_NV_OWNERREAD |
					  TPMA_NV_NO_DA;

static void set_auth(TPM2B_AUTH *to, const uint8_t auth[TPM_COUNTER_AUTH_BYTES])
{
	to->size = TPM_COUNTER_AUTH_BYTES;
	memcpy(to->buffer, auth, TPM_COUNTER_AUTH_BYTES);
}

/* One attempt at an index; *ret_taken: another has it. */
static enum secpool_error define(
	struct tpm_work *work, uint32_t index, const TPM2B_AUTH *auth, bool *ret_taken)
{
	TPM2B_NV_PUBLIC public = {.nvPublic = {.nvIndex = index,
					  .nameAlg = TPM2_ALG_SHA256,
					  .attributes = counter_attributes,
					  .dataSize = COUNTER_BYTES}};
	ESYS_TR counter = ESYS_TR_NONE;
	TSS2_RC rc = Esys_NV_DefineSpace(work->esys, ESYS_TR_RH_OWNER, work->session, ESYS_TR_NONE,
		ESYS_TR_NONE, auth, &public, &counter);

	*ret_taken = rc == TPM2_RC_NV_DEFINED;
	if (rc && !*ret_taken)
		return tpm_failed(work->tpm, rc, "TPM2_NV_DefineSpace");
	return SECPOOL_OK;
}

static enum secpool_error read_value(
	struct tpm_work *work, ESYS_TR counter, ESYS_TR reader, uint64_t *ret_value)
{
	TPM2B_MAX_NV_BUFFER *data = NULL;
	uint64_t value = 0;
	TSS2_RC rc = Esys_NV_Read(work->esys, reader, counter, work->session, ESYS_TR_NONE,
		ESYS_TR_NONE, COUNTER_BYTES, 0, &data);
	bool whole;

	if (rc)
		return tpm_failed(work->tpm, rc, "TPM2_NV_Read of the counter");
	whole = data->size == COUNTER_BYTES;
	for (unsigned i = 0; i < COUNTER_BYTES && whole; i++)
		value = value << 8 | data->buffer[i];
	Esys_Free(data);
	if (!whole)
		return err_set(
			SECPOOL_E_TPM, "TPM at %s: its counter is no counter", work->tpm->where);
	*ret_value = value;
	return SECPOOL_OK;
}

/* Counts and reads, both authorised by auth, so that the answers are the TPM's and nobody's on the way. */
static enum secpool_error step(
	struct tpm_work *work, uint32_t index, const TPM2B_AUTH *auth, uint64_t *ret_value)
{
	ESYS_TR counter = ESYS_TR_NONE;
	enum secpool_error error = tpm_work_counter(work, index, &counter);
	TSS2_RC rc;

	if (!error)
		error = tpm_work_session(work, TPM2_SE_HMAC, 0);
	if (error)
		return error;
	rc = Esys_TR_SetAuth(work->esys, counter, auth);
	if (!rc)
		rc = Esys_NV_Increment(
			work->esys, counter, counter, work->session, ESYS_TR_NONE, ESYS_TR_NONE);
	if (rc)
		return tpm_failed(work->tpm, rc, "TPM2_NV_Increment");
	return read_value(work, counter, counter, ret_value);
}

enum secpool_error tpm_counter_make(struct tpm *tpm, const uint8_t auth[TPM_COUNTER_AUTH_BYTES],
	uint32_t *ret_index, uint64_t *ret_value)
{
	TPM2B_AUTH secret = {.size = 0};
	uint32_t index = 0;
	struct tpm_work work;
	enum secpool_error error = tpm_work_begin(&work, tpm);
	bool taken = true;

	set_auth(&secret, auth);
	if (!error)
		error = tpm_work_session(&work, TPM2_SE_HMAC, TPMA_SESSION_DECRYPT);
	for (unsigned i = 0; i < INDEX_TRIES && taken && !error; i++) {
		os_random(&index, sizeof index);
		index = INDEX_FIRST | (index & INDEX_MASK);
		error = define(&work, index, &secret, &taken);
	}
	if (!error && taken)
		error = err_set(
			SECPOOL_E_TPM, "TPM at %s: no free index for a counter", tpm->where);
	if (!error) {
		tpm_flush(tpm, work.esys, &work.session);
		error = step(&work, index, &secret, ret_value);
	}
	if (!error)
		*ret_index = index;
	secmem_wipe(&secret, sizeof secret);
	tpm_work_end(&work);
	return error;
}

enum secpool_error tpm_counter_read(struct tpm *tpm, uint32_t index, uint64_t *ret_value)
{
	ESYS_TR counter = ESYS_TR_NONE;
	struct tpm_work work;
	enum secpool_error error = tpm_work_begin(&work, tpm);

	if (!error)
		error = tpm_work_counter(&work, index, &counter);
	if (!error)
		error = tpm_work_session(&work, TPM2_SE_HMAC, 0);
	if (!error)
		error = read_value(&work, counter, ESYS_TR_RH_OWNER, ret_value);
	tpm_work_end(&work);
	return error;
}

enum secpool_error tpm_counter_step(struct tpm *tpm, uint32_t index,
	const uint8_t auth[TPM_COUNTER_AUTH_BYTES], uint64_t *ret_value)
{
	TPM2B_AUTH secret = {.size = 0};
	struct tpm_work work;
	enum secpool_error error = tpm_work_begin(&work, tpm);

	set_auth(&secret, auth);
	if (!error)
		error = step(&work, index, &secret, ret_value);
	secmem_wipe(&secret, sizeof secret);
	tpm_work_end(&work);
	return error;
}

/* Whether it is one of ours: by what it is, since an index may be anybody's. */
static enum secpool_error is_ours(struct tpm_work *work, ESYS_TR counter, bool *ret_ours)
{
	TPM2B_NV_PUBLIC *public = NULL;
	TPM2B_NAME *name = NULL;
	TSS2_RC rc = Esys_NV_ReadPublic(
		work->esys, counter, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &public, &name);

	if (rc)
		return tpm_failed(work->tpm, rc, "TPM2_NV_ReadPublic");
	*ret_ours = public->nvPublic.dataSize == COUNTER_BYTES &&
		    (public->nvPublic.attributes & ~TPMA_NV_WRITTEN) == counter_attributes;
	Esys_Free(public);
	Esys_Free(name);
	return SECPOOL_OK;
}

enum secpool_error tpm_counter_remove(struct tpm *tpm, uint32_t index)
{
	ESYS_TR counter = ESYS_TR_NONE;
	bool ours = false;
	struct tpm_work work;
	TSS2_RC rc;
	enum secpool_error error = tpm_work_begin(&work, tpm);

	if (!error)
		error = tpm_work_counter(&work, index, &counter);
	if (!error)
		error = is_ours(&work, counter, &ours);
	if (!error && ours) {
		rc = Esys_NV_UndefineSpace(work.esys, ESYS_TR_RH_OWNER, counter, ESYS_TR_PASSWORD,
			ESYS_TR_NONE, ESYS_TR_NONE);
		if (rc)
			error = tpm_failed(tpm, rc, "TPM2_NV_UndefineSpace");
	}
	tpm_work_end(&work);
	return error == SECPOOL_E_NOT_FOUND ? SECPOOL_OK : error;
}
