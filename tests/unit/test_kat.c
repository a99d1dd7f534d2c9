/* SPDX-License-Identifier: Apache-2.0 */
/* Every published vector of tests/kat, through the code that the product uses. */
#include <openssl/evp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "enclave/engine.h"
#include "enclave/gmac.h"
#include "enclave/kwp.h"
#include "enclave/secmem.h"
#include "enclave/xts.h"

enum { FIELD_BYTES = 1024, LINE_BYTES = 8192 };

/* One field of a vector; found is false where the line does not have it. */
struct field {
	bool found;
	size_t bytes;
	uint8_t at[FIELD_BYTES];
};

/* The vector that is tried now; after a test, the one that failed. */
static char current[128];

static int name_the_failed(void **state)
{
	(void)state;
	if (current[0])
		print_error("failed at %s\n", current);
	current[0] = 0;
	return 0;
}

static unsigned digit(char c)
{
	const char *digits = "0123456789abcdef", *at = strchr(digits, c);

	assert_true(c != 0 && at != NULL);
	return (unsigned)(at - digits);
}

/* Finds " NAME=HEX" in a line. */
static void get(const char *line, const char *name, struct field *field)
{
	char wanted[32];
	const char *at;

	snprintf(wanted, sizeof wanted, " %s=", name);
	at = strstr(line, wanted);
	field->found = at != NULL;
	field->bytes = 0;
	for (at = at ? at + strlen(wanted) : ""; *at && *at != ' ' && *at != '\n'; at += 2) {
		assert_true(field->bytes < FIELD_BYTES);
		field->at[field->bytes++] = (uint8_t)(digit(at[0]) << 4 | digit(at[1]));
	}
}

static void each_line(const char *file, unsigned least, void (*test)(const char *line))
{
	static char line[LINE_BYTES];
	char path[128];
	unsigned count = 0;
	FILE *stream;

	snprintf(path, sizeof path, "tests/kat/%s", file);
	stream = fopen(path, "re");
	if (!stream)
		fail_msg("%s can't be read: run the tests from the project's folder", path);
	assert_non_null(fgets(line, sizeof line, stream));
	assert_memory_equal(line, "# Source: ", 10);
	while (fgets(line, sizeof line, stream)) {
		assert_non_null(strchr(line, '\n'));
		if (line[0] == '#')
			continue;
		snprintf(current, sizeof current, "%s %.*s", file, (int)strcspn(line, " "), line);
		test(line);
		count++;
	}
	fclose(stream);
	current[0] = 0;
	/* a file that lost its vectors does not pass */
	assert_true(count >= least);
}

static struct engine_key *engine_key(
	const struct engine *engine, const uint8_t *xts, const uint8_t *tag)
{
	static struct region_keys keys = {.xts = {1}};
	struct engine_key *key = NULL;

	if (xts)
		memcpy(keys.xts, xts, sizeof keys.xts);
	if (tag)
		memcpy(keys.tag, tag, sizeof keys.tag);
	assert_int_equal(engine_key_new(engine, &keys, 4096, 1, &key), SECPOOL_OK);
	return key;
}

/* Beside each other and in place. */
static void xts_by_engine(const struct engine *engine, const uint8_t *xts, const uint8_t *tweak,
	const uint8_t *plain, const uint8_t *cipher, size_t bytes)
{
	struct engine_key *key = engine_key(engine, xts, NULL);
	uint8_t out[FIELD_BYTES];

	assert_int_equal(engine->xts_seal(key, 0, tweak, plain, out, bytes), SECPOOL_OK);
	assert_memory_equal(out, cipher, bytes);
	assert_int_equal(engine->xts_open(key, 0, tweak, out, out, bytes), SECPOOL_OK);
	assert_memory_equal(out, plain, bytes);
	assert_int_equal(engine->xts_seal(key, 0, tweak, out, out, bytes), SECPOOL_OK);
	assert_memory_equal(out, cipher, bytes);
	assert_int_equal(engine->xts_open(key, 0, tweak, cipher, out, bytes), SECPOOL_OK);
	assert_memory_equal(out, plain, bytes);
	engine->key_free(key);
}

static void xts_vector(const char *line)
{
	static struct field key, tweak, plain, cipher;
	uint8_t out[FIELD_BYTES];
	struct xts xts;

	get(line, "key", &key);
	get(line, "tweak", &tweak);
	get(line, "plain", &plain);
	get(line, "cipher", &cipher);
	assert_int_equal(key.bytes, XTS_KEY_BYTES);
	assert_int_equal(tweak.bytes, XTS_TWEAK_BYTES);
	assert_true(plain.bytes >= 16 && plain.bytes == cipher.bytes);
	assert_int_equal(xts_init(&xts, key.at), SECPOOL_OK);
	assert_int_equal(xts_seal(&xts, tweak.at, plain.at, out, plain.bytes), SECPOOL_OK);
	assert_memory_equal(out, cipher.at, plain.bytes);
	assert_int_equal(xts_open(&xts, tweak.at, cipher.at, out, plain.bytes), SECPOOL_OK);
	assert_memory_equal(out, plain.at, plain.bytes);
	xts_done(&xts);
	for (size_t i = 0; engine_at(i); i++)
		if (engine_at(i)->usable())
			xts_by_engine(
				engine_at(i), key.at, tweak.at, plain.at, cipher.at, plain.bytes);
}

static void test_xts_ieee1619(void **state)
{
	(void)state;
	each_line("xts_ieee1619.txt", 2, xts_vector);
}

static void test_xts_nist(void **state)
{
	(void)state;
	each_line("xts_nist.txt", 160, xts_vector);
}

static void gmac_vector(const char *line)
{
	static struct field key, nonce, data, tag;
	uint8_t out[GMAC_TAG_BYTES];
	struct gmac gmac;

	get(line, "key", &key);
	get(line, "nonce", &nonce);
	get(line, "data", &data);
	get(line, "tag", &tag);
	assert_int_equal(key.bytes, GMAC_KEY_BYTES);
	assert_int_equal(nonce.bytes, GMAC_NONCE_BYTES);
	assert_int_equal(tag.bytes, GMAC_TAG_BYTES);
	assert_int_equal(gmac_init(&gmac, key.at), SECPOOL_OK);
	assert_int_equal(gmac_tag(&gmac, nonce.at, data.at, data.bytes, out), SECPOOL_OK);
	assert_memory_equal(out, tag.at, sizeof out);
	assert_int_equal(gmac_check(&gmac, nonce.at, data.at, data.bytes, tag.at), SECPOOL_OK);
	tag.at[15] ^= 0x80;
	assert_int_equal(
		gmac_check(&gmac, nonce.at, data.at, data.bytes, tag.at), SECPOOL_E_INTEGRITY);
	gmac_done(&gmac);
	tag.at[15] ^= 0x80;
	for (size_t i = 0; engine_at(i); i++) {
		const struct engine *engine = engine_at(i);
		struct engine_key *mine;

		if (!engine->usable())
			continue;
		mine = engine_key(engine, NULL, key.at);
		assert_int_equal(
			engine->tag(mine, 0, nonce.at, data.at, data.bytes, out), SECPOOL_OK);
		assert_memory_equal(out, tag.at, sizeof out);
		engine->key_free(mine);
	}
}

static void test_gmac_nist(void **state)
{
	(void)state;
	each_line("gmac_nist.txt", 75, gmac_vector);
}

static void kwp_vector(const char *line)
{
	static struct field key, plain, wrapped;
	uint8_t out[FIELD_BYTES];
	size_t bytes = 0;

	get(line, "key", &key);
	get(line, "plain", &plain);
	get(line, "wrapped", &wrapped);
	assert_int_equal(key.bytes, KWP_KEY_BYTES);
	if (!plain.found) {
		assert_int_equal(kwp_open(key.at, wrapped.at, wrapped.bytes, out, &bytes),
			SECPOOL_E_KEY_GONE);
		assert_int_equal(bytes, 0);
		return;
	}
	assert_int_equal(kwp_seal(key.at, plain.at, plain.bytes, out, &bytes), SECPOOL_OK);
	assert_int_equal(bytes, wrapped.bytes);
	assert_memory_equal(out, wrapped.at, bytes);
	assert_int_equal(kwp_open(key.at, wrapped.at, wrapped.bytes, out, &bytes), SECPOOL_OK);
	assert_int_equal(bytes, plain.bytes);
	assert_memory_equal(out, plain.at, bytes);
}

static void test_kwp_nist(void **state)
{
	(void)state;
	each_line("kwp_nist.txt", 150, kwp_vector);
}

/* The RFC's examples have keys of 192 bits, which the product never uses: so OpenSSL itself, the way kwp.c uses it. */
static void kwp_192_vector(const char *line)
{
	static struct field key, plain, wrapped;
	EVP_CIPHER *cipher = EVP_CIPHER_fetch(NULL, "AES-192-WRAP-PAD", NULL);
	EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
	uint8_t out[FIELD_BYTES];
	int done = 0;

	get(line, "key", &key);
	get(line, "plain", &plain);
	get(line, "wrapped", &wrapped);
	assert_int_equal(key.bytes, 24);
	EVP_CIPHER_CTX_set_flags(context, EVP_CIPHER_CTX_FLAG_WRAP_ALLOW);
	assert_int_equal(EVP_CipherInit_ex2(context, cipher, key.at, NULL, 1, NULL), 1);
	assert_int_equal(EVP_CipherUpdate(context, out, &done, plain.at, (int)plain.bytes), 1);
	assert_int_equal(done, wrapped.bytes);
	assert_memory_equal(out, wrapped.at, wrapped.bytes);
	EVP_CIPHER_CTX_free(context);
	EVP_CIPHER_free(cipher);
}

static void test_kwp_rfc5649(void **state)
{
	(void)state;
	each_line("kwp_rfc5649.txt", 2, kwp_192_vector);
}

static void test_lengths_refused(void **state)
{
	static const uint8_t tweak[XTS_TWEAK_BYTES];
	uint8_t key[XTS_KEY_BYTES] = {1}, block[16] = {0};
	struct xts xts;

	(void)state;
	assert_int_equal(xts_init(&xts, key), SECPOOL_OK);
	assert_int_equal(xts_seal(&xts, tweak, block, block, 15), SECPOOL_E_INVALID);
	assert_int_equal(
		xts_open(&xts, tweak, block, block, XTS_UNIT_BYTES_MOST + 1), SECPOOL_E_INVALID);
	xts_done(&xts);
	key[32] = 1;
	assert_int_equal(xts_init(&xts, key), SECPOOL_E_CRYPTO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_xts_ieee1619, name_the_failed),
		cmocka_unit_test_teardown(test_xts_nist, name_the_failed),
		cmocka_unit_test_teardown(test_gmac_nist, name_the_failed),
		cmocka_unit_test_teardown(test_kwp_nist, name_the_failed),
		cmocka_unit_test_teardown(test_kwp_rfc5649, name_the_failed),
		cmocka_unit_test(test_lengths_refused),
	};

	if (secmem_init(SECMEM_ALLOW_LOCKED)) {
		fprintf(stderr, "secmem_init: %s\n", err_detail());
		return 1;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
