/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/kwp.h"

#include <openssl/err.h>

#include "enclave/primitives.h"
#include "enclave/secmem.h"

/* EVP wants to be told that wrapping is meant (EVP_CIPHER_CTX_FLAG_WRAP_ALLOW). */
static EVP_CIPHER_CTX *prepare(const uint8_t *key, int sealing)
{
	const struct primitives *primitives;
	EVP_CIPHER_CTX *context;

	if (primitives_get(&primitives))
		return NULL;
	context = EVP_CIPHER_CTX_new();
	if (!context)
		return NULL;
	EVP_CIPHER_CTX_set_flags(context, EVP_CIPHER_CTX_FLAG_WRAP_ALLOW);
	if (EVP_CipherInit_ex2(context, primitives->wrap, key, NULL, sealing, NULL) == 1)
		return context;
	EVP_CIPHER_CTX_free(context);
	return NULL;
}

enum secpool_error kwp_seal(const uint8_t key[KWP_KEY_BYTES], const void *plain, size_t bytes,
	uint8_t *wrapped, size_t *ret_bytes)
{
	EVP_CIPHER_CTX *context;
	int done = 0, ok;

	if (bytes < 1 || bytes > KWP_PLAIN_BYTES_MOST)
		return err_set(SECPOOL_E_INVALID, "wrapping %zu bytes", bytes);
	context = prepare(key, 1);
	if (!context)
		return primitives_failed("setting up key wrap");
	ok = EVP_CipherUpdate(context, wrapped, &done, plain, (int)bytes);
	EVP_CIPHER_CTX_free(context);
	if (ok != 1 || done <= 0)
		return primitives_failed("key wrap");
	*ret_bytes = (size_t)done;
	return SECPOOL_OK;
}

enum secpool_error kwp_open(const uint8_t key[KWP_KEY_BYTES], const uint8_t *wrapped, size_t bytes,
	void *plain, size_t *ret_bytes)
{
	EVP_CIPHER_CTX *context;
	int done = 0, ok;

	/* RFC 5649 section 3: at least two blocks of 8 bytes, whole blocks */
	if (bytes < 16 || bytes % 8 != 0 || bytes > KWP_PLAIN_BYTES_MOST + 8)
		return err_set(SECPOOL_E_KEY_GONE, "not a wrapped key");
	context = prepare(key, 0);
	if (!context)
		return primitives_failed("setting up key unwrap");
	ok = EVP_CipherUpdate(context, plain, &done, wrapped, (int)bytes);
	EVP_CIPHER_CTX_free(context);
	if (ok == 1 && done > 0) {
		*ret_bytes = (size_t)done;
		return SECPOOL_OK;
	}
	ERR_clear_error();
	secmem_wipe(plain, bytes);
	return err_set(SECPOOL_E_KEY_GONE, "a wrapped key does not open");
}
