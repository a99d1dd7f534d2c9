/* SPDX-License-Identifier: Apache-2.0 */
/* For test_receipt.c: a certificate of a receipt signer's key, made as a TPM would make it, from keys of the test. Threads: one. */
#ifndef SECPOOL_TESTS_UNIT_RECEIPT_EVIDENCE_H
#define SECPOOL_TESTS_UNIT_RECEIPT_EVIDENCE_H

#include <openssl/bn.h>
#include <openssl/ecdsa.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "enclave/ecdsa.h"
#include "enclave/primitives.h"
#include "enclave/quote_verify.h"
#include "enclave/receipt.h"

enum { PCR_MASK = 0x5, POINT_AT = ECDSA_SPKI_BYTES - 64 };

static EVP_PKEY *ek_key, *ak_key;
static struct receipt_signer signer;

/* ---- a TPM's structures, big end first (TPM 2.0 part 2) ---- */

struct out {
	uint8_t *at;
	size_t used;
};

static void put(struct out *o, uint64_t number, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		o->at[o->used++] = (uint8_t)(number >> (8 * (bytes - 1 - i)));
}

static void put_bytes(struct out *o, const void *bytes, size_t count)
{
	memcpy(o->at + o->used, bytes, count);
	o->used += count;
}

static void put_point(struct out *o, const EVP_PKEY *key)
{
	uint8_t spki[ECDSA_SPKI_BYTES];

	assert_int_equal(ecdsa_spki(key, spki), SECPOOL_OK);
	put(o, 32, 2);
	put_bytes(o, spki + POINT_AT, 32);
	put(o, 32, 2);
	put_bytes(o, spki + POINT_AT + 32, 32);
}

/* TPM2B_PUBLIC of the EK (TCG template L-2) or of a restricted signing key. */
static void put_public(struct tpm_public *public, const EVP_PKEY *key, bool ek)
{
	struct out o = {.at = public->area};
	uint8_t policy[32] = {0x83};

	put(&o, 0, 2);
	put(&o, 0x0023, 2); /* ECC */
	put(&o, 0x000b, 2); /* SHA-256 */
	put(&o, ek ? 0x000300b2 : 0x00050472, 4);
	put(&o, ek ? sizeof policy : 0, 2);
	if (ek) {
		put_bytes(&o, policy, sizeof policy);
		put(&o, 0x000600800043, 6); /* AES, 128, CFB */
		put(&o, 0x0010, 2);
	} else {
		put(&o, 0x0010, 2);
		put(&o, 0x0018000b, 4); /* ECDSA, SHA-256 */
	}
	put(&o, 0x00030010, 4); /* P-256, no KDF */
	put_point(&o, key);
	public->bytes = o.used;
	o.used = 0;
	put(&o, public->bytes - 2, 2);
}

static void hash_with(
	const uint8_t *front, size_t front_bytes, const uint8_t *name, uint8_t *digest)
{
	uint8_t both[128];

	memcpy(both, front, front_bytes);
	memcpy(both + front_bytes, name, QUOTE_NAME_BYTES);
	assert_int_equal(
		primitives_sha256(both, front_bytes + QUOTE_NAME_BYTES, digest), SECPOOL_OK);
}

/* QN(EK) = H(endorsement || name), QN(AK) = H(QN(EK) || name), each with its algorithm before it. */
static void put_qualified_name(struct out *o)
{
	static const uint8_t endorsement[4] = {0x40, 0, 0, 0x0b};
	uint8_t name[QUOTE_NAME_BYTES], qualified[QUOTE_NAME_BYTES] = {0, 0x0b};

	assert_int_equal(quote_public_name(signer.ek.area, signer.ek.bytes, name), SECPOOL_OK);
	hash_with(endorsement, sizeof endorsement, name, qualified + 2);
	assert_int_equal(quote_public_name(signer.ak.area, signer.ak.bytes, name), SECPOOL_OK);
	hash_with(qualified, sizeof qualified, name, qualified + 2);
	put(o, sizeof qualified, 2);
	put_bytes(o, qualified, sizeof qualified);
}

/* TPMT_SIGNATURE from DER. */
static void put_signature(struct tpm_quote *quote, const uint8_t *der, size_t bytes)
{
	struct out o = {.at = quote->signature};
	ECDSA_SIG *pair = d2i_ECDSA_SIG(NULL, &der, (long)bytes);
	uint8_t number[32];

	assert_non_null(pair);
	put(&o, 0x0018000b, 4);
	put(&o, 32, 2);
	assert_int_equal(BN_bn2binpad(ECDSA_SIG_get0_r(pair), number, 32), 32);
	put_bytes(&o, number, 32);
	put(&o, 32, 2);
	assert_int_equal(BN_bn2binpad(ECDSA_SIG_get0_s(pair), number, 32), 32);
	put_bytes(&o, number, 32);
	ECDSA_SIG_free(pair);
	quote->signature_bytes = o.used;
}

/* The quote over PCR_MASK that certifies the signer's key. */
static void certify(struct tpm_quote *quote)
{
	uint8_t digest[32], signature[ECDSA_SIGNATURE_BYTES_MOST];
	struct out o = {.at = quote->attest};
	size_t bytes = 0;

	quote->pcr_count = 2;
	memset(quote->pcr_values[0], 0x10, 32);
	memset(quote->pcr_values[1], 0x12, 32);
	put(&o, 0xff544347, 4);
	put(&o, 0x8018, 2);
	put_qualified_name(&o);
	put(&o, 32, 2);
	assert_int_equal(receipt_signer_digest(&signer, digest), SECPOOL_OK);
	put_bytes(&o, digest, 32);
	put(&o, 1000, 8);
	put(&o, 3, 4);
	put(&o, 0, 4);
	put(&o, 1, 1);
	put(&o, 0, 8);
	put(&o, 1, 4);
	put(&o, 0x000b03, 3);
	put(&o, PCR_MASK, 1);
	put(&o, 0, 2);
	assert_int_equal(primitives_sha256(quote->pcr_values[0], 64, digest), SECPOOL_OK);
	put(&o, 32, 2);
	put_bytes(&o, digest, 32);
	quote->attest_bytes = o.used;
	assert_int_equal(ecdsa_sign(ak_key, quote->attest, quote->attest_bytes, signature, &bytes),
		SECPOOL_OK);
	put_signature(quote, signature, bytes);
}

#endif
