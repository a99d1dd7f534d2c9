/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of quote_verify.h share: two TPMs with their attestation keys, and a quote by the first. Threads: one. */
#ifndef SECPOOL_TESTS_UNIT_QUOTE_FIXTURE_H
#define SECPOOL_TESTS_UNIT_QUOTE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <tss2/tss2_mu.h>

#include "enclave/quote_verify.h"
#include "enclave/tpm.h"
#include "tests/unit/vtpm_process.h"

enum { PCRS = 0x5, PCR_COUNT = 2 };

static const char *const MEASURED[] = {
	"--provision", "--extend", "0:firmware:one", "--extend", "2:device:d0:4096", NULL};

/* A TPM with its attestation key loaded. */
struct side {
	struct vtpm vtpm;
	struct tpm *tpm;
	struct tpm_public ek, ak;
	uint8_t blob[TPM_BLOB_BYTES];
	size_t blob_bytes;
};

static struct side a, b;
static struct tpm_quote quote; /* a's over PCRS and NONCE */
static const uint8_t NONCE[QUOTE_NONCE_BYTES] = "a nonce that is 32 bytes long..";
static const uint8_t SECRET[QUOTE_SECRET_BYTES] = "a secret of exactly 32 bytes...";

/* A PCR's value after it was extended once from zero with the SHA-256 of text. */
static inline void expected_pcr(const char *text, uint8_t ret_value[TPM_PCR_BYTES])
{
	uint8_t extended[2 * TPM_PCR_BYTES] = {0};

	assert_int_equal(EVP_Digest(text, strlen(text), extended + TPM_PCR_BYTES, NULL, EVP_sha256(), NULL), 1);
	assert_int_equal(EVP_Digest(extended, sizeof extended, ret_value, NULL, EVP_sha256(), NULL), 1);
}

static inline void side_init(struct side *side)
{
	vtpm_init(&side->vtpm);
	vtpm_start(&side->vtpm, MEASURED);
	if (tpm_open(side->vtpm.where, &side->tpm) ||
		tpm_attestation_key(
			side->tpm, side->blob, &side->blob_bytes, &side->ek, &side->ak)) {
		print_error("%s\n", err_detail());
		exit(1);
	}
}

static inline void side_done(struct side *side)
{
	tpm_close(side->tpm);
	vtpm_done(&side->vtpm);
}

static inline int setup(void **state)
{
	(void)state;
	side_init(&a);
	side_init(&b);
	return tpm_quote(a.tpm, PCRS, NONCE, sizeof NONCE, &quote) ? -1 : 0;
}

static inline int teardown(void **state)
{
	(void)state;
	side_done(&a);
	side_done(&b);
	return 0;
}

static inline enum secpool_error verify(const struct tpm_public *ek, const struct tpm_public *ak,
	const struct tpm_quote *q, const uint8_t *nonce, uint32_t pcrs, struct quote_facts *facts)
{
	return quote_verify(ek->area, ek->bytes, ak->area, ak->bytes, q->attest, q->attest_bytes,
		q->signature, q->signature_bytes, nonce, QUOTE_NONCE_BYTES, pcrs, q->pcr_values[0],
		q->pcr_count, facts);
}

static inline void expect_refused(const struct tpm_public *ek, const struct tpm_public *ak,
	const struct tpm_quote *q, const uint8_t *nonce, uint32_t pcrs, const char *reason)
{
	struct quote_facts facts, untouched;

	memset(&facts, 0x77, sizeof facts);
	memset(&untouched, 0x77, sizeof untouched);
	assert_int_equal(verify(ek, ak, q, nonce, pcrs, &facts), SECPOOL_E_ATTESTATION);
	assert_memory_equal(&facts, &untouched, sizeof facts);
	if (!strstr(err_detail(), reason))
		print_error("wanted '%s', got '%s'\n", reason, err_detail());
	assert_non_null(strstr(err_detail(), reason));
}

#endif
