/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/primitives.h"

#include <openssl/err.h>
#include <pthread.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct primitives fetched;
static const char *missing;

static EVP_CIPHER *fetch(const char *name)
{
	EVP_CIPHER *cipher = EVP_CIPHER_fetch(NULL, name, NULL);

	if (!cipher)
		missing = name;
	return cipher;
}

static void fetch_all(void)
{
	fetched.xts = fetch("AES-256-XTS");
	fetched.gcm = fetch("AES-256-GCM");
	fetched.wrap = fetch("AES-256-WRAP-PAD");
	fetched.ctr = fetch("AES-256-CTR");
	fetched.sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
	if (!fetched.sha256)
		missing = "SHA256";
	fetched.sskdf = EVP_KDF_fetch(NULL, "SSKDF", NULL);
	if (!fetched.sskdf)
		missing = "SSKDF";
}

enum secpool_error primitives_get(const struct primitives **ret_primitives)
{
	pthread_once(&once, fetch_all);
	if (missing)
		return err_set(SECPOOL_E_CRYPTO, "this OpenSSL has no %s", missing);
	*ret_primitives = &fetched;
	return SECPOOL_OK;
}

enum secpool_error primitives_sha256(const void *bytes, size_t count, unsigned char ret_digest[32])
{
	const struct primitives *primitives;
	enum secpool_error error = primitives_get(&primitives);

	if (error)
		return error;
	if (EVP_Digest(bytes, count, ret_digest, NULL, primitives->sha256, NULL) != 1)
		return primitives_failed("SHA-256");
	return SECPOOL_OK;
}

enum secpool_error primitives_failed(const char *what)
{
	ERR_clear_error();
	return err_set(SECPOOL_E_CRYPTO, "%s failed in OpenSSL", what);
}
