/* SPDX-License-Identifier: Apache-2.0 */
/* The EK certificate in a TPM's NV memory, and the RSA EK that goes with one of its indices: read, chosen, activated, quoted under. */
#include "tests/unit/quote_fixture.h"

#include "enclave/tpm_context.h"

enum { ECC_INDEX = 0x01c0000a, RSA_INDEX = 0x01c00002, STORED_BYTES = 1300, ROOM_BYTES = 2048 };

static uint8_t stored[STORED_BYTES];

/* Defines an index as swtpm_setup does and writes `stored` into it. */
static void store(struct tpm *tpm, uint32_t number, size_t bytes, TPMA_NV more)
{
	TPM2B_NV_PUBLIC area = {
		.nvPublic = {.nvIndex = number,
			.nameAlg = TPM2_ALG_SHA256,
			.attributes = TPMA_NV_OWNERWRITE | TPMA_NV_OWNERREAD | TPMA_NV_NO_DA | more,
			.dataSize = (UINT16)bytes}};
	const TPM2B_AUTH none = {.size = 0};
	ESYS_TR index = ESYS_TR_NONE;

	assert_int_equal(Esys_NV_DefineSpace(tpm->esys, ESYS_TR_RH_OWNER, ESYS_TR_PASSWORD,
				 ESYS_TR_NONE, ESYS_TR_NONE, &none, &area, &index),
		0);
	for (size_t at = 0; at < bytes; at += 500) {
		TPM2B_MAX_NV_BUFFER part = {.size = (UINT16)(bytes - at < 500 ? bytes - at : 500)};

		memcpy(part.buffer, stored + at, part.size);
		assert_int_equal(Esys_NV_Write(tpm->esys, ESYS_TR_RH_OWNER, index, ESYS_TR_PASSWORD,
					 ESYS_TR_NONE, ESYS_TR_NONE, &part, (UINT16)at),
			0);
	}
	assert_int_equal(Esys_TR_Close(tpm->esys, &index), 0);
}

static void drop(struct tpm *tpm, uint32_t number)
{
	ESYS_TR index = ESYS_TR_NONE;

	assert_int_equal(Esys_TR_FromTPMPublic(tpm->esys, number, ESYS_TR_NONE, ESYS_TR_NONE,
				 ESYS_TR_NONE, &index),
		0);
	assert_int_equal(Esys_NV_UndefineSpace(tpm->esys, ESYS_TR_RH_OWNER, index, ESYS_TR_PASSWORD,
				 ESYS_TR_NONE, ESYS_TR_NONE),
		0);
}

static void certificate_is_read(void **state)
{
	uint8_t got[ROOM_BYTES], untouched[ROOM_BYTES];
	size_t bytes = 4711;

	(void)state;
	for (size_t i = 0; i < sizeof stored; i++)
		stored[i] = (uint8_t)(i * 7 + 1);
	assert_int_equal(tpm_ek_certificate(a.tpm, got, sizeof got, &bytes), SECPOOL_OK);
	assert_int_equal(bytes, 0);
	assert_false(a.tpm->ek_rsa);
	store(a.tpm, RSA_INDEX, STORED_BYTES, TPMA_NV_AUTHREAD);
	assert_int_equal(tpm_ek_certificate(a.tpm, got, sizeof got, &bytes), SECPOOL_OK);
	assert_int_equal(bytes, STORED_BYTES);
	assert_memory_equal(got, stored, STORED_BYTES);
	assert_true(a.tpm->ek_rsa);
	bytes = 4711;
	memset(untouched, 0x77, sizeof untouched);
	assert_int_equal(tpm_ek_certificate(a.tpm, got, STORED_BYTES - 1, &bytes), SECPOOL_E_TPM);
	assert_non_null(strstr(err_detail(), "1300 bytes"));
	assert_int_equal(bytes, 4711);
	/* the ECC key's comes first; without AUTHREAD it is read by the owner */
	stored[0] ^= 1;
	store(a.tpm, ECC_INDEX, 700, 0);
	assert_int_equal(tpm_ek_certificate(a.tpm, got, sizeof got, &bytes), SECPOOL_OK);
	assert_int_equal(bytes, 700);
	assert_memory_equal(got, stored, 700);
	assert_false(a.tpm->ek_rsa);
	drop(a.tpm, ECC_INDEX);
}

/* With its certificate in the TPM the RSA key is the EK: everything works under it, and not under the other. */
static void rsa_ek_works(void **state)
{
	uint8_t credential[TPM_PUBLIC_BYTES], sealed[TPM_PUBLIC_BYTES], secret[64], got[ROOM_BYTES];
	size_t credential_bytes = 0, sealed_bytes = 0, secret_bytes = 0, bytes = 0;
	struct tpm_public ecc = a.ek, changed;
	struct tpm_quote by_rsa;
	struct quote_facts facts;

	(void)state;
	assert_int_equal(tpm_ek_certificate(a.tpm, got, sizeof got, &bytes), SECPOOL_OK);
	/* the AK of before lies under the other EK */
	bytes = a.blob_bytes;
	assert_int_equal(tpm_attestation_key(a.tpm, a.blob, &bytes, &a.ek, &a.ak), SECPOOL_E_TPM);
	assert_non_null(strstr(err_detail(), "another TPM"));
	bytes = 0;
	assert_int_equal(tpm_attestation_key(a.tpm, a.blob, &bytes, &a.ek, &a.ak), SECPOOL_OK);
	assert_int_equal(a.ek.area[2] << 8 | a.ek.area[3], TPM2_ALG_RSA);
	assert_int_equal(tpm_quote(a.tpm, PCRS, NONCE, sizeof NONCE, &by_rsa), SECPOOL_OK);
	assert_int_equal(verify(&a.ek, &a.ak, &by_rsa, NONCE, PCRS, &facts), SECPOOL_OK);
	expect_refused(&ecc, &a.ak, &by_rsa, NONCE, PCRS, "signer");
	assert_int_equal(quote_make_credential(a.ek.area, a.ek.bytes, a.ak.area, a.ak.bytes, SECRET,
				 credential, &credential_bytes, sealed, &sealed_bytes),
		SECPOOL_OK);
	assert_int_equal(sealed_bytes, 258);
	assert_int_equal(tpm_activate(a.tpm, credential, credential_bytes, sealed, sealed_bytes,
				 secret, &secret_bytes),
		SECPOOL_OK);
	assert_int_equal(secret_bytes, sizeof SECRET);
	assert_memory_equal(secret, SECRET, sizeof SECRET);
	/* a changed ciphertext, and the other EK */
	sealed[100] ^= 1;
	assert_int_not_equal(tpm_activate(a.tpm, credential, credential_bytes, sealed, sealed_bytes,
				     secret, &secret_bytes),
		SECPOOL_OK);
	assert_int_equal(quote_make_credential(ecc.area, ecc.bytes, a.ak.area, a.ak.bytes, SECRET,
				 credential, &credential_bytes, sealed, &sealed_bytes),
		SECPOOL_OK);
	assert_int_not_equal(tpm_activate(a.tpm, credential, credential_bytes, sealed, sealed_bytes,
				     secret, &secret_bytes),
		SECPOOL_OK);
	/* what is not exactly that kind of key: every bit of its public area */
	for (size_t bit = 0; bit < 8 * a.ek.bytes; bit++) {
		changed = a.ek;
		changed.area[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_int_equal(verify(&changed, &a.ak, &by_rsa, NONCE, PCRS, &facts),
			SECPOOL_E_ATTESTATION);
	}
	changed = a.ek;
	for (changed.bytes = 0; changed.bytes < a.ek.bytes; changed.bytes++)
		assert_int_equal(verify(&changed, &a.ak, &by_rsa, NONCE, PCRS, &facts),
			SECPOOL_E_ATTESTATION);
}

/* What is measured once stays what it is; another PCR is its own. */
static void measured_once(void **state)
{
	struct tpm_quote q;
	uint8_t expected[TPM_PCR_BYTES];

	(void)state;
	assert_int_equal(tpm_measure(a.tpm, 5, "one"), SECPOOL_OK);
	assert_int_equal(tpm_measure(a.tpm, 5, "two"), SECPOOL_OK);
	assert_int_equal(tpm_measure(a.tpm, 24, "two"), SECPOOL_E_INVALID);
	assert_int_equal(tpm_quote(a.tpm, 0x20, NONCE, sizeof NONCE, &q), SECPOOL_OK);
	expected_pcr("one", expected);
	assert_memory_equal(q.pcr_values[0], expected, sizeof expected);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(certificate_is_read),
		cmocka_unit_test(rsa_ek_works),
		cmocka_unit_test(measured_once),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
