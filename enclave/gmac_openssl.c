/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/gmac.h"

#include <openssl/crypto.h>
#include <string.h>

#include "enclave/primitives.h"

enum { DATA_BYTES_MOST = 1 << 30 };

enum secpool_error gmac_init(struct gmac *gmac, const uint8_t *key)
{
	const struct primitives *primitives;
	enum secpool_error error = primitives_get(&primitives);

	if (error)
		return error;
	gmac->context = EVP_CIPHER_CTX_new();
	if (gmac->context &&
		EVP_EncryptInit_ex2(gmac->context, primitives->gcm, key, NULL, NULL) == 1)
		return SECPOOL_OK;
	gmac_done(gmac);
	return primitives_failed("setting up GMAC");
}

void gmac_done(struct gmac *gmac)
{
	EVP_CIPHER_CTX_free(gmac->context);
	gmac->context = NULL;
}

enum secpool_error gmac_tag(struct gmac *gmac, const uint8_t nonce[GMAC_NONCE_BYTES],
	const void *data, size_t bytes, uint8_t ret_tag[GMAC_TAG_BYTES])
{
	uint8_t none[GMAC_TAG_BYTES], tag[GMAC_TAG_BYTES];
	int done = 0;

	if (bytes > DATA_BYTES_MOST)
		return err_set(SECPOOL_E_INVALID, "a GMAC over %zu bytes", bytes);
	/* EVP's AAD call with no bytes at all is an error, and the tag of nothing needs none */
	if (EVP_EncryptInit_ex2(gmac->context, NULL, NULL, nonce, NULL) != 1 ||
		(bytes > 0 &&
			EVP_EncryptUpdate(gmac->context, NULL, &done, data, (int)bytes) != 1) ||
		EVP_EncryptFinal_ex(gmac->context, none, &done) != 1 || done != 0 ||
		EVP_CIPHER_CTX_ctrl(gmac->context, EVP_CTRL_AEAD_GET_TAG, GMAC_TAG_BYTES, tag) != 1)
		return primitives_failed("GMAC");
	memcpy(ret_tag, tag, sizeof tag);
	return SECPOOL_OK;
}

enum secpool_error gmac_check(struct gmac *gmac, const uint8_t nonce[GMAC_NONCE_BYTES],
	const void *data, size_t bytes, const uint8_t tag[GMAC_TAG_BYTES])
{
	uint8_t right[GMAC_TAG_BYTES];
	enum secpool_error error = gmac_tag(gmac, nonce, data, bytes, right);

	if (error)
		return error;
	if (CRYPTO_memcmp(right, tag, GMAC_TAG_BYTES) != 0)
		error = err_set(SECPOOL_E_INTEGRITY, "a tag does not match its data");
	/* the right tag of forged data is a forgery ready for use */
	OPENSSL_cleanse(right, sizeof right);
	return error;
}
