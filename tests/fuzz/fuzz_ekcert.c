/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libFuzzer: any bytes as an EK certificate. First byte modulo 3: 0, the rest is the certificate; 1, it is a series of (offset 16, flipped bits 8) for a good one, which must then be refused;
 * 2, the second byte chooses an extension of a certificate that is well signed, and the rest is what is in it.
 */
#include <openssl/core_names.h>
#include <tss2/tss2_mu.h>

#include "enclave/tpm.h"
#include "tests/unit/ekcert_fixture.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

static struct authority root;
static struct ekcert_cas *cas;
static EVP_PKEY *key;
static struct tpm_public ek;
static uint8_t good[EKCERT_BYTES_MOST];
static size_t good_bytes;

static void require(bool holds)
{
	if (!holds)
		abort();
}

/* The EK as its TPM would publish it. */
static void publish(void)
{
	TPM2B_PUBLIC area = {.size = 0};
	TPMT_PUBLIC *public = &area.publicArea;
	TPMS_ECC_PARMS *ecc = &public->parameters.eccDetail;
	size_t bytes = 0;
	uint8_t point[65];

	require(EVP_PKEY_get_octet_string_param(
			key, OSSL_PKEY_PARAM_PUB_KEY, point, sizeof point, &bytes) == 1);
	public->type = TPM2_ALG_ECC;
	public->nameAlg = TPM2_ALG_SHA256;
	public->objectAttributes = TPMA_OBJECT_RESTRICTED | TPMA_OBJECT_DECRYPT |
				   TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT |
				   TPMA_OBJECT_SENSITIVEDATAORIGIN;
	ecc->symmetric.algorithm = TPM2_ALG_AES;
	ecc->symmetric.keyBits.aes = 128;
	ecc->symmetric.mode.aes = TPM2_ALG_CFB;
	ecc->scheme.scheme = TPM2_ALG_NULL;
	ecc->curveID = TPM2_ECC_NIST_P256;
	ecc->kdf.scheme = TPM2_ALG_NULL;
	public->unique.ecc.x.size = public->unique.ecc.y.size = 32;
	memcpy(public->unique.ecc.x.buffer, point + 1, 32);
	memcpy(public->unique.ecc.y.buffer, point + 33, 32);
	require(Tss2_MU_TPM2B_PUBLIC_Marshal(&area, ek.area, sizeof ek.area, &ek.bytes) == 0);
}

static enum secpool_error verify(const uint8_t *der, size_t count)
{
	enum secpool_error error = ekcert_verify(cas, der, count, ek.area, ek.bytes, EKCERT_NOW);

	require(error == SECPOOL_OK || error == SECPOOL_E_ATTESTATION);
	require(!error || strstr(err_detail(), "EK certificate is refused") != NULL);
	return error;
}

static void start(void)
{
	static const struct flaws none = {.from = 0};
	char text[8192] = "";

	authority_init(&root, "root", NULL, 3650);
	authority_pem(&root, text);
	require(ekcert_load_text(text, strlen(text), "fuzz", &cas) == SECPOOL_OK);
	key = EVP_EC_gen("P-256");
	require(key != NULL);
	publish();
	good_bytes = authority_issue(&root, key, &none, good);
	require(verify(good, good_bytes) == SECPOOL_OK);
}

static void flip(const uint8_t *bytes, size_t count)
{
	uint8_t changed[EKCERT_BYTES_MOST];

	memcpy(changed, good, good_bytes);
	for (size_t i = 0; i + 3 <= count; i += 3)
		changed[(size_t)(bytes[i] | bytes[i + 1] << 8) % good_bytes] ^= bytes[i + 2];
	require((verify(changed, good_bytes) == SECPOOL_OK) ==
		(memcmp(changed, good, good_bytes) == 0));
}

/* One extension is the input's, the others are as they should be. */
static void extend(unsigned which, const uint8_t *bytes, size_t count)
{
	static const int nids[] = {NID_ext_key_usage, NID_key_usage, NID_subject_alt_name,
		NID_basic_constraints, NID_name_constraints, NID_authority_key_identifier};
	X509 *certificate = ekcert_begin("a TPM", key, root.certificate, -EKCERT_DAY, EKCERT_DAY);
	ASN1_OCTET_STRING *data = ASN1_OCTET_STRING_new();
	uint8_t der[2 * EKCERT_BYTES_MOST], *at = der;
	X509_EXTENSION *extension;
	int length;

	which %= sizeof nids / sizeof *nids;
	if (nids[which] != NID_ext_key_usage)
		ekcert_add_usage(certificate, "2.23.133.8.1");
	if (nids[which] != NID_key_usage)
		ekcert_add_key_usage(certificate, USE_AGREE);
	if (nids[which] != NID_subject_alt_name)
		ekcert_add_name(certificate, 3);
	if (nids[which] != NID_basic_constraints)
		ekcert_add_constraints(certificate, false);
	require(data && ASN1_OCTET_STRING_set(data, bytes, (int)count) == 1);
	extension = X509_EXTENSION_create_by_NID(NULL, nids[which], 1, data);
	require(extension && X509_add_ext(certificate, extension, -1) == 1);
	require(X509_sign(certificate, root.key, EVP_sha256()) > 0);
	length = i2d_X509(certificate, NULL);
	if (length > 0 && length <= EKCERT_BYTES_MOST && i2d_X509(certificate, &at) == length)
		(void)!verify(der, (size_t)length);
	X509_EXTENSION_free(extension);
	ASN1_OCTET_STRING_free(data);
	X509_free(certificate);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
	if (!cas)
		start();
	if (count < 2)
		return 0;
	if (bytes[0] % 3 == 0)
		(void)!verify(bytes + 1, count - 1);
	else if (bytes[0] % 3 == 1)
		flip(bytes + 1, count - 1);
	else if (count <= EKCERT_BYTES_MOST)
		extend(bytes[1], bytes + 2, count - 2);
	return 0;
}
