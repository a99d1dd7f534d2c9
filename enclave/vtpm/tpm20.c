/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/vtpm/tpm20.h"

#include <libtpms/tpm_error.h>
#include <libtpms/tpm_library.h>
#include <libtpms/tpm_memory.h>
#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/log.h"
#include "lib/base/os.h"

/* TPM 2.0 part 2, sections 6.5.2, 6.9 and 6.10 */
enum { ST_NO_SESSIONS = 0x8001, ST_SESSIONS = 0x8002 };
enum { CC_STARTUP = 0x144, CC_SHUTDOWN = 0x145, CC_PCR_EXTEND = 0x182 };
enum { SU_CLEAR = 0, RS_PASSWORD = 0x40000009, ALG_SHA256 = 0x000b };

/* libtpms' callbacks have no argument of ours, and there is one TPM in a process. */
static struct state *the_state;
static unsigned char *answer_buffer;
static uint32_t answer_capacity;

static TPM_RESULT nvram_init(void)
{
	return TPM_SUCCESS;
}

/*
 * TPM_RETRY means "never stored" and makes libtpms manufacture a TPM, or, right after
 * manufacturing, go on with seeds of zero: so it is said only while nothing was stored, and
 * anything that went wrong is a failure.
 */
static TPM_RESULT nvram_load(
	unsigned char **data, uint32_t *length, uint32_t tpm_number, const char *name)
{
	enum secpool_error error;
	unsigned char *copy = NULL;
	size_t count = 0;

	if (tpm_number != 0 || strcmp(name, "permall") != 0)
		return TPM_RETRY;	    /* no volatile state is kept */
	copy = calloc(1, STATE_BYTES_MOST); /* libtpms frees it with free(3) */
	if (!copy)
		return TPM_FAIL;
	error = state_load(the_state, copy, &count);
	if (!error) {
		*data = copy;
		*length = (uint32_t)count;
		return TPM_SUCCESS;
	}
	free(copy);
	if (error == SECPOOL_E_NOT_FOUND)
		return TPM_RETRY;
	log_error("state-not-loaded", error);
	return TPM_FAIL;
}

static TPM_RESULT nvram_store(
	const unsigned char *data, uint32_t length, uint32_t tpm_number, const char *name)
{
	enum secpool_error error;

	if (tpm_number != 0 || strcmp(name, "permall") != 0)
		return TPM_FAIL;
	error = state_store(the_state, data, length);
	if (error)
		log_error("state-not-stored", error);
	return error ? TPM_FAIL : TPM_SUCCESS;
}

static TPM_RESULT nvram_delete(uint32_t tpm_number, const char *name, TPM_BOOL must_exist)
{
	(void)tpm_number;
	/* permanent state is never deleted by a command */
	return must_exist || strcmp(name, "permall") == 0 ? TPM_FAIL : TPM_SUCCESS;
}

static TPM_RESULT io_init(void)
{
	return TPM_SUCCESS;
}

static TPM_RESULT io_locality(TPM_MODIFIER_INDICATOR *locality, uint32_t tpm_number)
{
	(void)tpm_number;
	*locality = 0;
	return TPM_SUCCESS;
}

static TPM_RESULT io_presence(TPM_BOOL *presence, uint32_t tpm_number)
{
	(void)tpm_number;
	*presence = 0;
	return TPM_SUCCESS;
}

/* A command being written, big endian (TPM 2.0 part 1, section 18). */
struct command {
	uint8_t bytes[128];
	size_t used;
};

static void put(struct command *command, uint32_t value, unsigned width)
{
	while (width-- > 0)
		command->bytes[command->used++] = (uint8_t)(value >> (8 * width));
}

static uint32_t get_be32(const uint8_t *at)
{
	return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

/* Fills in the size, runs it, and wants TPM_RC_SUCCESS. */
static enum secpool_error run(struct command *command, const char *what)
{
	uint8_t answer[TPM20_BUFFER_BYTES];
	size_t used = command->used, count = 0;
	enum secpool_error error;
	uint32_t code;

	command->used = 2;
	put(command, (uint32_t)used, 4);
	error = tpm20_process(command->bytes, used, answer, &count);
	if (error)
		return error;
	code = count < TPM20_HEADER_BYTES ? UINT32_MAX : get_be32(answer + 6);
	if (code != 0)
		return err_set(SECPOOL_E_TPM, "%s: the software TPM answered 0x%x", what, code);
	return SECPOOL_OK;
}

static enum secpool_error run_power(uint32_t code, const char *what)
{
	struct command command = {.used = 0};

	put(&command, ST_NO_SESSIONS, 2);
	put(&command, 0, 4);
	put(&command, code, 4);
	put(&command, SU_CLEAR, 2);
	return run(&command, what);
}

enum secpool_error tpm20_start(struct state *state)
{
	static struct libtpms_callbacks callbacks = {
		.sizeOfStruct = sizeof callbacks,
		.tpm_nvram_init = nvram_init,
		.tpm_nvram_loaddata = nvram_load,
		.tpm_nvram_storedata = nvram_store,
		.tpm_nvram_deletename = nvram_delete,
		.tpm_io_init = io_init,
		.tpm_io_getlocality = io_locality,
		.tpm_io_getphysicalpresence = io_presence,
	};
	enum secpool_error error;
	TPM_RESULT result;

	the_state = state;
	result = TPMLIB_ChooseTPMVersion(TPMLIB_TPM_VERSION_2);
	if (result == TPM_SUCCESS)
		result = TPMLIB_RegisterCallbacks(&callbacks);
	if (result == TPM_SUCCESS)
		result = TPMLIB_MainInit();
	if (result != TPM_SUCCESS)
		return err_set(SECPOOL_E_TPM,
			"libtpms did not accept the TPM's state (0x%x): restore it from a copy",
			result);
	error = run_power(CC_STARTUP, "TPM2_Startup");
	if (error)
		TPMLIB_Terminate();
	return error;
}

enum secpool_error tpm20_extend(unsigned pcr, const char *text)
{
	struct command command = {.used = 0};
	uint8_t digest[SHA256_DIGEST_LENGTH];

	if (pcr >= TPM20_PCRS)
		return err_set(SECPOOL_E_INVALID, "there is no PCR %u, the last one is %d", pcr,
			TPM20_PCRS - 1);
	if (!SHA256((const unsigned char *)text, strlen(text), digest))
		return err_set(SECPOOL_E_CRYPTO, "SHA-256 failed");
	put(&command, ST_SESSIONS, 2);
	put(&command, 0, 4);
	put(&command, CC_PCR_EXTEND, 4);
	put(&command, pcr, 4);
	/* one empty password: size of the area, handle, nonce, attributes, password */
	put(&command, 9, 4);
	put(&command, RS_PASSWORD, 4);
	put(&command, 0, 2);
	put(&command, 0, 1);
	put(&command, 0, 2);
	put(&command, 1, 4);
	put(&command, ALG_SHA256, 2);
	memcpy(command.bytes + command.used, digest, sizeof digest);
	command.used += sizeof digest;
	return run(&command, "TPM2_PCR_Extend");
}

enum secpool_error tpm20_process(uint8_t *command, size_t count, uint8_t *answer, size_t *ret_count)
{
	enum secpool_error error = SECPOOL_OK;
	uint32_t used = 0;
	TPM_RESULT result;

	result = TPMLIB_Process(&answer_buffer, &used, &answer_capacity, command, (uint32_t)count);
	if (result != TPM_SUCCESS)
		error = err_set(SECPOOL_E_TPM, "libtpms failed in a command (0x%x)", result);
	else if (used > TPM20_BUFFER_BYTES)
		error = err_set(SECPOOL_E_TPM, "libtpms gave an answer of %u bytes", used);
	if (!error) {
		memcpy(answer, answer_buffer, used);
		*ret_count = used;
	}
	if (answer_buffer)
		OPENSSL_cleanse(answer_buffer, used < answer_capacity ? used : answer_capacity);
	return error;
}

enum secpool_error tpm20_stop(void)
{
	enum secpool_error error = run_power(CC_SHUTDOWN, "TPM2_Shutdown");

	TPMLIB_Terminate();
	TPM_Free(answer_buffer);
	answer_buffer = NULL;
	answer_capacity = 0;
	the_state = NULL;
	return error;
}
