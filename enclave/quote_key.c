/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/quote_key.h"

#include <openssl/bio.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/param_build.h>
#include <openssl/pem.h>
#include <string.h>
#include <tss2/tss2_mu.h>

/* Hashes in a name are led by the algorithm's number (TPM 2.0 part 1, section 16). */
enum { PEM_BYTES_LEAST = 512, UNCOMPRESSED = 4 };
/* TCG EK Credential Profile 2.5, template L-1; an exponent of 0 is the default (TPM 2.0 part 2, section 12.2.3.5). */
enum { RSA_BITS = 2048, RSA_EXPONENT = 65537 };

/* "EK" and "AK" are the words that a person who reads the reason knows. */
static const char *word_of(enum quote_key_kind kind)
{
	return kind == QUOTE_KEY_EK   ? "endorsement key (EK)"
	       : kind == QUOTE_KEY_AK ? "attestation key (AK)"
				      : "key";
}

static enum secpool_error parse(
	enum quote_key_kind kind, const uint8_t *area, size_t bytes, TPMT_PUBLIC *ret_public)
{
	size_t used = 0;

	if (bytes < 2 || bytes > TPM_PUBLIC_BYTES || ((size_t)area[0] << 8 | area[1]) != bytes - 2)
		return err_set(SECPOOL_E_ATTESTATION, "the %s is no TPM2B_PUBLIC: wrong length",
			word_of(kind));
	memset(ret_public, 0, sizeof *ret_public);
	if (Tss2_MU_TPMT_PUBLIC_Unmarshal(area + 2, bytes - 2, &used, ret_public) ||
		used != bytes - 2)
		return err_set(SECPOOL_E_ATTESTATION, "the %s is no TPM2B_PUBLIC: malformed",
			word_of(kind));
	if (ret_public->nameAlg != TPM2_ALG_SHA256)
		return err_set(SECPOOL_E_ATTESTATION,
			"the %s is named by hash 0x%x, SHA-256 is needed", word_of(kind),
			ret_public->nameAlg);
	return SECPOOL_OK;
}

static enum secpool_error name_of(const uint8_t *area, size_t bytes, uint8_t *ret_name)
{
	uint8_t name[QUOTE_NAME_BYTES] = {TPM2_ALG_SHA256 >> 8, TPM2_ALG_SHA256 & 0xff};

	if (EVP_Digest(area + 2, bytes - 2, name + 2, NULL, EVP_sha256(), NULL) != 1)
		return err_set(SECPOOL_E_ATTESTATION, "a key's name could not be computed");
	memcpy(ret_name, name, sizeof name);
	return SECPOOL_OK;
}

enum secpool_error quote_public_name(
	const uint8_t *area, size_t bytes, uint8_t ret_name[QUOTE_NAME_BYTES])
{
	TPMT_PUBLIC public;
	enum secpool_error error = parse(QUOTE_KEY_ANY, area, bytes, &public);

	return error ? error : name_of(area, bytes, ret_name);
}

/* Why the attributes will not do; NULL: they do. */
static const char *wrong_attribute(enum quote_key_kind kind, TPMA_OBJECT attributes)
{
	if (kind == QUOTE_KEY_ANY)
		return NULL;
	if (!(attributes & TPMA_OBJECT_FIXEDTPM))
		return "it is not fixedTPM: it may exist outside its TPM";
	if (!(attributes & TPMA_OBJECT_FIXEDPARENT))
		return "it is not fixedParent: it may be moved to another TPM";
	if (!(attributes & TPMA_OBJECT_SENSITIVEDATAORIGIN))
		return "it was not made by its TPM (sensitiveDataOrigin)";
	if (!(attributes & TPMA_OBJECT_RESTRICTED))
		return "it is not restricted: it would process anything";
	if (kind == QUOTE_KEY_AK && !(attributes & TPMA_OBJECT_SIGN_ENCRYPT))
		return "it is not a signing key";
	if (kind == QUOTE_KEY_AK && attributes & TPMA_OBJECT_DECRYPT)
		return "it decrypts too";
	if (kind == QUOTE_KEY_EK && !(attributes & TPMA_OBJECT_DECRYPT))
		return "it is not a decryption key";
	if (kind == QUOTE_KEY_EK && attributes & TPMA_OBJECT_SIGN_ENCRYPT)
		return "it signs too";
	return NULL;
}

static bool is_aes128_cfb(const TPMT_SYM_DEF_OBJECT *symmetric)
{
	return symmetric->algorithm == TPM2_ALG_AES && symmetric->keyBits.aes == 128 &&
	       symmetric->mode.aes == TPM2_ALG_CFB;
}

static const char *wrong_rsa_parameters(const TPMT_PUBLIC *public)
{
	const TPMS_RSA_PARMS *rsa = &public->parameters.rsaDetail;

	if (rsa->keyBits != RSA_BITS || (rsa->exponent != 0 && rsa->exponent != RSA_EXPONENT) ||
		public->unique.rsa.size != RSA_BITS / 8)
		return "it is not an RSA-2048 key with exponent 65537";
	if (rsa->scheme.scheme != TPM2_ALG_NULL)
		return "it is for one scheme of RSA only";
	return is_aes128_cfb(&rsa->symmetric) ? NULL : "it does not protect with AES-128-CFB";
}

static const char *wrong_parameters(enum quote_key_kind kind, const TPMT_PUBLIC *public)
{
	const TPMS_ECC_PARMS *ecc = &public->parameters.eccDetail;

	if (public->type == TPM2_ALG_RSA && kind == QUOTE_KEY_EK)
		return wrong_rsa_parameters(public);
	if (public->type != TPM2_ALG_ECC || ecc->curveID != TPM2_ECC_NIST_P256)
		return "it is not an ECC P-256 key";
	if (public->unique.ecc.x.size == 0 || public->unique.ecc.x.size > QUOTE_COORDINATE_BYTES ||
		public->unique.ecc.y.size == 0 ||
		public->unique.ecc.y.size > QUOTE_COORDINATE_BYTES)
		return "its coordinates have a wrong length";
	if (kind == QUOTE_KEY_AK && (ecc->scheme.scheme != TPM2_ALG_ECDSA ||
					    ecc->scheme.details.ecdsa.hashAlg != TPM2_ALG_SHA256))
		return "it does not sign with ECDSA and SHA-256";
	if (kind == QUOTE_KEY_EK && !is_aes128_cfb(&ecc->symmetric))
		return "it does not protect with AES-128-CFB";
	return NULL;
}

/* A coordinate without its leading zeros is legal. */
static void copy_coordinate(const TPM2B_ECC_PARAMETER *from, uint8_t *to)
{
	memset(to, 0, QUOTE_COORDINATE_BYTES);
	memcpy(to + QUOTE_COORDINATE_BYTES - from->size, from->buffer, from->size);
}

EVP_PKEY *quote_key_from_point(
	const uint8_t x[QUOTE_COORDINATE_BYTES], const uint8_t y[QUOTE_COORDINATE_BYTES])
{
	uint8_t point[1 + 2 * QUOTE_COORDINATE_BYTES] = {UNCOMPRESSED};
	char group[] = "prime256v1";
	OSSL_PARAM params[] = {
		OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, group, 0),
		OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, point, sizeof point),
		OSSL_PARAM_construct_end(),
	};
	EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(NULL, "EC", NULL);
	EVP_PKEY_CTX *check = NULL;
	EVP_PKEY *pkey = NULL;
	bool good;

	memcpy(point + 1, x, QUOTE_COORDINATE_BYTES);
	memcpy(point + 1 + QUOTE_COORDINATE_BYTES, y, QUOTE_COORDINATE_BYTES);
	good = context && EVP_PKEY_fromdata_init(context) == 1 &&
	       EVP_PKEY_fromdata(context, &pkey, EVP_PKEY_PUBLIC_KEY, params) == 1;
	/* NIST SP 800-56A 5.6.2.3.3: a point off the curve would give bits of a secret away */
	if (good)
		check = EVP_PKEY_CTX_new_from_pkey(NULL, pkey, NULL);
	good = good && check && EVP_PKEY_public_check(check) == 1;
	EVP_PKEY_CTX_free(check);
	EVP_PKEY_CTX_free(context);
	if (!good) {
		EVP_PKEY_free(pkey);
		pkey = NULL;
	}
	return pkey;
}

static EVP_PKEY *key_from_modulus(const TPM2B_PUBLIC_KEY_RSA *modulus)
{
	EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(NULL, "RSA", NULL);
	OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
	BIGNUM *n = BN_bin2bn(modulus->buffer, modulus->size, NULL);
	OSSL_PARAM *params = NULL;
	EVP_PKEY *pkey = NULL;

	if (build && n && OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_N, n) == 1 &&
		OSSL_PARAM_BLD_push_uint(build, OSSL_PKEY_PARAM_RSA_E, RSA_EXPONENT) == 1)
		params = OSSL_PARAM_BLD_to_param(build);
	if (!context || !params || EVP_PKEY_fromdata_init(context) != 1 ||
		EVP_PKEY_fromdata(context, &pkey, EVP_PKEY_PUBLIC_KEY, params) != 1 ||
		EVP_PKEY_get_bits(pkey) != RSA_BITS) {
		EVP_PKEY_free(pkey);
		pkey = NULL;
	}
	OSSL_PARAM_free(params);
	OSSL_PARAM_BLD_free(build);
	BN_free(n);
	EVP_PKEY_CTX_free(context);
	return pkey;
}

enum secpool_error quote_key_init(
	enum quote_key_kind kind, const uint8_t *area, size_t bytes, struct quote_key *ret_key)
{
	struct quote_key key = {.pkey = NULL};
	TPMT_PUBLIC public;
	enum secpool_error error = parse(kind, area, bytes, &public);
	const char *wrong;

	if (error)
		return error;
	wrong = wrong_parameters(kind, &public);
	if (!wrong)
		wrong = wrong_attribute(kind, public.objectAttributes);
	if (wrong)
		return err_set(
			SECPOOL_E_ATTESTATION, "the %s is refused: %s", word_of(kind), wrong);
	error = name_of(area, bytes, key.name);
	if (error)
		return error;
	key.rsa = public.type == TPM2_ALG_RSA;
	if (key.rsa) {
		key.pkey = key_from_modulus(&public.unique.rsa);
	} else {
		copy_coordinate(&public.unique.ecc.x, key.x);
		copy_coordinate(&public.unique.ecc.y, key.y);
		key.pkey = quote_key_from_point(key.x, key.y);
	}
	if (!key.pkey)
		return err_set(SECPOOL_E_ATTESTATION, "the %s is refused: %s", word_of(kind),
			key.rsa ? "its modulus has not 2048 bits"
				: "its point is not on the curve");
	*ret_key = key;
	return SECPOOL_OK;
}

void quote_key_done(struct quote_key *key)
{
	EVP_PKEY_free(key->pkey);
	key->pkey = NULL;
}

enum secpool_error quote_public_pem(
	const uint8_t *area, size_t bytes, char *text, size_t text_bytes)
{
	BIO *bio = NULL;
	struct quote_key key;
	enum secpool_error error;
	char *data = NULL;
	long count;

	if (text_bytes < PEM_BYTES_LEAST)
		return err_set(SECPOOL_E_INVALID, "a PEM text needs %d bytes", PEM_BYTES_LEAST);
	error = quote_key_init(QUOTE_KEY_ANY, area, bytes, &key);
	if (error)
		return error;
	bio = BIO_new(BIO_s_mem());
	if (!bio || PEM_write_bio_PUBKEY(bio, key.pkey) != 1) {
		error = err_set(SECPOOL_E_ATTESTATION, "the key could not be written as PEM");
		goto out;
	}
	count = BIO_get_mem_data(bio, &data);
	if (count <= 0 || (size_t)count >= text_bytes) {
		error = err_set(SECPOOL_E_ATTESTATION, "the key's PEM has %ld bytes", count);
		goto out;
	}
	memcpy(text, data, (size_t)count);
	text[count] = '\0';
out:
	BIO_free(bio);
	quote_key_done(&key);
	return error;
}
