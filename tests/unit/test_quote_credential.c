/* SPDX-License-Identifier: Apache-2.0 */
/* Credentials, names and PEM (quote_verify.h) with real secpool-vtpm processes. */
#include "tests/unit/quote_fixture.h"

static void credential_opens_only_where_it_should(void **state)
{
	uint8_t credential[TPM_PUBLIC_BYTES], sealed[TPM_PUBLIC_BYTES], secret[64] = {0};
	size_t credential_bytes = 0, sealed_bytes = 0, secret_bytes = 0;

	(void)state;
	assert_int_equal(quote_make_credential(a.ek.area, a.ek.bytes, a.ak.area, a.ak.bytes, SECRET,
				 credential, &credential_bytes, sealed, &sealed_bytes),
		SECPOOL_OK);
	assert_int_equal(tpm_activate(a.tpm, credential, credential_bytes, sealed, sealed_bytes,
				 secret, &secret_bytes),
		SECPOOL_OK);
	assert_int_equal(secret_bytes, sizeof SECRET);
	assert_memory_equal(secret, SECRET, sizeof SECRET);
	/*
	 * another TPM; then this TPM with a changed credential; then another AK under this EK's
	 * challenge
	 */
	assert_int_equal(tpm_activate(b.tpm, credential, credential_bytes, sealed, sealed_bytes,
				 secret, &secret_bytes),
		SECPOOL_E_TPM);
	for (size_t at = 0; at < credential_bytes; at++) {
		credential[at] ^= 1;
		assert_int_not_equal(tpm_activate(a.tpm, credential, credential_bytes, sealed,
					     sealed_bytes, secret, &secret_bytes),
			SECPOOL_OK);
		credential[at] ^= 1;
	}
	assert_int_equal(quote_make_credential(a.ek.area, a.ek.bytes, b.ak.area, b.ak.bytes, SECRET,
				 credential, &credential_bytes, sealed, &sealed_bytes),
		SECPOOL_OK);
	assert_int_equal(tpm_activate(a.tpm, credential, credential_bytes, sealed, sealed_bytes,
				 secret, &secret_bytes),
		SECPOOL_E_TPM);
	assert_non_null(strstr(err_detail(), "another"));
}

static void credential_checks_keys(void **state)
{
	uint8_t credential[TPM_PUBLIC_BYTES], sealed[TPM_PUBLIC_BYTES];
	size_t credential_bytes = 4711, sealed_bytes = 4711;

	(void)state;
	assert_int_equal(quote_make_credential(a.ak.area, a.ak.bytes, a.ak.area, a.ak.bytes, SECRET,
				 credential, &credential_bytes, sealed, &sealed_bytes),
		SECPOOL_E_ATTESTATION);
	assert_int_equal(quote_make_credential(a.ek.area, a.ek.bytes, a.ek.area, a.ek.bytes, SECRET,
				 credential, &credential_bytes, sealed, &sealed_bytes),
		SECPOOL_E_ATTESTATION);
	assert_int_equal(quote_make_credential(a.ek.area, 3, a.ak.area, a.ak.bytes, SECRET,
				 credential, &credential_bytes, sealed, &sealed_bytes),
		SECPOOL_E_ATTESTATION);
	assert_int_equal(credential_bytes + sealed_bytes, 2 * 4711);
}

static void names_and_pem(void **state)
{
	uint8_t name[QUOTE_NAME_BYTES], other[QUOTE_NAME_BYTES], untouched[QUOTE_NAME_BYTES];
	char text[512] = "untouched";

	(void)state;
	assert_int_equal(quote_public_name(a.ek.area, a.ek.bytes, name), SECPOOL_OK);
	assert_int_equal(name[0] << 8 | name[1], TPM2_ALG_SHA256);
	assert_int_equal(quote_public_name(b.ek.area, b.ek.bytes, other), SECPOOL_OK);
	assert_memory_not_equal(name, other, sizeof name);
	memcpy(untouched, name, sizeof name);
	assert_int_equal(quote_public_name(a.ek.area, a.ek.bytes - 1, name), SECPOOL_E_ATTESTATION);
	assert_int_equal(quote_public_name(a.ek.area, 0, name), SECPOOL_E_ATTESTATION);
	assert_memory_equal(name, untouched, sizeof name);
	assert_int_equal(quote_public_pem(a.ak.area, 4, text, sizeof text), SECPOOL_E_ATTESTATION);
	assert_int_equal(quote_public_pem(a.ak.area, a.ak.bytes, text, 100), SECPOOL_E_INVALID);
	assert_string_equal(text, "untouched");
	assert_int_equal(quote_public_pem(a.ak.area, a.ak.bytes, text, sizeof text), SECPOOL_OK);
	assert_memory_equal(text, "-----BEGIN PUBLIC KEY-----\n", 27);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(credential_opens_only_where_it_should),
		cmocka_unit_test(credential_checks_keys),
		cmocka_unit_test(names_and_pem),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
