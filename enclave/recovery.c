/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/recovery.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <string.h>

#include "enclave/primitives.h"
#include "enclave/secmem.h"
#include "lib/base/os.h"

/* Z of ECC CDH on P-256: an x coordinate (SP 800-56A rev. 3, section 5.7.1.2). */
enum { SHARED_BYTES = 32 };
/* As text: the key and some of its digest, five bits a letter. */
enum { CHECK_BYTES = 3, CODED_BYTES = RECOVERY_KEY_BYTES + CHECK_BYTES, LETTERS = 56, GROUP = 4 };
/* How often 32 random bytes may be no key (FIPS 186-5 A.2.2): one draw of 2^32 is. */
enum { DRAWS_MOST = 4 };
static const char prefix[] = "SPR1";
static const char purpose[] = "secpool recovery 1";

_Static_assert(CODED_BYTES * 8 == LETTERS * 5, "no letter is half used");
_Static_assert(sizeof prefix + LETTERS + LETTERS / GROUP <= RECOVERY_TEXT_BYTES, "the text fits");

static enum secpool_error no_memory(void)
{
	return err_set(SECPOOL_E_NO_LOCKED_MEMORY, "no secret memory for the recovery key");
}

static enum secpool_error make_pair(
	uint8_t key[RECOVERY_KEY_BYTES], EVP_PKEY **ret_pair, uint8_t ret_public[])
{
	enum secpool_error error = SECPOOL_E_INTERNAL;
	EVP_PKEY *pair = NULL;

	for (unsigned i = 0; error && i < DRAWS_MOST; i++) {
		os_random(key, RECOVERY_KEY_BYTES);
		error = ecdsa_private(key, &pair);
	}
	if (!error)
		error = ecdsa_spki(pair, ret_public);
	if (error)
		EVP_PKEY_free(pair);
	else
		*ret_pair = pair;
	return error;
}

enum secpool_error recovery_make(
	uint8_t key[RECOVERY_KEY_BYTES], uint8_t ret_public[RECOVERY_PUBLIC_BYTES])
{
	EVP_PKEY *pair = NULL;
	enum secpool_error error = make_pair(key, &pair, ret_public);

	EVP_PKEY_free(pair);
	return error;
}

/* ---- the text ---- */

/* CODED_BYTES, secret memory: the key with its check. */
static enum secpool_error add_check(const uint8_t key[RECOVERY_KEY_BYTES], uint8_t *coded)
{
	unsigned char *digest = secmem_new(32);
	enum secpool_error error;

	if (!digest)
		return no_memory();
	error = primitives_sha256(key, RECOVERY_KEY_BYTES, digest);
	memcpy(coded, key, RECOVERY_KEY_BYTES);
	memcpy(coded + RECOVERY_KEY_BYTES, digest, CHECK_BYTES);
	secmem_free(digest);
	return error;
}

enum secpool_error recovery_print(const uint8_t key[RECOVERY_KEY_BYTES], char *text)
{
	uint8_t *coded = secmem_new(CODED_BYTES);
	enum secpool_error error;
	size_t at = sizeof prefix - 1;
	uint32_t held = 0, bits = 0, letter = 0;

	if (!coded)
		return no_memory();
	error = add_check(key, coded);
	memcpy(text, prefix, sizeof prefix);
	for (size_t i = 0; i < CODED_BYTES && !error; i++) {
		held = held << 8 | coded[i];
		for (bits += 8; bits >= 5; bits -= 5) {
			uint32_t value = held >> (bits - 5) & 31;
			if (letter++ % GROUP == 0)
				text[at++] = '-';
			text[at++] = (char)(value < 26 ? 'A' + value : '2' + value - 26);
		}
	}
	text[at] = '\0';
	secmem_wipe(&held, sizeof held);
	secmem_free(coded);
	return error;
}

/* The letter's value; 32: none. */
static uint32_t value_of(char c)
{
	if (c >= 'a' && c <= 'z')
		return (uint32_t)(c - 'a');
	if (c >= 'A' && c <= 'Z')
		return (uint32_t)(c - 'A');
	return c >= '2' && c <= '7' ? (uint32_t)(c - '2') + 26 : 32;
}

/* Whether it has exactly the prefix and the letters; coded: CODED_BYTES, secret memory. */
static bool decode(const char *text, size_t bytes, uint8_t *coded)
{
	uint32_t held = 0, bits = 0;
	size_t letters = 0, done = 0;
	bool good = true;

	for (size_t i = 0; i < bytes && good; i++) {
		char c = text[i];

		if (c == ' ' || c == '-' || c == '\n' || c == '\r' || c == '\t')
			continue;
		if (letters < sizeof prefix - 1) {
			good = (c & ~0x20) == prefix[letters] || c == prefix[letters];
		} else {
			held = held << 5 | (value_of(c) & 31);
			good = value_of(c) < 32 && letters < LETTERS + sizeof prefix - 1;
			for (bits += 5; bits >= 8 && good; bits -= 8)
				coded[done++] = (uint8_t)(held >> (bits - 8));
		}
		letters++;
	}
	secmem_wipe(&held, sizeof held);
	return good && done == CODED_BYTES;
}

enum secpool_error recovery_read(const char *text, size_t bytes, uint8_t key[RECOVERY_KEY_BYTES])
{
	uint8_t *coded = secmem_new(CODED_BYTES), *again = secmem_new(CODED_BYTES);
	enum secpool_error error = SECPOOL_E_INTERNAL;

	if (!coded || !again) {
		error = no_memory();
		goto out;
	}
	if (!decode(text, bytes, coded)) {
		error = err_set(SECPOOL_E_INVALID,
			"that is no recovery key: expected SPR1 and %d letters and digits in "
			"groups of %d",
			LETTERS, GROUP);
		goto out;
	}
	error = add_check(coded, again);
	if (!error && CRYPTO_memcmp(coded, again, CODED_BYTES) != 0)
		error = err_set(SECPOOL_E_INVALID, "the recovery key is mistyped");
	if (!error)
		memcpy(key, coded, RECOVERY_KEY_BYTES);
out:
	if (error)
		secmem_wipe(key, RECOVERY_KEY_BYTES);
	secmem_free(coded);
	secmem_free(again);
	return error;
}

/* ---- encryption ---- */

/* Z, in secret memory. */
static bool agree(EVP_PKEY *own, EVP_PKEY *peer, uint8_t *shared)
{
	EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_pkey(NULL, own, NULL);
	size_t bytes = SHARED_BYTES;
	bool done = context && EVP_PKEY_derive_init(context) == 1 &&
		    EVP_PKEY_derive_set_peer(context, peer) == 1 &&
		    EVP_PKEY_derive(context, shared, &bytes) == 1 && bytes == SHARED_BYTES;

	EVP_PKEY_CTX_free(context);
	return done;
}

/* The wrapping key of the two public keys' owners: KWP_KEY_BYTES, secret memory. */
static enum secpool_error derive(EVP_PKEY *own, EVP_PKEY *peer,
	const uint8_t sender[RECOVERY_PUBLIC_BYTES], const uint8_t recipient[RECOVERY_PUBLIC_BYTES],
	uint8_t *ret_key)
{
	uint8_t info[sizeof purpose + 2 * RECOVERY_PUBLIC_BYTES];
	uint8_t *shared = secmem_new(SHARED_BYTES);
	const struct primitives *primitives;
	enum secpool_error error = primitives_get(&primitives);
	EVP_KDF_CTX *context = error ? NULL : EVP_KDF_CTX_new(primitives->sskdf);

	memcpy(info, purpose, sizeof purpose);
	memcpy(info + sizeof purpose, sender, RECOVERY_PUBLIC_BYTES);
	memcpy(info + sizeof purpose + RECOVERY_PUBLIC_BYTES, recipient, RECOVERY_PUBLIC_BYTES);
	const OSSL_PARAM params[] = {
		OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char[]){"SHA256"}, 0),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SECRET, shared, SHARED_BYTES),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, info, sizeof info),
		OSSL_PARAM_construct_end()};
	if (!error && !shared)
		error = no_memory();
	if (!error && (!context || !agree(own, peer, shared) ||
			      EVP_KDF_derive(context, ret_key, KWP_KEY_BYTES, params) != 1))
		error = primitives_failed("agreeing on a recovery key");
	EVP_KDF_CTX_free(context);
	secmem_free(shared);
	return error;
}

enum secpool_error recovery_seal(const uint8_t public[RECOVERY_PUBLIC_BYTES], const void *plain,
	size_t bytes, uint8_t *blob, size_t *ret_blob_bytes)
{
	uint8_t *scalar = secmem_new(RECOVERY_KEY_BYTES), *key = secmem_new(KWP_KEY_BYTES);
	EVP_PKEY *pair = NULL, *peer = NULL;
	enum secpool_error error = SECPOOL_E_INTERNAL;
	size_t wrapped_bytes = 0;

	if (bytes > RECOVERY_PLAIN_BYTES_MOST)
		error = err_set(SECPOOL_E_INVALID, "%zu bytes for the recovery key", bytes);
	else if (!scalar || !key)
		error = no_memory();
	else
		error = ecdsa_public(public, RECOVERY_PUBLIC_BYTES, &peer);
	if (!error)
		error = make_pair(scalar, &pair, blob);
	if (!error)
		error = derive(pair, peer, blob, public, key);
	if (!error)
		error = kwp_seal(key, plain, bytes, blob + RECOVERY_PUBLIC_BYTES, &wrapped_bytes);
	if (!error)
		*ret_blob_bytes = RECOVERY_PUBLIC_BYTES + wrapped_bytes;
	EVP_PKEY_free(pair);
	EVP_PKEY_free(peer);
	secmem_free(scalar);
	secmem_free(key);
	return error;
}

enum secpool_error recovery_open(const uint8_t key[RECOVERY_KEY_BYTES], const uint8_t *blob,
	size_t blob_bytes, void *ret_plain, size_t plain_bytes)
{
	uint8_t *wrapping = secmem_new(KWP_KEY_BYTES);
	uint8_t *opened = secmem_new(RECOVERY_BLOB_BYTES_MOST);
	uint8_t own[RECOVERY_PUBLIC_BYTES];
	EVP_PKEY *pair = NULL, *peer = NULL;
	enum secpool_error error = SECPOOL_E_INTERNAL;
	size_t bytes = 0;

	if (!wrapping || !opened)
		error = no_memory();
	else if (blob_bytes <= RECOVERY_PUBLIC_BYTES || blob_bytes > RECOVERY_BLOB_BYTES_MOST ||
		 ecdsa_public(blob, RECOVERY_PUBLIC_BYTES, &peer))
		error = SECPOOL_E_KEY_GONE;
	else
		error = ecdsa_private(key, &pair);
	if (!error)
		error = ecdsa_spki(pair, own);
	if (!error)
		error = derive(pair, peer, blob, own, wrapping);
	if (!error)
		error = kwp_open(wrapping, blob + RECOVERY_PUBLIC_BYTES,
			blob_bytes - RECOVERY_PUBLIC_BYTES, opened, &bytes);
	if (!error && bytes == plain_bytes)
		memcpy(ret_plain, opened, plain_bytes);
	else if (!error || error == SECPOOL_E_KEY_GONE)
		error = err_set(SECPOOL_E_KEY_GONE, "this recovery key does not open it");
	EVP_PKEY_free(pair);
	EVP_PKEY_free(peer);
	secmem_free(wrapping);
	secmem_free(opened);
	return error;
}
