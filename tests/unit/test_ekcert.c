/* SPDX-License-Identifier: Apache-2.0 */
/* EK certificates: good ones for both kinds of key, and each way of being wrong with its own reason; CA files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/rsa.h>
#include <tss2/tss2_mu.h>

#include "tests/unit/ekcert_fixture.h"
#include "enclave/tpm.h"
#include "lib/base/os.h"

/* An EK as its TPM publishes it. */
struct ek {
	EVP_PKEY *key;
	struct tpm_public area;
};

static struct authority root, middle, foreign;
static struct ekcert_cas *cas;
static struct ek ecc, rsa;

static void publish(struct ek *ek, bool is_rsa)
{
	TPM2B_PUBLIC area = {.size = 0};
	TPMT_PUBLIC *public = &area.publicArea;
	TPMT_SYM_DEF_OBJECT *symmetric = is_rsa ? &public->parameters.rsaDetail.symmetric
						: &public->parameters.eccDetail.symmetric;
	uint8_t point[65];
	BIGNUM *n = NULL;
	size_t bytes = 0;

	public->type = is_rsa ? TPM2_ALG_RSA : TPM2_ALG_ECC;
	public->nameAlg = TPM2_ALG_SHA256;
	public->objectAttributes = TPMA_OBJECT_RESTRICTED | TPMA_OBJECT_DECRYPT |
				   TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT |
				   TPMA_OBJECT_SENSITIVEDATAORIGIN;
	symmetric->algorithm = TPM2_ALG_AES;
	symmetric->keyBits.aes = 128;
	symmetric->mode.aes = TPM2_ALG_CFB;
	if (is_rsa) {
		public->parameters.rsaDetail.keyBits = 2048;
		public->parameters.rsaDetail.scheme.scheme = TPM2_ALG_NULL;
		assert_int_equal(EVP_PKEY_get_bn_param(ek->key, OSSL_PKEY_PARAM_RSA_N, &n), 1);
		public->unique.rsa.size = 256;
		BN_bn2binpad(n, public->unique.rsa.buffer, 256);
		BN_free(n);
	} else {
		public->parameters.eccDetail.scheme.scheme = TPM2_ALG_NULL;
		public->parameters.eccDetail.curveID = TPM2_ECC_NIST_P256;
		public->parameters.eccDetail.kdf.scheme = TPM2_ALG_NULL;
		assert_int_equal(EVP_PKEY_get_octet_string_param(ek->key, OSSL_PKEY_PARAM_PUB_KEY,
					 point, sizeof point, &bytes),
			1);
		public->unique.ecc.x.size = public->unique.ecc.y.size = 32;
		memcpy(public->unique.ecc.x.buffer, point + 1, 32);
		memcpy(public->unique.ecc.y.buffer, point + 33, 32);
	}
	bytes = 0;
	assert_int_equal(
		Tss2_MU_TPM2B_PUBLIC_Marshal(&area, ek->area.area, sizeof ek->area.area, &bytes),
		0);
	ek->area.bytes = bytes;
}

static int set_up(void **state)
{
	char text[8192] = "";

	(void)state;
	authority_init(&root, "root", NULL, 3650);
	authority_init(&middle, "middle", &root, 365);
	authority_init(&foreign, "root", NULL, 3650); /* the same name, another key */
	authority_pem(&middle, text);
	authority_pem(&root, text);
	ecc.key = EVP_EC_gen("P-256");
	rsa.key = EVP_RSA_gen(2048);
	publish(&ecc, false);
	publish(&rsa, true);
	return ekcert_load_text(text, strlen(text), "cas.pem", &cas) ? -1 : 0;
}

static int tear_down(void **state)
{
	(void)state;
	ekcert_free(cas);
	ekcert_free(NULL);
	authority_done(&root);
	authority_done(&middle);
	authority_done(&foreign);
	EVP_PKEY_free(ecc.key);
	EVP_PKEY_free(rsa.key);
	return 0;
}

static enum secpool_error verify(
	const uint8_t *der, size_t bytes, const struct ek *ek, int64_t now_s)
{
	err_clear();
	return ekcert_verify(cas, der, bytes, ek->area.area, ek->area.bytes, now_s);
}

static void expect_refused(enum secpool_error got, const char *reason)
{
	assert_int_equal(got, SECPOOL_E_ATTESTATION);
	if (!strstr(err_detail(), reason))
		fail_msg("'%s' does not say '%s'", err_detail(), reason);
}

static void good_ones_are_accepted(void **state)
{
	const struct flaws none = {.from = 0}, cipher = {.encipher = true};
	uint8_t der[EKCERT_BYTES_MOST + 8];
	size_t bytes;

	(void)state;
	bytes = authority_issue(&root, ecc.key, &none, der);
	assert_int_equal(verify(der, bytes, &ecc, EKCERT_NOW), SECPOOL_OK);
	bytes = authority_issue(&middle, ecc.key, &none, der);
	assert_int_equal(verify(der, bytes, &ecc, EKCERT_NOW), SECPOOL_OK);
	bytes = authority_issue(&middle, rsa.key, &cipher, der);
	assert_int_equal(verify(der, bytes, &rsa, EKCERT_NOW), SECPOOL_OK);
	/* an NV index may be longer than what is in it */
	memset(der + bytes, 0xff, 4);
	memset(der + bytes + 4, 0, 4);
	assert_int_equal(verify(der, bytes + 8, &rsa, EKCERT_NOW), SECPOOL_OK);
	der[bytes + 7] = 1;
	expect_refused(verify(der, bytes + 8, &rsa, EKCERT_NOW), "not an X.509 certificate");
	expect_refused(verify(der, bytes, &ecc, EKCERT_NOW), "for another key");
}

static void each_flaw_has_its_reason(void **state)
{
	static const struct {
		struct flaws flaws;
		const char *reason;
	} cases[] = {
		{{.from = -9 * EKCERT_DAY, .to = -EKCERT_DAY}, "it has expired"},
		{{.from = EKCERT_DAY, .to = 9 * EKCERT_DAY}, "it is not valid yet"},
		{{.no_usage = true}, "extended key usage"},
		{{.other_usage = true}, "extended key usage"},
		{{.no_key_usage = true}, "its key usage"},
		{{.encipher = true}, "its key usage"},
		{{.is_ca = true}, "it is a CA's"},
		{{.no_name = true}, "maker, model and version"},
		{{.short_name = true}, "maker, model and version"},
		{{.critical = true}, "critical extension"},
		{{.weak = true}, "too weak"},
		{{.version1 = true}, "not of X.509 version 3"},
	};
	const struct flaws none = {.from = 0};
	uint8_t der[EKCERT_BYTES_MOST];
	size_t bytes;

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		bytes = authority_issue(&middle, ecc.key, &cases[i].flaws, der);
		expect_refused(verify(der, bytes, &ecc, EKCERT_NOW), cases[i].reason);
	}
	bytes = authority_issue(&foreign, ecc.key, &none, der);
	expect_refused(verify(der, bytes, &ecc, EKCERT_NOW), "is not by the CA that it names");
	bytes = authority_issue(&middle, ecc.key, &none, der);
	/* a year later its CA has expired as well: the first reason that is found is the CA's */
	expect_refused(
		verify(der, bytes, &ecc, EKCERT_NOW + 400 * (int64_t)EKCERT_DAY), "has expired");
	expect_refused(verify(NULL, 0, &ecc, EKCERT_NOW), "the TPM has none");
	expect_refused(verify(der, EKCERT_BYTES_MOST + 1, &ecc, EKCERT_NOW), "too long");
	expect_refused(ekcert_verify(NULL, der, bytes, ecc.area.area, ecc.area.bytes, EKCERT_NOW),
		"lists no CA");
	expect_refused(
		ekcert_verify(cas, der, bytes, ecc.area.area, 7, EKCERT_NOW), "TPM2B_PUBLIC");
}

static void foreign_chains_are_refused(void **state)
{
	const struct flaws none = {.from = 0},
			   long_lived = {.from = -EKCERT_DAY, .to = 900 * EKCERT_DAY};
	struct authority other, under;
	uint8_t der[EKCERT_BYTES_MOST];
	char text[8192] = "";
	struct ekcert_cas *few = NULL;
	size_t bytes;

	(void)state;
	authority_init(&other, "somebody else", NULL, 3650);
	authority_init(&under, "under it", &other, 365);
	bytes = authority_issue(&other, ecc.key, &none, der);
	expect_refused(verify(der, bytes, &ecc, EKCERT_NOW), "no CA that the policy lists");
	bytes = authority_issue(&under, ecc.key, &none, der);
	expect_refused(verify(der, bytes, &ecc, EKCERT_NOW), "no CA that the policy lists");
	/* who is between it and the root is missing from the files */
	authority_pem(&root, text);
	assert_int_equal(ekcert_load_text(text, strlen(text), "few.pem", &few), SECPOOL_OK);
	bytes = authority_issue(&middle, ecc.key, &none, der);
	expect_refused(ekcert_verify(few, der, bytes, ecc.area.area, ecc.area.bytes, EKCERT_NOW),
		"no CA that the policy lists");
	/* the root that is listed, and one who is between: no anchor by itself */
	authority_pem(&under, text);
	ekcert_free(few);
	assert_int_equal(ekcert_load_text(text, strlen(text), "few.pem", &few), SECPOOL_OK);
	bytes = authority_issue(&under, ecc.key, &none, der);
	expect_refused(ekcert_verify(few, der, bytes, ecc.area.area, ecc.area.bytes, EKCERT_NOW),
		"no CA that the policy lists");
	ekcert_free(few);
	bytes = authority_issue(&middle, ecc.key, &long_lived, der);
	expect_refused(verify(der, bytes, &ecc, EKCERT_NOW + 400 * (int64_t)EKCERT_DAY),
		"of its CA has expired");
	authority_done(&under);
	authority_done(&other);
}

/* Every truncation and every bit of a good one: refused; what is left of the signature's form may not be more than what DER allows. */
static void every_change_is_refused(void **state)
{
	const struct flaws none = {.from = 0};
	uint8_t der[EKCERT_BYTES_MOST];
	size_t bytes;

	(void)state;
	bytes = authority_issue(&root, ecc.key, &none, der);
	for (size_t cut = 0; cut < bytes; cut++)
		assert_int_equal(verify(der, cut, &ecc, EKCERT_NOW), SECPOOL_E_ATTESTATION);
	for (size_t bit = 0; bit < 8 * bytes; bit++) {
		der[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_int_equal(verify(der, bytes, &ecc, EKCERT_NOW), SECPOOL_E_ATTESTATION);
		der[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	assert_int_equal(verify(der, bytes, &ecc, EKCERT_NOW), SECPOOL_OK);
}

static void expect_bad_file(const char *text, size_t bytes, const char *reason)
{
	struct ekcert_cas *none = NULL;

	assert_int_equal(ekcert_load_text(text, bytes, "file.pem", &none), SECPOOL_E_POLICY);
	assert_null(none);
	if (!strstr(err_detail(), reason))
		fail_msg("'%s' does not say '%s'", err_detail(), reason);
}

static void bad_files_are_refused(void **state)
{
	static char text[8192], longer[EKCERT_FILE_BYTES_MOST + 1];
	const struct flaws none = {.from = 0};
	struct authority leaf = {.key = NULL};
	uint8_t der[EKCERT_BYTES_MOST];
	const uint8_t *at = der;
	size_t bytes;

	(void)state;
	expect_bad_file("", 0, "no certificate in PEM");
	expect_bad_file("hello\n", 6, "no certificate in PEM");
	expect_bad_file(longer, sizeof longer, "too long");
	authority_pem(&middle, text);
	expect_bad_file(text, strlen(text), "none of its certificates is a root");
	authority_pem(&root, text);
	expect_bad_file(text, strlen(text) - 60, "malformed");
	text[30] = '!'; /* not of base64's alphabet */
	expect_bad_file(text, strlen(text), "malformed");
	bytes = authority_issue(&root, ecc.key, &none, der);
	leaf.certificate = d2i_X509(NULL, &at, (long)bytes);
	text[0] = '\0';
	authority_pem(&leaf, text);
	expect_bad_file(text, strlen(text), "not a CA's");
	authority_done(&leaf);
}

/* The files of a policy, by their paths. */
static void policy_names_files(void **state)
{
	char folder[] = "/tmp/secpool-ekcert-XXXXXX", path[64], text[512], pem[8192] = "";
	struct ekcert_cas *loaded = NULL;
	struct policy *policy = NULL;

	(void)state;
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof path, "%s/ca.pem", folder);
	snprintf(text, sizeof text,
		"version: 1\ntenants: []\ndevices:\n  firmware: [x]\n  ek_ca: [%s]\n", path);
	assert_int_equal(policy_load_text(text, strlen(text), "p", &policy), SECPOOL_OK);
	assert_string_equal(policy_ek_ca(policy, 0), path);
	assert_null(policy_ek_ca(policy, 1));
	assert_int_equal(ekcert_load(policy, &loaded), SECPOOL_E_POLICY);
	assert_non_null(strstr(err_detail(), path));
	authority_pem(&root, pem);
	assert_int_equal(os_write_file_durable(path, pem, strlen(pem), 0600), SECPOOL_OK);
	assert_int_equal(ekcert_load(policy, &loaded), SECPOOL_OK);
	assert_non_null(loaded);
	ekcert_free(loaded);
	policy_free(policy);
	assert_int_equal(
		policy_load_text("version: 1\ntenants: []\n", 23, "p", &policy), SECPOOL_OK);
	assert_int_equal(ekcert_load(policy, &loaded), SECPOOL_OK);
	assert_null(loaded);
	policy_free(policy);
	assert_int_equal(os_remove_tree(folder), SECPOOL_OK);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(good_ones_are_accepted),
		cmocka_unit_test(each_flaw_has_its_reason),
		cmocka_unit_test(foreign_chains_are_refused),
		cmocka_unit_test(every_change_is_refused),
		cmocka_unit_test(bad_files_are_refused),
		cmocka_unit_test(policy_names_files),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
