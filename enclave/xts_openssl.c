/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/xts.h"

#include <openssl/crypto.h>

#include "enclave/primitives.h"

static EVP_CIPHER_CTX *prepare(const EVP_CIPHER *cipher, const uint8_t *key, int sealing)
{
	EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();

	if (context && EVP_CipherInit_ex2(context, cipher, key, NULL, sealing, NULL) != 1) {
		EVP_CIPHER_CTX_free(context);
		context = NULL;
	}
	return context;
}

enum secpool_error xts_init(struct xts *xts, const uint8_t *key)
{
	const struct primitives *primitives;
	enum secpool_error error = primitives_get(&primitives);

	if (error)
		return error;
	/* FIPS 140-2 IG A.9, now 140-3 IG C.I: equal halves void the proof of XTS */
	if (CRYPTO_memcmp(key, key + XTS_KEY_BYTES / 2, XTS_KEY_BYTES / 2) == 0)
		return err_set(SECPOOL_E_CRYPTO, "an XTS key with equal halves is refused");
	xts->seal = prepare(primitives->xts, key, 1);
	xts->open = prepare(primitives->xts, key, 0);
	if (xts->seal && xts->open)
		return SECPOOL_OK;
	xts_done(xts);
	return primitives_failed("setting up AES-256-XTS");
}

void xts_done(struct xts *xts)
{
	EVP_CIPHER_CTX_free(xts->seal);
	EVP_CIPHER_CTX_free(xts->open);
	xts->seal = NULL;
	xts->open = NULL;
}

static enum secpool_error run(
	EVP_CIPHER_CTX *context, const uint8_t *tweak, const void *from, void *to, size_t bytes)
{
	int done = 0;

	if (bytes < XTS_UNIT_BYTES_LEAST || bytes > XTS_UNIT_BYTES_MOST)
		return err_set(SECPOOL_E_INVALID, "an XTS data unit of %zu bytes", bytes);
	/* only the tweak changes: the key schedule stands (EVP_CipherInit_ex2 with NULL cipher and key) */
	if (EVP_CipherInit_ex2(context, NULL, NULL, tweak, -1, NULL) != 1 ||
		EVP_CipherUpdate(context, to, &done, from, (int)bytes) != 1 || done != (int)bytes)
		return primitives_failed("AES-256-XTS");
	return SECPOOL_OK;
}

enum secpool_error xts_seal(struct xts *xts, const uint8_t tweak[XTS_TWEAK_BYTES], const void *from,
	void *to, size_t bytes)
{
	return run(xts->seal, tweak, from, to, bytes);
}

enum secpool_error xts_open(struct xts *xts, const uint8_t tweak[XTS_TWEAK_BYTES], const void *from,
	void *to, size_t bytes)
{
	return run(xts->open, tweak, from, to, bytes);
}
