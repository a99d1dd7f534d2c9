/* SPDX-License-Identifier: Apache-2.0 */
/* Opening a TPM: the transport, what an earlier user left, and whether it is a TPM that will do. */
#include "enclave/tpm_context.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "enclave/tcti.h"
#include "lib/base/os.h"

/*
 * Commands that are written by hand (TPM 2.0 part 3): before an ESYS context there are no handles
 * to name.
 */
enum { CC_FLUSH_CONTEXT = 0x165, CC_GET_CAPABILITY = 0x17a, RC_INITIALIZE = 0x100 };
/* Handle ranges to sweep; the header's constants overflow an int. */
static const uint32_t SWEPT[] = {0x80000000u, 0x02000000u, 0x03000000u};
enum { SWEPT_MOST = 64 };

/* One command by hand; answer has TCTI_BUFFER_BYTES bytes. */
static enum secpool_error run_raw(struct tpm *tpm, const uint8_t *command, size_t count,
	uint8_t *answer, size_t *ret_count, const char *what)
{
	size_t got = TCTI_BUFFER_BYTES;
	TSS2_RC rc = Tss2_Tcti_Transmit(tpm->tcti, count, command);

	if (!rc)
		rc = Tss2_Tcti_Receive(tpm->tcti, &got, answer, TSS2_TCTI_TIMEOUT_BLOCK);
	if (!rc && got < 10)
		rc = TSS2_TCTI_RC_MALFORMED_RESPONSE;
	if (rc)
		return tpm_failed(tpm, rc, what);
	*ret_count = got;
	return SECPOOL_OK;
}

static uint32_t get_be32(const uint8_t *at)
{
	return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static void put_be32(uint8_t *at, uint32_t value)
{
	for (unsigned i = 0; i < 4; i++)
		at[i] = (uint8_t)(value >> (24 - 8 * i));
}

/* Flushes what an earlier user left in this range of handles: a TPM has room for three. */
static enum secpool_error sweep(struct tpm *tpm, uint32_t first)
{
	uint8_t ask[22] = {0x80, 0x01}, flush[14] = {0x80, 0x01};
	uint8_t answer[TCTI_BUFFER_BYTES], ignored[TCTI_BUFFER_BYTES];
	enum secpool_error error;
	size_t count = 0, other;
	uint32_t handles;

	put_be32(ask + 2, sizeof ask);
	put_be32(ask + 6, CC_GET_CAPABILITY);
	put_be32(ask + 10, TPM2_CAP_HANDLES);
	put_be32(ask + 14, first);
	put_be32(ask + 18, SWEPT_MOST);
	error = run_raw(tpm, ask, sizeof ask, answer, &count, "TPM2_GetCapability");
	if (error)
		return error;
	if (get_be32(answer + 6) == RC_INITIALIZE)
		return err_set(
			SECPOOL_E_TPM, "TPM at %s is not started (TPM2_Startup)", tpm->where);
	if (get_be32(answer + 6) != 0)
		return tpm_failed(tpm, get_be32(answer + 6), "TPM2_GetCapability");
	/* header, moreData, capability, count, handles */
	handles = count < 19 ? 0 : get_be32(answer + 15);
	if (count < 19 || handles > SWEPT_MOST || count < 19 + 4 * (size_t)handles)
		return tpm_failed(tpm, TSS2_TCTI_RC_MALFORMED_RESPONSE, "TPM2_GetCapability");
	put_be32(flush + 2, sizeof flush);
	put_be32(flush + 6, CC_FLUSH_CONTEXT);
	for (uint32_t i = 0; i < handles && !error; i++) {
		memcpy(flush + 10, answer + 19 + 4 * i, 4);
		error = run_raw(tpm, flush, sizeof flush, ignored, &other, "TPM2_FlushContext");
	}
	return error;
}

/* Asks for one property, or for the PCR banks; the caller frees it. */
static enum secpool_error capability(
	struct tpm *tpm, TPM2_CAP what, uint32_t property, TPMS_CAPABILITY_DATA **ret_data)
{
	TPMI_YES_NO more;
	TSS2_RC rc = Esys_GetCapability(tpm->esys, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, what,
		property, 1, &more, ret_data);

	if (rc == RC_INITIALIZE)
		return err_set(
			SECPOOL_E_TPM, "TPM at %s is not started (TPM2_Startup)", tpm->where);
	return rc ? tpm_failed(tpm, rc, "TPM2_GetCapability") : SECPOOL_OK;
}

static enum secpool_error property_of(struct tpm *tpm, TPM2_PT property, uint32_t *ret_value)
{
	TPMS_CAPABILITY_DATA *data = NULL;
	enum secpool_error error = capability(tpm, TPM2_CAP_TPM_PROPERTIES, property, &data);

	if (error)
		return error;
	if (data->data.tpmProperties.count < 1 ||
		data->data.tpmProperties.tpmProperty[0].property != property)
		error = err_set(
			SECPOOL_E_TPM, "TPM at %s has no property 0x%x", tpm->where, property);
	else
		*ret_value = data->data.tpmProperties.tpmProperty[0].value;
	Esys_Free(data);
	return error;
}

static enum secpool_error check_bank(struct tpm *tpm)
{
	TPMS_CAPABILITY_DATA *data = NULL;
	enum secpool_error error = capability(tpm, TPM2_CAP_PCRS, 0, &data);
	bool found = false;

	if (error)
		return error;
	for (uint32_t i = 0; i < data->data.assignedPCR.count; i++) {
		const TPMS_PCR_SELECTION *bank = &data->data.assignedPCR.pcrSelections[i];
		found = found || (bank->hash == TPM2_ALG_SHA256 && bank->sizeofSelect >= 3 &&
					 (bank->pcrSelect[0] & bank->pcrSelect[1] &
						 bank->pcrSelect[2]) == 0xff);
	}
	Esys_Free(data);
	if (!found)
		return err_set(SECPOOL_E_TPM,
			"TPM at %s has no SHA-256 bank: allocate one (tpm2_pcrallocate)",
			tpm->where);
	return SECPOOL_OK;
}

/* That it is a TPM 2.0, and who made it. */
static enum secpool_error identify(struct tpm *tpm)
{
	uint32_t family = 0, vendor = 0, kind = 0, major = 0, minor = 0;
	enum secpool_error error = property_of(tpm, TPM2_PT_FAMILY_INDICATOR, &family);
	char name[5] = "";

	if (!error && family != 0x322e3000) /* "2.0" */
		return err_set(SECPOOL_E_TPM, "%s is not a TPM 2.0", tpm->where);
	if (!error)
		error = property_of(tpm, TPM2_PT_MANUFACTURER, &vendor);
	if (!error)
		error = property_of(tpm, TPM2_PT_VENDOR_STRING_1, &kind);
	if (!error)
		error = property_of(tpm, TPM2_PT_FIRMWARE_VERSION_1, &major);
	if (!error)
		error = property_of(tpm, TPM2_PT_FIRMWARE_VERSION_2, &minor);
	if (error)
		return error;
	tpm->software = !tpm->device || kind >> 16 == 0x5357; /* "SW" */
	for (unsigned i = 0; i < 4; i++) {
		char c = (char)(vendor >> (24 - 8 * i));
		name[i] = c > ' ' && c < 0x7f ? c : '\0';
	}
	snprintf(tpm->description, sizeof tpm->description, "%s %u.%u.%u.%u", name, major >> 16,
		major & 0xffff, minor >> 16, minor & 0xffff);
	return SECPOOL_OK;
}

static const char silence[] = "all+none";

/*
 * tpm2-tss prints to stderr by default, and at its debug level it prints sealed keys. The environment is changed before main, while
 * there is one thread: later another thread might be reading it. tpm_open looks whether it is still so.
 */
__attribute__((constructor)) static void silence_tss(void)
{
	if (unsetenv("TSS2_LOGFILE") == 0)
		setenv("TSS2_LOG", silence, 1);
}

static bool is_silent(void)
{
	const char *log = getenv("TSS2_LOG"); /* lint: getenv of what the constructor set */

	return log && strcmp(log, silence) == 0;
}

static enum secpool_error connect_to(struct tpm *tpm)
{
	enum secpool_error error;
	TSS2_RC rc;

	error = tpm->device ? tcti_open_device(tpm->where + strlen("device:"), 0, &tpm->tcti)
			    : tcti_open_socket(tpm->where + strlen("unix:"), 0, &tpm->tcti);
	for (unsigned i = 0; i < sizeof SWEPT / sizeof SWEPT[0] && !error && !tpm->device; i++)
		error = sweep(tpm, SWEPT[i]);
	if (error)
		return error;
	rc = Esys_Initialize(&tpm->esys, tpm->tcti, NULL);
	if (rc)
		return tpm_failed(tpm, rc, "Esys_Initialize");
	error = identify(tpm);
	return error ? error : check_bank(tpm);
}

enum secpool_error tpm_open(const char *where, struct tpm **ret_tpm)
{
	bool device = strcmp(where, "device:/dev/tpmrm0") == 0;
	enum secpool_error error;
	struct tpm *tpm;

	if (!device && (strncmp(where, "unix:/", 6) != 0 || strlen(where) >= TPM_WHERE_BYTES))
		return err_set(SECPOOL_E_INVALID,
			"'%.80s' names no TPM: use unix:/PATH or device:/dev/tpmrm0", where);
	if (!is_silent())
		return err_set(
			SECPOOL_E_TPM, "tpm2-tss may print keys: TSS2_LOG was changed after start");
	tpm = calloc(1, sizeof *tpm);
	if (!tpm)
		return os_error("open the TPM");
	tpm->device = device;
	tpm->ek = tpm->ak = ESYS_TR_NONE;
	snprintf(tpm->where, sizeof tpm->where, "%s", where);
	error = connect_to(tpm);
	if (error)
		tpm_close(tpm);
	else
		*ret_tpm = tpm;
	return error;
}
