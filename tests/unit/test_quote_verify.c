/* SPDX-License-Identifier: Apache-2.0 */
/* quote_verify.h on evidence from real secpool-vtpm processes, good and changed. */
#include "tests/unit/quote_fixture.h"

static void good_quote_is_accepted(void **state)
{
	struct quote_facts facts = {.clock_ms = 0};
	uint8_t expected[TPM_PCR_BYTES];

	(void)state;
	assert_int_equal(verify(&a.ek, &a.ak, &quote, NONCE, PCRS, &facts), SECPOOL_OK);
	assert_true(facts.reset_count >= 1);
	assert_int_equal(facts.restart_count, 0);
	expected_pcr("firmware:one", expected);
	assert_memory_equal(quote.pcr_values[0], expected, sizeof expected);
	expected_pcr("device:d0:4096", expected);
	assert_memory_equal(quote.pcr_values[1], expected, sizeof expected);
	expected_pcr("firmware:two", expected);
	assert_memory_not_equal(quote.pcr_values[0], expected, sizeof expected);
}

static void reset_count_rises(void **state)
{
	struct quote_facts before = {.clock_ms = 0}, after = {.clock_ms = 0};

	(void)state;
	assert_int_equal(verify(&a.ek, &a.ak, &quote, NONCE, PCRS, &before), SECPOOL_OK);
	tpm_close(a.tpm);
	assert_int_equal(vtpm_end(&a.vtpm, SIGTERM), 0);
	vtpm_start(&a.vtpm, MEASURED);
	assert_int_equal(tpm_open(a.vtpm.where, &a.tpm), SECPOOL_OK);
	assert_int_equal(
		tpm_attestation_key(a.tpm, a.blob, &a.blob_bytes, &a.ek, &a.ak), SECPOOL_OK);
	assert_int_equal(tpm_quote(a.tpm, PCRS, NONCE, sizeof NONCE, &quote), SECPOOL_OK);
	assert_int_equal(verify(&a.ek, &a.ak, &quote, NONCE, PCRS, &after), SECPOOL_OK);
	assert_int_equal(after.reset_count, before.reset_count + 1);
	assert_memory_equal(after.pcr_digest, before.pcr_digest, sizeof after.pcr_digest);
}

static void each_refusal_has_its_reason(void **state)
{
	uint8_t other_nonce[QUOTE_NONCE_BYTES] = {1};
	struct tpm_quote changed = quote;

	(void)state;
	expect_refused(&a.ek, &a.ak, &quote, other_nonce, PCRS, "nonce");
	expect_refused(&a.ek, &a.ak, &quote, NONCE, 0x1, "other PCRs");
	expect_refused(&a.ek, &a.ak, &quote, NONCE, 0x7, "other PCRs");
	expect_refused(&a.ek, &a.ak, &quote, NONCE, 0, "mask");
	expect_refused(&a.ek, &a.ak, &quote, NONCE, PCRS | 1u << 24, "mask");
	expect_refused(&b.ek, &a.ak, &quote, NONCE, PCRS, "signer");
	expect_refused(&a.ek, &b.ak, &quote, NONCE, PCRS, "signature is not by this AK");
	expect_refused(&a.ek, &a.ek, &quote, NONCE, PCRS, "not sign with ECDSA");
	expect_refused(&a.ak, &a.ak, &quote, NONCE, PCRS, "AES-128-CFB");
	changed.pcr_values[1][0] ^= 1;
	expect_refused(&a.ek, &a.ak, &changed, NONCE, PCRS, "PCR values beside it are not");
	changed = quote;
	changed.pcr_count = 1;
	expect_refused(&a.ek, &a.ak, &changed, NONCE, PCRS, "number of PCR values");
	changed = quote;
	changed.signature[0] ^= 1;
	expect_refused(&a.ek, &a.ak, &changed, NONCE, PCRS, "TPMT_SIGNATURE");
}

static void nonce_length_is_checked(void **state)
{
	struct quote_facts facts;
	uint8_t longer[65] = {0};

	(void)state;
	memcpy(longer, NONCE, sizeof NONCE);
	for (size_t bytes = 0; bytes <= sizeof longer; bytes++) {
		enum secpool_error error =
			quote_verify(a.ek.area, a.ek.bytes, a.ak.area, a.ak.bytes, quote.attest,
				quote.attest_bytes, quote.signature, quote.signature_bytes, longer,
				bytes, PCRS, quote.pcr_values[0], quote.pcr_count, &facts);
		assert_int_equal(error, bytes == sizeof NONCE ? SECPOOL_OK : SECPOOL_E_ATTESTATION);
	}
}

/* Every bit of what the TPM signed, and of its signature. */
static void every_flipped_bit_is_refused(void **state)
{
	struct tpm_quote changed = quote;
	struct quote_facts facts;

	(void)state;
	for (size_t bit = 0; bit < 8 * quote.attest_bytes; bit++) {
		changed.attest[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_int_equal(
			verify(&a.ek, &a.ak, &changed, NONCE, PCRS, &facts), SECPOOL_E_ATTESTATION);
		changed.attest[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	for (size_t bit = 0; bit < 8 * quote.signature_bytes; bit++) {
		changed.signature[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_int_equal(
			verify(&a.ek, &a.ak, &changed, NONCE, PCRS, &facts), SECPOOL_E_ATTESTATION);
		changed.signature[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	assert_int_equal(verify(&a.ek, &a.ak, &changed, NONCE, PCRS, &facts), SECPOOL_OK);
}

static void every_flipped_key_bit_is_refused(void **state)
{
	struct tpm_public ek = a.ek, ak = a.ak;
	struct quote_facts facts;

	(void)state;
	for (size_t bit = 0; bit < 8 * ek.bytes; bit++) {
		ek.area[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_int_equal(
			verify(&ek, &a.ak, &quote, NONCE, PCRS, &facts), SECPOOL_E_ATTESTATION);
		ek.area[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	for (size_t bit = 0; bit < 8 * ak.bytes; bit++) {
		ak.area[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_int_equal(
			verify(&a.ek, &ak, &quote, NONCE, PCRS, &facts), SECPOOL_E_ATTESTATION);
		ak.area[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
}

static void truncations_are_refused(void **state)
{
	struct tpm_quote changed = quote;
	struct tpm_public ek = a.ek, ak = a.ak;
	struct quote_facts facts;

	(void)state;
	for (changed.attest_bytes = 0; changed.attest_bytes < quote.attest_bytes;
		changed.attest_bytes++)
		assert_int_equal(
			verify(&a.ek, &a.ak, &changed, NONCE, PCRS, &facts), SECPOOL_E_ATTESTATION);
	changed = quote;
	changed.attest_bytes++;
	expect_refused(&a.ek, &a.ak, &changed, NONCE, PCRS, "signature is not by");
	for (changed = quote; changed.signature_bytes > 0;) {
		changed.signature_bytes--;
		expect_refused(&a.ek, &a.ak, &changed, NONCE, PCRS, "TPMT_SIGNATURE");
	}
	for (ek.bytes = 0; ek.bytes < a.ek.bytes; ek.bytes++)
		expect_refused(&ek, &a.ak, &quote, NONCE, PCRS, "TPM2B_PUBLIC");
	for (ak.bytes = 0; ak.bytes < a.ak.bytes; ak.bytes++)
		expect_refused(&a.ek, &ak, &quote, NONCE, PCRS, "TPM2B_PUBLIC");
}

/*
 * A key of our own that says it is an AK: OpenSSL signs what it likes, so only the checks behind
 * the signature stand.
 */
struct forger {
	EVP_PKEY *pkey;
	struct tpm_public ak;
	TPM2B_PUBLIC area;
};

static void forger_publish(struct forger *forger)
{
	size_t used = 0;

	assert_int_equal(Tss2_MU_TPM2B_PUBLIC_Marshal(
				 &forger->area, forger->ak.area, sizeof forger->ak.area, &used),
		0);
	forger->ak.bytes = used;
}

static void forger_init(struct forger *forger)
{
	uint8_t point[65];
	size_t used = 0, bytes = 0;

	assert_int_equal(
		Tss2_MU_TPM2B_PUBLIC_Unmarshal(a.ak.area, a.ak.bytes, &used, &forger->area), 0);
	forger->pkey = EVP_EC_gen("P-256");
	assert_non_null(forger->pkey);
	assert_int_equal(EVP_PKEY_get_octet_string_param(forger->pkey, OSSL_PKEY_PARAM_PUB_KEY,
				 point, sizeof point, &bytes),
		1);
	memcpy(forger->area.publicArea.unique.ecc.x.buffer, point + 1, 32);
	memcpy(forger->area.publicArea.unique.ecc.y.buffer, point + 33, 32);
	forger->area.publicArea.unique.ecc.x.size = forger->area.publicArea.unique.ecc.y.size = 32;
	forger_publish(forger);
}

static void forger_sign(const struct forger *forger, struct tpm_quote *q)
{
	TPMT_SIGNATURE signature = {.sigAlg = TPM2_ALG_ECDSA};
	TPMS_SIGNATURE_ECDSA *ecdsa = &signature.signature.ecdsa;
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	uint8_t der[80];
	const uint8_t *at = der;
	size_t der_bytes = sizeof der, used = 0;
	ECDSA_SIG *sig;

	assert_int_equal(
		EVP_DigestSignInit_ex(context, NULL, "SHA256", NULL, NULL, forger->pkey, NULL), 1);
	assert_int_equal(EVP_DigestSign(context, der, &der_bytes, q->attest, q->attest_bytes), 1);
	EVP_MD_CTX_free(context);
	sig = d2i_ECDSA_SIG(NULL, &at, (long)der_bytes);
	assert_non_null(sig);
	ecdsa->hash = TPM2_ALG_SHA256;
	ecdsa->signatureR.size = ecdsa->signatureS.size = 32;
	BN_bn2binpad(ECDSA_SIG_get0_r(sig), ecdsa->signatureR.buffer, 32);
	BN_bn2binpad(ECDSA_SIG_get0_s(sig), ecdsa->signatureS.buffer, 32);
	ECDSA_SIG_free(sig);
	assert_int_equal(Tss2_MU_TPMT_SIGNATURE_Marshal(
				 &signature, q->signature, sizeof q->signature, &used),
		0);
	q->signature_bytes = used;
}

static void forged_attest_is_refused(void **state)
{
	struct forger forger = {.pkey = NULL};
	struct tpm_quote forged = quote;

	(void)state;
	forger_init(&forger);
	forger_sign(&forger, &forged);
	/* well signed, but the quote names another signer */
	expect_refused(&a.ek, &forger.ak, &forged, NONCE, PCRS, "signer is not this AK");
	forged.attest[0] ^= 1;
	forger_sign(&forger, &forged);
	expect_refused(&a.ek, &forger.ak, &forged, NONCE, PCRS, "not made by a TPM");
	forged.attest[0] ^= 1;
	forged.attest[5] = TPM2_ST_ATTEST_TIME & 0xff;
	forger_sign(&forger, &forged);
	expect_refused(&a.ek, &forger.ak, &forged, NONCE, PCRS, "refused");
	forged = quote;
	forged.attest_bytes++;
	forger_sign(&forger, &forged);
	expect_refused(&a.ek, &forger.ak, &forged, NONCE, PCRS, "not a TPMS_ATTEST");
	EVP_PKEY_free(forger.pkey);
}

/* Each attribute that an AK must have, taken away. */
static void ak_attributes_are_checked(void **state)
{
	static const struct {
		TPMA_OBJECT flip;
		const char *reason;
	} cases[] = {
		{TPMA_OBJECT_FIXEDTPM, "fixedTPM"},
		{TPMA_OBJECT_FIXEDPARENT, "fixedParent"},
		{TPMA_OBJECT_SENSITIVEDATAORIGIN, "sensitiveDataOrigin"},
		{TPMA_OBJECT_RESTRICTED, "restricted"},
		{TPMA_OBJECT_SIGN_ENCRYPT, "not a signing key"},
		{TPMA_OBJECT_DECRYPT, "decrypts too"},
	};
	uint8_t credential[TPM_PUBLIC_BYTES], sealed[TPM_PUBLIC_BYTES];
	size_t credential_bytes = 4711, sealed_bytes = 4711;
	struct forger forger = {.pkey = NULL};
	struct tpm_quote forged = quote;

	(void)state;
	forger_init(&forger);
	forger_sign(&forger, &forged);
	for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		forger.area.publicArea.objectAttributes ^= cases[i].flip;
		forger_publish(&forger);
		expect_refused(&a.ek, &forger.ak, &forged, NONCE, PCRS, cases[i].reason);
		assert_int_equal(quote_make_credential(a.ek.area, a.ek.bytes, forger.ak.area,
					 forger.ak.bytes, SECRET, credential, &credential_bytes,
					 sealed, &sealed_bytes),
			SECPOOL_E_ATTESTATION);
		assert_non_null(strstr(err_detail(), cases[i].reason));
		forger.area.publicArea.objectAttributes ^= cases[i].flip;
	}
	assert_int_equal(credential_bytes + sealed_bytes, 2 * 4711);
	forger.area.publicArea.unique.ecc.y.buffer[31] ^= 1;
	forger_publish(&forger);
	expect_refused(&a.ek, &forger.ak, &forged, NONCE, PCRS, "not on the curve");
	EVP_PKEY_free(forger.pkey);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(good_quote_is_accepted),
		cmocka_unit_test(each_refusal_has_its_reason),
		cmocka_unit_test(nonce_length_is_checked),
		cmocka_unit_test(every_flipped_bit_is_refused),
		cmocka_unit_test(every_flipped_key_bit_is_refused),
		cmocka_unit_test(truncations_are_refused),
		cmocka_unit_test(forged_attest_is_refused),
		cmocka_unit_test(ak_attributes_are_checked),
		cmocka_unit_test(reset_count_rises),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
