/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/proof.h"

#include <openssl/crypto.h>
#include <openssl/hmac.h>

#include "enclave/primitives.h"
#include "lib/base/buf.h"

enum { STATEMENT_BYTES = 4 + 8 + 8 + PAGECIPHER_SUBJECT_BYTES };

enum secpool_error proof_make(const uint8_t *key, enum pagecipher_wish wish, uint64_t region,
	uint64_t epoch, const uint8_t subject[PAGECIPHER_SUBJECT_BYTES],
	uint8_t ret_proof[PAGECIPHER_PROOF_BYTES])
{
	uint8_t statement[STATEMENT_BYTES];
	struct buf_writer w = {.bytes = statement, .capacity = sizeof statement};
	const struct primitives *primitives;
	unsigned bytes = 0;
	enum secpool_error error = primitives_get(&primitives);

	if (error)
		return error;
	buf_put_number(&w, wish, 4);
	buf_put_number(&w, region, 8);
	buf_put_number(&w, epoch, 8);
	buf_put(&w, subject, PAGECIPHER_SUBJECT_BYTES);
	if (!HMAC(primitives->sha256, key, PAGECIPHER_OWNER_KEY_BYTES, statement, sizeof statement,
		    ret_proof, &bytes) ||
		bytes != PAGECIPHER_PROOF_BYTES)
		return primitives_failed("HMAC-SHA-256");
	return SECPOOL_OK;
}

enum secpool_error proof_check(const uint8_t *key, enum pagecipher_wish wish, uint64_t region,
	uint64_t epoch, const uint8_t subject[PAGECIPHER_SUBJECT_BYTES],
	const uint8_t proof[PAGECIPHER_PROOF_BYTES])
{
	uint8_t right[PAGECIPHER_PROOF_BYTES];
	enum secpool_error error = proof_make(key, wish, region, epoch, subject, right);

	if (!error && CRYPTO_memcmp(right, proof, sizeof right) != 0)
		error = err_set(SECPOOL_E_DENIED,
			"this is not proved to be the wish of region %llu's owner",
			(unsigned long long)region);
	OPENSSL_cleanse(right, sizeof right);
	return error;
}
