/* SPDX-License-Identifier: Apache-2.0 */
/* TPM2_MakeCredential in software (TPM 2.0 part 1, section 24, with annexes C.6.1 for an ECC key and B.10 for an RSA key). */
#include "enclave/quote_key.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/kdf.h>
#include <stdbool.h>
#include <string.h>

#include "lib/base/os.h"

enum { SEED_BYTES = 32, AES_BYTES = 16, HMAC_BYTES = 32 };
/* TPM2B_DIGEST of the secret, encrypted */
enum { IDENTITY_BYTES = 2 + QUOTE_SECRET_BYTES };
/*
 * TPM2B_ID_OBJECT: size, TPM2B_DIGEST of the HMAC, identity. TPM2B_ENCRYPTED_SECRET: size,
 * TPMS_ECC_POINT
 */
enum { CREDENTIAL_BYTES = 2 + 2 + HMAC_BYTES + IDENTITY_BYTES };
enum { POINT_BYTES = 2 * (2 + QUOTE_COORDINATE_BYTES), ECC_SECRET_BYTES = 2 + POINT_BYTES };
/* The same for RSA-2048: size, ciphertext. */
enum { RSA_BYTES = 256, RSA_SECRET_BYTES = 2 + RSA_BYTES };

static uint8_t *put_size(uint8_t *at, size_t size)
{
	at[0] = (uint8_t)(size >> 8);
	at[1] = (uint8_t)size;
	return at + 2;
}

static bool derive(const char *algorithm, const OSSL_PARAM *params, uint8_t *to, size_t bytes)
{
	EVP_KDF *kdf = EVP_KDF_fetch(NULL, algorithm, NULL);
	EVP_KDF_CTX *context = kdf ? EVP_KDF_CTX_new(kdf) : NULL;
	bool good = context && EVP_KDF_derive(context, to, bytes, params) == 1;

	EVP_KDF_CTX_free(context);
	EVP_KDF_free(kdf);
	return good;
}

/*
 * KDFa: SP 800-108 in counter mode with HMAC-SHA-256 (TPM 2.0 part 1, section 11.4.10.2); the
 * label's NUL is KBKDF's separator.
 */
static bool kdfa(const uint8_t seed[SEED_BYTES], const char *label, const uint8_t *context,
	size_t context_bytes, uint8_t *to, size_t bytes)
{
	char mac[] = "HMAC", digest[] = "SHA256", mode[] = "COUNTER";
	OSSL_PARAM params[7], *p = params;

	*p++ = OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_MAC, mac, 0);
	*p++ = OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0);
	*p++ = OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_MODE, mode, 0);
	*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)seed, SEED_BYTES);
	*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, (void *)label, strlen(label));
	if (context_bytes > 0)
		*p++ = OSSL_PARAM_construct_octet_string(
			OSSL_KDF_PARAM_INFO, (void *)context, context_bytes);
	*p = OSSL_PARAM_construct_end();
	return derive("KBKDF", params, to, bytes);
}

/*
 * KDFe: SP 800-56A's one-step derivation with SHA-256 over "IDENTITY" and both x coordinates
 * (part 1, section 11.4.10.3).
 */
static bool kdfe(const uint8_t z[QUOTE_COORDINATE_BYTES],
	const uint8_t ephemeral_x[QUOTE_COORDINATE_BYTES],
	const uint8_t ek_x[QUOTE_COORDINATE_BYTES], uint8_t seed[SEED_BYTES])
{
	static const char label[] = "IDENTITY"; /* with its NUL */
	uint8_t info[sizeof label + 2 * QUOTE_COORDINATE_BYTES];
	char digest[] = "SHA256";
	const OSSL_PARAM params[] = {
		OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
		OSSL_PARAM_construct_octet_string(
			OSSL_KDF_PARAM_KEY, (void *)z, QUOTE_COORDINATE_BYTES),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, info, sizeof info),
		OSSL_PARAM_construct_end(),
	};

	memcpy(info, label, sizeof label);
	memcpy(info + sizeof label, ephemeral_x, QUOTE_COORDINATE_BYTES);
	memcpy(info + sizeof label + QUOTE_COORDINATE_BYTES, ek_x, QUOTE_COORDINATE_BYTES);
	return derive("SSKDF", params, seed, SEED_BYTES);
}

static bool agree(EVP_PKEY *own, EVP_PKEY *peer, uint8_t z[QUOTE_COORDINATE_BYTES])
{
	EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_pkey(NULL, own, NULL);
	size_t bytes = QUOTE_COORDINATE_BYTES;
	bool good = context && EVP_PKEY_derive_init(context) == 1 &&
		    EVP_PKEY_derive_set_peer(context, peer) == 1 &&
		    EVP_PKEY_derive(context, z, &bytes) == 1 && bytes == QUOTE_COORDINATE_BYTES;

	EVP_PKEY_CTX_free(context);
	return good;
}

/*
 * A key pair for this one credential: the seed that both sides derive, and the
 * TPM2B_ENCRYPTED_SECRET that says its public half.
 */
static bool make_ecc_seed(
	const struct quote_key *ek, uint8_t seed[SEED_BYTES], uint8_t *encrypted_secret)
{
	uint8_t point[1 + 2 * QUOTE_COORDINATE_BYTES], z[QUOTE_COORDINATE_BYTES];
	EVP_PKEY *own = EVP_EC_gen("P-256");
	uint8_t *at = encrypted_secret;
	size_t bytes = 0;
	bool good;

	good = own &&
	       EVP_PKEY_get_octet_string_param(
		       own, OSSL_PKEY_PARAM_PUB_KEY, point, sizeof point, &bytes) == 1 &&
	       bytes == sizeof point && agree(own, ek->pkey, z) && kdfe(z, point + 1, ek->x, seed);
	EVP_PKEY_free(own);
	OPENSSL_cleanse(z, sizeof z);
	if (!good)
		return false;
	at = put_size(at, POINT_BYTES);
	for (unsigned i = 0; i < 2; i++) {
		at = put_size(at, QUOTE_COORDINATE_BYTES);
		memcpy(at, point + 1 + i * QUOTE_COORDINATE_BYTES, QUOTE_COORDINATE_BYTES);
		at += QUOTE_COORDINATE_BYTES;
	}
	return true;
}

/* A random seed, by OAEP with SHA-256 (the EK's name algorithm) and the label "IDENTITY" with its NUL. */
static bool make_rsa_seed(
	const struct quote_key *ek, uint8_t seed[SEED_BYTES], uint8_t *encrypted_secret)
{
	char label[] = "IDENTITY", digest[] = "SHA256", mode[] = "oaep";
	const OSSL_PARAM params[] = {
		OSSL_PARAM_construct_utf8_string(OSSL_ASYM_CIPHER_PARAM_PAD_MODE, mode, 0),
		OSSL_PARAM_construct_utf8_string(OSSL_ASYM_CIPHER_PARAM_OAEP_DIGEST, digest, 0),
		OSSL_PARAM_construct_octet_string(
			OSSL_ASYM_CIPHER_PARAM_OAEP_LABEL, label, sizeof label),
		OSSL_PARAM_construct_end(),
	};
	EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_pkey(NULL, ek->pkey, NULL);
	size_t bytes = RSA_BYTES;
	bool good;

	os_random(seed, SEED_BYTES);
	good = context && EVP_PKEY_encrypt_init_ex(context, params) == 1 &&
	       EVP_PKEY_encrypt(context, put_size(encrypted_secret, RSA_BYTES), &bytes, seed,
		       SEED_BYTES) == 1 &&
	       bytes == RSA_BYTES;
	EVP_PKEY_CTX_free(context);
	return good;
}

static bool make_seed(
	const struct quote_key *ek, uint8_t seed[SEED_BYTES], uint8_t *encrypted_secret)
{
	return ek->rsa ? make_rsa_seed(ek, seed, encrypted_secret)
		       : make_ecc_seed(ek, seed, encrypted_secret);
}

/* AES-128-CFB with an IV of zero: the key is used once. */
static bool encrypt_identity(
	const uint8_t key[AES_BYTES], const uint8_t secret[QUOTE_SECRET_BYTES], uint8_t *to)
{
	static const uint8_t iv[AES_BYTES];
	EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
	uint8_t plain[IDENTITY_BYTES];
	int used = 0, last = 0;
	bool good;

	memcpy(put_size(plain, QUOTE_SECRET_BYTES), secret, QUOTE_SECRET_BYTES);
	good = context && EVP_EncryptInit_ex(context, EVP_aes_128_cfb128(), NULL, key, iv) == 1 &&
	       EVP_EncryptUpdate(context, to, &used, plain, sizeof plain) == 1 &&
	       EVP_EncryptFinal_ex(context, to + used, &last) == 1 && used + last == IDENTITY_BYTES;
	EVP_CIPHER_CTX_free(context);
	OPENSSL_cleanse(plain, sizeof plain);
	return good;
}

/* The TPM2B_ID_OBJECT: the encrypted secret, under an HMAC that binds it to the AK's name. */
static bool protect(const uint8_t seed[SEED_BYTES], const uint8_t name[QUOTE_NAME_BYTES],
	const uint8_t secret[QUOTE_SECRET_BYTES], uint8_t *credential)
{
	uint8_t aes[AES_BYTES], hmac[HMAC_BYTES], bound[IDENTITY_BYTES + QUOTE_NAME_BYTES];
	uint8_t *at = put_size(put_size(credential, CREDENTIAL_BYTES - 2), HMAC_BYTES);
	size_t bytes = 0;
	bool good;

	good = kdfa(seed, "STORAGE", name, QUOTE_NAME_BYTES, aes, sizeof aes) &&
	       kdfa(seed, "INTEGRITY", NULL, 0, hmac, sizeof hmac) &&
	       encrypt_identity(aes, secret, bound);
	if (good) {
		memcpy(bound + IDENTITY_BYTES, name, QUOTE_NAME_BYTES);
		good = EVP_Q_mac(NULL, "HMAC", NULL, "SHA256", NULL, hmac, sizeof hmac, bound,
			       sizeof bound, at, HMAC_BYTES, &bytes) != NULL &&
		       bytes == HMAC_BYTES;
		memcpy(at + HMAC_BYTES, bound, IDENTITY_BYTES);
	}
	OPENSSL_cleanse(aes, sizeof aes);
	OPENSSL_cleanse(hmac, sizeof hmac);
	return good;
}

enum secpool_error quote_make_credential(const uint8_t *ek, size_t ek_bytes, const uint8_t *ak,
	size_t ak_bytes, const uint8_t secret[QUOTE_SECRET_BYTES], uint8_t *credential,
	size_t *ret_credential_bytes, uint8_t *encrypted_secret, size_t *ret_encrypted_secret_bytes)
{
	uint8_t seed[SEED_BYTES], object[CREDENTIAL_BYTES], sealed[RSA_SECRET_BYTES];
	struct quote_key ek_key = {.pkey = NULL}, ak_key = {.pkey = NULL};
	enum secpool_error error = quote_key_init(QUOTE_KEY_EK, ek, ek_bytes, &ek_key);

	if (!error)
		error = quote_key_init(QUOTE_KEY_AK, ak, ak_bytes, &ak_key);
	if (!error &&
		(!make_seed(&ek_key, seed, sealed) || !protect(seed, ak_key.name, secret, object)))
		error = err_set(SECPOOL_E_ATTESTATION,
			"no challenge could be made for this EK: OpenSSL refused it");
	if (!error) {
		memcpy(credential, object, sizeof object);
		*ret_credential_bytes = sizeof object;
		*ret_encrypted_secret_bytes = ek_key.rsa ? RSA_SECRET_BYTES : ECC_SECRET_BYTES;
		memcpy(encrypted_secret, sealed, *ret_encrypted_secret_bytes);
	}
	OPENSSL_cleanse(seed, sizeof seed);
	quote_key_done(&ak_key);
	quote_key_done(&ek_key);
	return error;
}
