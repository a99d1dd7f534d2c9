/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/ecdsa.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/param_build.h>
#include <string.h>

#include "enclave/primitives.h"

/* An uncompressed point: 4, x, y (SEC 1, 2.3.3). */
enum { POINT_BYTES = 65, PREFIX_BYTES = ECDSA_SPKI_BYTES - POINT_BYTES };

/* SubjectPublicKeyInfo up to the point: id-ecPublicKey, secp256r1 (RFC 5480, 2.1.1) */
static const uint8_t spki_prefix[PREFIX_BYTES] = {0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86,
	0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07,
	0x03, 0x42, 0x00};

/* A key from a point and, for a private key, its scalar (else NULL). NULL if OpenSSL refuses. */
static EVP_PKEY *make_key(const uint8_t point[POINT_BYTES], const BIGNUM *scalar)
{
	int selection = scalar ? EVP_PKEY_KEYPAIR : EVP_PKEY_PUBLIC_KEY;
	EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(NULL, "EC", NULL);
	OSSL_PARAM_BLD *builder = OSSL_PARAM_BLD_new();
	OSSL_PARAM *params = NULL;
	EVP_PKEY *key = NULL;

	if (context && builder &&
		OSSL_PARAM_BLD_push_utf8_string(
			builder, OSSL_PKEY_PARAM_GROUP_NAME, SN_X9_62_prime256v1, 0) == 1 &&
		OSSL_PARAM_BLD_push_octet_string(
			builder, OSSL_PKEY_PARAM_PUB_KEY, point, POINT_BYTES) == 1 &&
		(!scalar || OSSL_PARAM_BLD_push_BN(builder, OSSL_PKEY_PARAM_PRIV_KEY, scalar) == 1))
		params = OSSL_PARAM_BLD_to_param(builder);
	if (params && EVP_PKEY_fromdata_init(context) == 1 &&
		EVP_PKEY_fromdata(context, &key, selection, params) != 1)
		key = NULL;
	OSSL_PARAM_free(params);
	OSSL_PARAM_BLD_free(builder);
	EVP_PKEY_CTX_free(context);
	return key;
}

/* The scalar's point, uncompressed; false for a scalar out of range. */
static bool multiply(const EC_GROUP *group, const BIGNUM *scalar, uint8_t ret_point[POINT_BYTES])
{
	EC_POINT *point = EC_POINT_new(group);
	bool done = point && !BN_is_zero(scalar) &&
		    BN_cmp(scalar, EC_GROUP_get0_order(group)) < 0 &&
		    EC_POINT_mul(group, point, scalar, NULL, NULL, NULL) == 1 &&
		    EC_POINT_point2oct(group, point, POINT_CONVERSION_UNCOMPRESSED, ret_point,
			    POINT_BYTES, NULL) == POINT_BYTES;

	EC_POINT_clear_free(point);
	return done;
}

enum secpool_error ecdsa_private(const uint8_t scalar[ECDSA_PRIVATE_BYTES], EVP_PKEY **ret_key)
{
	EC_GROUP *group = EC_GROUP_new_by_curve_name(NID_X9_62_prime256v1);
	BIGNUM *number = BN_bin2bn(scalar, ECDSA_PRIVATE_BYTES, NULL);
	uint8_t point[POINT_BYTES];
	EVP_PKEY *key = NULL;

	if (group && number) {
		BN_set_flags(number, BN_FLG_CONSTTIME);
		if (multiply(group, number, point))
			key = make_key(point, number);
	}
	BN_clear_free(number);
	EC_GROUP_free(group);
	if (!key)
		return primitives_failed("a P-256 signing key from these bytes");
	*ret_key = key;
	return SECPOOL_OK;
}

enum secpool_error ecdsa_public(const uint8_t *spki, size_t bytes, EVP_PKEY **ret_key)
{
	EVP_PKEY *key = NULL;

	if (bytes == ECDSA_SPKI_BYTES && CRYPTO_memcmp(spki, spki_prefix, PREFIX_BYTES) == 0)
		key = make_key(spki + PREFIX_BYTES, NULL);
	if (!key) {
		ERR_clear_error();
		return err_set(SECPOOL_E_INTEGRITY, "not a P-256 public key");
	}
	*ret_key = key;
	return SECPOOL_OK;
}

enum secpool_error ecdsa_spki(const EVP_PKEY *key, uint8_t ret_spki[ECDSA_SPKI_BYTES])
{
	uint8_t point[POINT_BYTES + 1];
	size_t bytes = 0;

	if (EVP_PKEY_get_octet_string_param(
		    key, OSSL_PKEY_PARAM_PUB_KEY, point, sizeof point, &bytes) != 1 ||
		bytes != POINT_BYTES || point[0] != POINT_CONVERSION_UNCOMPRESSED)
		return primitives_failed("reading a P-256 public key");
	memcpy(ret_spki, spki_prefix, PREFIX_BYTES);
	memcpy(ret_spki + PREFIX_BYTES, point, POINT_BYTES);
	return SECPOOL_OK;
}

enum secpool_error ecdsa_sign(EVP_PKEY *key, const void *message, size_t bytes,
	uint8_t ret_signature[ECDSA_SIGNATURE_BYTES_MOST], size_t *ret_bytes)
{
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	size_t count = ECDSA_SIGNATURE_BYTES_MOST;
	bool done = context &&
		    EVP_DigestSignInit_ex(context, NULL, "SHA256", NULL, NULL, key, NULL) == 1 &&
		    EVP_DigestSign(context, ret_signature, &count, message, bytes) == 1;

	EVP_MD_CTX_free(context);
	if (!done)
		return primitives_failed("ECDSA signing");
	*ret_bytes = count;
	return SECPOOL_OK;
}

enum secpool_error ecdsa_verify(EVP_PKEY *key, const void *message, size_t bytes,
	const uint8_t *signature, size_t signature_bytes)
{
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	bool good = context &&
		    EVP_DigestVerifyInit_ex(context, NULL, "SHA256", NULL, NULL, key, NULL) == 1 &&
		    EVP_DigestVerify(context, signature, signature_bytes, message, bytes) == 1;

	EVP_MD_CTX_free(context);
	if (good)
		return SECPOOL_OK;
	ERR_clear_error();
	return err_set(SECPOOL_E_INTEGRITY, "a signature does not match");
}
