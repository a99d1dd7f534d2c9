/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of tpm.h share: a provisioned secpool-vtpm, and sealing one secret with it. Threads: one. */
#ifndef SECPOOL_TESTS_UNIT_TPM_FIXTURE_H
#define SECPOOL_TESTS_UNIT_TPM_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "enclave/tpm.h"
#include "tests/unit/vtpm_process.h"

enum { SECRET_BYTES = 32, PCRS = 0x5, NS_LIMIT_S = 8 };

static const char *const PROVISION[] = {"--provision", "--extend", "0:firmware:one", NULL};
static const char *const OTHER_FIRMWARE[] = {"--extend", "0:firmware:two", NULL};
static const char *const SAME_FIRMWARE[] = {"--extend", "0:firmware:one", NULL};

static struct vtpm vtpm;
static const uint8_t SECRET[SECRET_BYTES] = "the root key, exactly 32 bytes.";

static inline int setup(void **state)
{
	(void)state;
	vtpm_init(&vtpm);
	vtpm_start(&vtpm, PROVISION);
	return 0;
}

static inline int teardown(void **state)
{
	(void)state;
	vtpm_done(&vtpm);
	return 0;
}

static inline struct tpm *open_tpm(void)
{
	struct tpm *tpm = NULL;
	enum secpool_error error = tpm_open(vtpm.where, &tpm);

	if (error)
		print_error("%s\n", err_detail());
	assert_int_equal(error, SECPOOL_OK);
	return tpm;
}

static inline size_t seal(struct tpm *tpm, uint8_t blob[TPM_BLOB_BYTES])
{
	size_t bytes = 0;
	enum secpool_error error = tpm_seal(tpm, PCRS, NULL, SECRET, SECRET_BYTES, blob, &bytes);

	if (error)
		print_error("%s\n", err_detail());
	assert_int_equal(error, SECPOOL_OK);
	assert_in_range(bytes, 100, TPM_BLOB_BYTES);
	return bytes;
}

static inline void expect_refused(
	struct tpm *tpm, const uint8_t *blob, size_t bytes, size_t secret_bytes, const char *reason)
{
	uint8_t untouched[128], got[128];

	memset(untouched, 0x77, sizeof untouched);
	memcpy(got, untouched, sizeof got);
	assert_int_equal(tpm_unseal(tpm, NULL, blob, bytes, got, secret_bytes), SECPOOL_E_TPM);
	assert_memory_equal(got, untouched, sizeof got);
	if (!strstr(err_detail(), reason))
		print_error("wanted '%s', got '%s'\n", reason, err_detail());
	assert_non_null(strstr(err_detail(), reason));
}

static inline void expect_unsealed(struct tpm *tpm, const uint8_t *blob, size_t bytes)
{
	uint8_t got[SECRET_BYTES] = {0};
	enum secpool_error error = tpm_unseal(tpm, NULL, blob, bytes, got, SECRET_BYTES);

	if (error)
		print_error("%s\n", err_detail());
	assert_int_equal(error, SECPOOL_OK);
	assert_memory_equal(got, SECRET, SECRET_BYTES);
}

#endif
