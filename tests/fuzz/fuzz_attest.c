/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libFuzzer: any bytes as a TPMS_ATTEST that a key which looks like an AK has signed, so that what lies behind the signature is reached. First byte odd: the name of the right signer is put where it belongs. The PCR
 * values are two of zeros, the nonce is of zeros. What is accepted is a quote over exactly these.
 */
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <tss2/tss2_mu.h>

#include "enclave/quote_verify.h"

enum { PCRS = 0x5, NAME_AT = 8, DIGEST_BYTES = 32 };

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

struct key {
	EVP_PKEY *pkey;
	struct tpm_public area;
	uint8_t name[QUOTE_NAME_BYTES];
};

static struct key ek, ak;
static uint8_t signer[QUOTE_NAME_BYTES];
static const uint8_t zeros[2 * TPM_PCR_BYTES];

static void require(bool holds)
{
	if (!holds)
		abort();
}

static void digest(const void *bytes, size_t count, uint8_t *to)
{
	require(EVP_Digest(bytes, count, to, NULL, EVP_sha256(), NULL) == 1);
}

static void make_key(struct key *key, bool signs)
{
	TPM2B_PUBLIC area = {.size = 0};
	TPMT_PUBLIC *public = &area.publicArea;
	TPMS_ECC_PARMS *ecc = &public->parameters.eccDetail;
	size_t bytes = 0;
	uint8_t point[65];

	key->pkey = EVP_EC_gen("P-256");
	require(key->pkey && EVP_PKEY_get_octet_string_param(key->pkey, OSSL_PKEY_PARAM_PUB_KEY,
				     point, sizeof point, &bytes) == 1);
	public->type = TPM2_ALG_ECC;
	public->nameAlg = TPM2_ALG_SHA256;
	public->objectAttributes = TPMA_OBJECT_RESTRICTED | TPMA_OBJECT_FIXEDTPM |
				   TPMA_OBJECT_FIXEDPARENT | TPMA_OBJECT_SENSITIVEDATAORIGIN |
				   (signs ? TPMA_OBJECT_SIGN_ENCRYPT : TPMA_OBJECT_DECRYPT);
	ecc->symmetric.algorithm = signs ? TPM2_ALG_NULL : TPM2_ALG_AES;
	ecc->symmetric.keyBits.aes = 128;
	ecc->symmetric.mode.aes = TPM2_ALG_CFB;
	ecc->scheme.scheme = signs ? TPM2_ALG_ECDSA : TPM2_ALG_NULL;
	ecc->scheme.details.ecdsa.hashAlg = TPM2_ALG_SHA256;
	ecc->curveID = TPM2_ECC_NIST_P256;
	ecc->kdf.scheme = TPM2_ALG_NULL;
	public->unique.ecc.x.size = public->unique.ecc.y.size = 32;
	memcpy(public->unique.ecc.x.buffer, point + 1, 32);
	memcpy(public->unique.ecc.y.buffer, point + 33, 32);
	bytes = 0;
	require(Tss2_MU_TPM2B_PUBLIC_Marshal(
			&area, key->area.area, sizeof key->area.area, &bytes) == 0);
	key->area.bytes = bytes;
	require(quote_public_name(key->area.area, bytes, key->name) == SECPOOL_OK);
}

/* QN(EK) = H(hierarchy || EK), QN(AK) = H(QN(EK) || AK): TPM 2.0 part 1, section 16 */
static void start(void)
{
	uint8_t both[2 * QUOTE_NAME_BYTES] = {0x40, 0x00, 0x00, 0x0b};
	uint8_t parent[QUOTE_NAME_BYTES] = {0x00, 0x0b};

	make_key(&ek, false);
	make_key(&ak, true);
	memcpy(both + 4, ek.name, sizeof ek.name);
	digest(both, 4 + sizeof ek.name, parent + 2);
	memcpy(both, parent, sizeof parent);
	memcpy(both + sizeof parent, ak.name, sizeof ak.name);
	signer[1] = 0x0b;
	digest(both, sizeof both, signer + 2);
}

static size_t sign(const uint8_t *attest, size_t count, uint8_t signature[TPM_SIGNATURE_BYTES])
{
	TPMT_SIGNATURE area = {.sigAlg = TPM2_ALG_ECDSA};
	TPMS_SIGNATURE_ECDSA *ecdsa = &area.signature.ecdsa;
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	uint8_t der[80];
	const uint8_t *at = der;
	size_t der_bytes = sizeof der, used = 0;
	ECDSA_SIG *sig;

	require(context &&
		EVP_DigestSignInit_ex(context, NULL, "SHA256", NULL, NULL, ak.pkey, NULL) == 1 &&
		EVP_DigestSign(context, der, &der_bytes, attest, count) == 1);
	EVP_MD_CTX_free(context);
	sig = d2i_ECDSA_SIG(NULL, &at, (long)der_bytes);
	require(sig != NULL);
	ecdsa->hash = TPM2_ALG_SHA256;
	ecdsa->signatureR.size = ecdsa->signatureS.size = 32;
	BN_bn2binpad(ECDSA_SIG_get0_r(sig), ecdsa->signatureR.buffer, 32);
	BN_bn2binpad(ECDSA_SIG_get0_s(sig), ecdsa->signatureS.buffer, 32);
	ECDSA_SIG_free(sig);
	require(Tss2_MU_TPMT_SIGNATURE_Marshal(&area, signature, TPM_SIGNATURE_BYTES, &used) == 0);
	return used;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
	uint8_t attest[TPM_ATTEST_BYTES], signature[TPM_SIGNATURE_BYTES], wanted[DIGEST_BYTES];
	struct quote_facts facts;
	size_t length = count - 1, signature_bytes;

	if (!ak.pkey)
		start();
	if (count < 1 || length > sizeof attest)
		return 0;
	memcpy(attest, bytes + 1, length);
	if (bytes[0] % 2 == 1 && length >= NAME_AT + sizeof signer)
		memcpy(attest + NAME_AT, signer, sizeof signer);
	signature_bytes = sign(attest, length, signature);
	if (quote_verify(ek.area.area, ek.area.bytes, ak.area.area, ak.area.bytes, attest, length,
		    signature, signature_bytes, zeros, QUOTE_NONCE_BYTES, PCRS, zeros, 2,
		    &facts) != SECPOOL_OK)
		return 0;
	digest(zeros, sizeof zeros, wanted);
	require(memcmp(facts.pcr_digest, wanted, sizeof wanted) == 0);
	require(bytes[0] % 2 == 1 && memcmp(attest, "\xff\x54\x43\x47\x80\x18", 6) == 0);
	return 0;
}
