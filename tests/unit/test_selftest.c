/* SPDX-License-Identifier: Apache-2.0 */
/* The self-test passes, and sees when a primitive is broken: the linker puts these wrappers before OpenSSL's functions (tests/rules.mk). */
#include <openssl/evp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "enclave/engine.h"
#include "enclave/secmem.h"
#include "enclave/selftest.h"

/* What is broken now: the nth call of that function, or none. */
static enum { NOTHING, CIPHER, ENCRYPT, DIGEST, VERIFY_ALL, VERIFY_NONE } broken;
static unsigned broken_call, calls;

int __real_EVP_CipherUpdate(
	EVP_CIPHER_CTX *c, unsigned char *out, int *n, const unsigned char *in, int bytes);
int __wrap_EVP_CipherUpdate(
	EVP_CIPHER_CTX *c, unsigned char *out, int *n, const unsigned char *in, int bytes);
int __real_EVP_EncryptUpdate(
	EVP_CIPHER_CTX *c, unsigned char *out, int *n, const unsigned char *in, int bytes);
int __wrap_EVP_EncryptUpdate(
	EVP_CIPHER_CTX *c, unsigned char *out, int *n, const unsigned char *in, int bytes);
int __real_EVP_Digest(const void *data, size_t bytes, unsigned char *md, unsigned *n,
	const EVP_MD *type, ENGINE *e);
int __wrap_EVP_Digest(const void *data, size_t bytes, unsigned char *md, unsigned *n,
	const EVP_MD *type, ENGINE *e);
int __real_EVP_DigestVerify(
	EVP_MD_CTX *c, const unsigned char *sig, size_t n, const unsigned char *data, size_t bytes);
int __wrap_EVP_DigestVerify(
	EVP_MD_CTX *c, const unsigned char *sig, size_t n, const unsigned char *data, size_t bytes);

int __wrap_EVP_CipherUpdate(
	EVP_CIPHER_CTX *c, unsigned char *out, int *n, const unsigned char *in, int bytes)
{
	int result = __real_EVP_CipherUpdate(c, out, n, in, bytes);

	if (broken == CIPHER && result == 1 && calls++ == broken_call)
		out[*n - 1] ^= 1;
	return result;
}

/* GMAC gives its data with no output: there the data are cut short. */
int __wrap_EVP_EncryptUpdate(
	EVP_CIPHER_CTX *c, unsigned char *out, int *n, const unsigned char *in, int bytes)
{
	bool now = broken == ENCRYPT && calls++ == broken_call;
	int result = __real_EVP_EncryptUpdate(c, out, n, in, now && !out ? bytes - 1 : bytes);

	if (now && out)
		out[0] ^= 1;
	return result;
}

int __wrap_EVP_Digest(const void *data, size_t bytes, unsigned char *md, unsigned *n,
	const EVP_MD *type, ENGINE *e)
{
	return __real_EVP_Digest(data, broken == DIGEST ? bytes - 1 : bytes, md, n, type, e);
}

int __wrap_EVP_DigestVerify(
	EVP_MD_CTX *c, const unsigned char *sig, size_t n, const unsigned char *data, size_t bytes)
{
	if (broken == VERIFY_ALL)
		return 1;
	return broken == VERIFY_NONE ? 0 : __real_EVP_DigestVerify(c, sig, n, data, bytes);
}

static void test_passes(void **state)
{
	(void)state;
	broken = NOTHING;
	assert_int_equal(selftest_run(), SECPOOL_OK);
	assert_int_equal(selftest_run(), SECPOOL_OK);
}

static void fails(int what, unsigned call, const char *name)
{
	broken = what;
	broken_call = call;
	calls = 0;
	assert_int_equal(selftest_run(), SECPOOL_E_SELFTEST);
	assert_non_null(strstr(err_detail(), name));
	broken = NOTHING;
}

static void test_sees_each_broken_primitive(void **state)
{
	(void)state;
	fails(CIPHER, 0, "AES-256-XTS");
	fails(CIPHER, 1, "AES-256-XTS");
	fails(CIPHER, 2, "512 bytes");
	fails(CIPHER, 3, "512 bytes");
	fails(CIPHER, 4, "key wrap");
	fails(CIPHER, 5, "key wrap");
	fails(ENCRYPT, 0, "GMAC");
	fails(ENCRYPT, 1, "GMAC");
	fails(ENCRYPT, 3, "CTR");
	fails(DIGEST, 0, "SHA-256");
	fails(VERIFY_ALL, 0, "ECDSA");
	fails(VERIFY_NONE, 0, "ECDSA");
	assert_int_equal(selftest_run(), SECPOOL_OK);
}

/* A difference between the CPU's engine and OpenSSL refuses to start, and leaves OpenSSL in use; the next good run puts the engine to use. */
static void test_sees_an_engine_that_differs(void **state)
{
	(void)state;
	if (engine_best() == &engine_openssl)
		skip();
	engine_choose(&engine_openssl);
	/* OpenSSL's part in the comparison: opening, and its tag, in the first round and in the last */
	fails(CIPHER, 7, "differ");
	fails(CIPHER, 12, "differ");
	fails(ENCRYPT, 4, "differ");
	fails(ENCRYPT, 11, "differ");
	assert_ptr_equal(engine_chosen(), &engine_openssl);
	assert_int_equal(selftest_run(), SECPOOL_OK);
	assert_ptr_equal(engine_chosen(), engine_best());
	/* a demand leaves nothing to compare */
	engine_demand_openssl();
	broken = CIPHER;
	broken_call = 7;
	calls = 0;
	assert_int_equal(selftest_run(), SECPOOL_OK);
	broken = NOTHING;
	assert_ptr_equal(engine_chosen(), &engine_openssl);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_passes),
		cmocka_unit_test(test_sees_each_broken_primitive),
		cmocka_unit_test(test_sees_an_engine_that_differs),
	};

	if (secmem_init(SECMEM_ALLOW_LOCKED)) {
		fprintf(stderr, "secmem_init: %s\n", err_detail());
		return 1;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
