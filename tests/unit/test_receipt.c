/* SPDX-License-Identifier: Apache-2.0 */
/* Receipts against the real quote_verify: the certificate is made here as a TPM would make it, from keys of this test. */
#include <json-c/json.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "enclave/ecdsa.h"
#include "enclave/primitives.h"
#include "enclave/quote_verify.h"
#include "enclave/receipt.h"
#include "enclave/secmem.h"
#include "tests/unit/receipt_evidence.h"

static EVP_PKEY *key_from(uint8_t byte)
{
	uint8_t scalar[ECDSA_PRIVATE_BYTES];
	EVP_PKEY *key = NULL;

	memset(scalar, byte, sizeof scalar);
	assert_int_equal(ecdsa_private(scalar, &key), SECPOOL_OK);
	return key;
}

static int set_up(void **state)
{
	uint8_t scalar[RECEIPT_KEY_BYTES];

	(void)state;
	memset(scalar, 0x33, sizeof scalar);
	assert_int_equal(receipt_signer_init(&signer, scalar), SECPOOL_OK);
	ek_key = key_from(0x11);
	ak_key = key_from(0x22);
	put_public(&signer.ek, ek_key, true);
	put_public(&signer.ak, ak_key, false);
	certify(&signer.certificate);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	receipt_signer_done(&signer);
	EVP_PKEY_free(ek_key);
	EVP_PKEY_free(ak_key);
	return 0;
}

static struct msg_enc_receipt facts_of_test(void)
{
	struct msg_enc_receipt facts = {.region = 0xfedcba9876543210u,
		.tenant = "alice",
		.bytes = 1ull << 40,
		.copies = 2,
		.destroyed_ns = 1900000000000000001u,
		.epoch = 3,
		.generation = 12,
		.released_ns = 1900000000000000000u,
		.scrubbed_bytes = 2ull << 40,
		.unreachable_bytes = 4096,
		.readback = MSG_READBACK_MATCHED,
		.client = MSG_CLIENT_DEAD,
		.number = 77};

	memset(facts.previous, 0xab, sizeof facts.previous);
	return facts;
}

static size_t sign(char text[RECEIPT_DOCUMENT_BYTES])
{
	struct msg_enc_receipt facts = facts_of_test();
	size_t bytes = 0;

	assert_int_equal(receipt_sign(&signer, &facts, 11, 0, text, &bytes), SECPOOL_OK);
	assert_int_equal(strlen(text), bytes);
	return bytes;
}

static void test_signed_and_verified(void **state)
{
	char text[RECEIPT_DOCUMENT_BYTES], pem[512];
	uint8_t digest[RECEIPT_DIGEST_BYTES];
	struct receipt_facts facts;
	size_t bytes = sign(text);

	(void)state;
	assert_in_range(bytes, 1, 3000); /* room for larger keys and more PCRs */
	assert_int_equal(receipt_verify(text, bytes, NULL, &facts), SECPOOL_OK);
	assert_true(facts.region == 0xfedcba9876543210u);
	assert_int_equal(facts.number, 77);
	assert_int_equal(facts.epoch, 3);
	assert_int_equal(facts.generation, 12);
	assert_true(facts.destroyed_ns == 1900000000000000001u);
	assert_string_equal(facts.tenant, "alice");
	assert_string_equal(facts.readback, "matched");
	assert_string_equal(facts.client, "dead");
	assert_true(facts.scrubbed_bytes == 2ull << 40);
	assert_int_equal(facts.unreachable_bytes, 4096);
	assert_false(facts.durable);
	assert_int_equal(facts.previous[31], 0xab);
	assert_int_equal(strlen(facts.ak_fingerprint), 64);
	assert_int_equal(receipt_digest(text, bytes, digest), SECPOOL_OK);
	assert_memory_equal(digest, facts.digest, sizeof digest);
	assert_int_equal(receipt_digest(text, bytes - 1, digest), SECPOOL_OK);
	assert_memory_equal(digest, facts.digest, sizeof digest);
	assert_int_equal(
		quote_public_pem(signer.ak.area, signer.ak.bytes, pem, sizeof pem), SECPOOL_OK);
	assert_int_equal(receipt_verify(text, bytes, pem, &facts), SECPOOL_OK);
}

static void test_says_what_it_may(void **state)
{
	char text[RECEIPT_DOCUMENT_BYTES];

	(void)state;
	sign(text);
	assert_non_null(strstr(text, "\\\"durable\\\":\\\"no\\\""));
	assert_non_null(strstr(text, "\\\"backup-proof\\\":\\\"no\\\""));
	assert_null(strstr(text, "erased"));
}

/* Durable from its generation on, and proof against backups only where the TPM is no software. */
static void test_says_what_is_durable(void **state)
{
	struct msg_enc_receipt given = facts_of_test();
	struct receipt_facts facts;
	char text[RECEIPT_DOCUMENT_BYTES];
	size_t bytes = 0;

	(void)state;
	for (uint64_t generation = 11; generation < 14; generation++)
		for (unsigned proof = 0; proof < 2; proof++) {
			signer.backup_proof = proof != 0;
			assert_int_equal(receipt_sign(&signer, &given, generation, 0, text, &bytes),
				SECPOOL_OK);
			assert_int_equal(receipt_verify(text, bytes, NULL, &facts), SECPOOL_OK);
			assert_int_equal(facts.durable, generation >= 12);
			assert_int_equal(facts.backup_proof, generation >= 12 && proof);
			assert_int_equal(facts.generation, 12);
			assert_true(facts.bytes == given.bytes && facts.copies == given.copies &&
				    facts.released_ns == given.released_ns);
		}
	/* what ended before a recovery to this TPM, at generation 14, is neither, whatever this TPM is */
	for (given.generation = 1; given.generation <= 16; given.generation++) {
		bool since = given.generation == 15;

		assert_int_equal(receipt_sign(&signer, &given, 15, 14, text, &bytes), SECPOOL_OK);
		assert_int_equal(receipt_verify(text, bytes, NULL, &facts), SECPOOL_OK);
		assert_int_equal(facts.durable, since);
		assert_int_equal(facts.backup_proof, since);
	}
	signer.backup_proof = false;
	given.generation = 0;
	assert_int_equal(receipt_sign(&signer, &given, 99, 0, text, &bytes), SECPOOL_OK);
	assert_int_equal(receipt_verify(text, bytes, NULL, &facts), SECPOOL_OK);
	assert_false(facts.durable);
	assert_int_equal(receipt_readback_number("matched"), MSG_READBACK_MATCHED);
	assert_int_equal(receipt_readback_number("unreachable"), MSG_READBACK_UNREACHABLE);
	assert_int_equal(receipt_readback_number("erased"), 0);
	assert_int_equal(receipt_client_number("dead"), MSG_CLIENT_DEAD);
	assert_int_equal(receipt_client_number(""), 0);
}

static void refused(const char *text, size_t bytes, const char *anchor, enum secpool_error error)
{
	struct receipt_facts facts, before;
	enum secpool_error got;

	memset(&facts, 0x7a, sizeof facts);
	before = facts;
	got = receipt_verify(text, bytes, anchor, &facts);
	assert_memory_equal(&facts, &before, sizeof facts);
	if (error)
		assert_int_equal(got, error);
	else
		assert_true(got == SECPOOL_E_PROTOCOL || got == SECPOOL_E_INTEGRITY);
}

static void test_anchor(void **state)
{
	char text[RECEIPT_DOCUMENT_BYTES], pem[512];
	size_t bytes = sign(text);

	(void)state;
	assert_int_equal(
		quote_public_pem(signer.ek.area, signer.ek.bytes, pem, sizeof pem), SECPOOL_OK);
	refused(text, bytes, pem, SECPOOL_E_INTEGRITY);
	refused(text, bytes, "not a PEM", SECPOOL_E_INTEGRITY);
	refused(text, bytes, "", SECPOOL_E_INTEGRITY);
}

/* A changed byte is found wherever it is, but for the base64 tails' unused bits and blanks between the parts, which no fact depends on. */
static void test_changed(void **state)
{
	char text[RECEIPT_DOCUMENT_BYTES];
	struct receipt_facts right, facts;
	size_t bytes = sign(text), accepted = 0;

	(void)state;
	assert_int_equal(receipt_verify(text, bytes, NULL, &right), SECPOOL_OK);
	for (size_t i = 0; i < bytes; i++) {
		text[i] ^= 1;
		memset(&facts, 0, sizeof facts);
		if (receipt_verify(text, bytes, NULL, &facts) == SECPOOL_OK) {
			accepted++;
			memcpy(facts.digest, right.digest, sizeof facts.digest);
			assert_memory_equal(&facts, &right, sizeof facts);
		}
		text[i] ^= 1;
	}
	assert_in_range(accepted, 0, 16);
	for (size_t shorter = 0; shorter + 2 < bytes; shorter++)
		refused(text, shorter, NULL, SECPOOL_E_PROTOCOL);
}

/* Replaces a part of the text with another of any length and expects a refusal. */
static void test_replaced_parts(void **state)
{
	static const struct {
		const char *find, *put;
	} changes[] = {
		{"\"format\":\"secpool-receipt-1\"", "\"format\":\"secpool-receipt-2\""},
		{"\"format\":\"secpool-receipt-1\"", "\"format\":1"},
		{"\"body\":\"", "\"body\":[],\"was\":\""},
		{"\"body\":\"{", "\"body\":\"\\u0000{"},
		{"\\\"region\\\":", "\\\"region\\\":1"},
		{"\"key\":\"", "\"key\":\"AAAA"},
		{"\"key\":\"", "\"key\":\"\\n"},
		{"\"ak\":\"", "\"ak\":\"AAAA"},
		{"\"attest\":\"", "\"attest\":\"\",\"was\":\""},
		{"\"attest\":\"", "\"attest\":\"/1RDRw==\",\"was\":\""},
		{"\"attest\":\"", "\"attest\":\"////////////\",\"was\":\""},
		{"\"pcrs\":\"", "\"pcrs\":\"AAAA"},
		{"\"pcrs\":\"", "\"pcrs\":null,\"was\":\""},
		{"\"signature\":\"", "\"signature\":{\"a\":{\"b\":{\"c\":{}}}},\"was\":\""},
		{"}\n", "} {}\n"},
		{"}\n", ""},
	};
	char text[RECEIPT_DOCUMENT_BYTES], changed[RECEIPT_DOCUMENT_BYTES];

	(void)state;
	sign(text);
	for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
		char *at = strstr(text, changes[i].find);

		assert_non_null(at);
		snprintf(changed, sizeof changed, "%.*s%s%s", (int)(at - text), text,
			changes[i].put, at + strlen(changes[i].find));
		refused(changed, strlen(changed), NULL, SECPOOL_OK);
	}
	memset(changed, '[', sizeof changed);
	refused(changed, sizeof changed, NULL, SECPOOL_E_PROTOCOL);
	refused(changed, sizeof changed + 1, NULL, SECPOOL_E_PROTOCOL);
	refused("", 0, NULL, SECPOOL_E_PROTOCOL);
	refused("null", 4, NULL, SECPOOL_E_PROTOCOL);
}

/* Another signing key does not come under the certificate of this one. */
static void test_certificate_of_another_key(void **state)
{
	struct msg_enc_receipt facts = facts_of_test();
	struct receipt_signer other;
	uint8_t scalar[RECEIPT_KEY_BYTES];
	char text[RECEIPT_DOCUMENT_BYTES];
	size_t bytes = 0;

	(void)state;
	memset(scalar, 0x44, sizeof scalar);
	assert_int_equal(receipt_signer_init(&other, scalar), SECPOOL_OK);
	other.ek = signer.ek;
	other.ak = signer.ak;
	other.certificate = signer.certificate;
	assert_int_equal(receipt_sign(&other, &facts, 11, 0, text, &bytes), SECPOOL_OK);
	refused(text, bytes, NULL, SECPOOL_E_INTEGRITY);
	receipt_signer_done(&other);
}

static void test_sign_refuses(void **state)
{
	struct msg_enc_receipt good = facts_of_test(), facts;
	struct receipt_signer large = signer;
	char text[RECEIPT_DOCUMENT_BYTES] = "untouched";
	size_t bytes = 3;

	(void)state;
#define REFUSED(who, error)                                                                        \
	assert_int_equal(receipt_sign(who, &facts, 11, 0, text, &bytes), error);                   \
	assert_string_equal(text, "untouched");                                                    \
	assert_int_equal(bytes, 3)
	facts = good, strcpy(facts.tenant, "a\"b");
	REFUSED(&signer, SECPOOL_E_INVALID);
	facts = good, strcpy(facts.tenant, "a\\b");
	REFUSED(&signer, SECPOOL_E_INVALID);
	facts = good, strcpy(facts.tenant, "a\nb");
	REFUSED(&signer, SECPOOL_E_INVALID);
	facts = good, strcpy(facts.tenant, "");
	REFUSED(&signer, SECPOOL_E_INVALID);
	facts = good, memset(facts.tenant, 'a', sizeof facts.tenant);
	REFUSED(&signer, SECPOOL_E_INVALID);
	facts = good, facts.readback = 9;
	REFUSED(&signer, SECPOOL_E_INVALID);
	facts = good, facts.client = 0;
	REFUSED(&signer, SECPOOL_E_INVALID);
	facts = good;
	large.certificate.attest_bytes = TPM_ATTEST_BYTES;
	large.ek.bytes = large.ak.bytes = large.certificate.signature_bytes = 512;
	large.certificate.pcr_count = TPM_PCRS_MOST;
	REFUSED(&large, SECPOOL_E_LIMIT);
	large.certificate.pcr_count++;
	REFUSED(&large, SECPOOL_E_INVALID);
#undef REFUSED
}

static void test_signer_keys(void **state)
{
	uint8_t zero[RECEIPT_KEY_BYTES] = {0}, most[RECEIPT_KEY_BYTES];
	struct receipt_signer none;

	(void)state;
	memset(most, 0xff, sizeof most);
	memset(&none, 0, sizeof none);
	assert_int_equal(receipt_signer_init(&none, zero), SECPOOL_E_CRYPTO);
	assert_int_equal(receipt_signer_init(&none, most), SECPOOL_E_CRYPTO);
	assert_null(none.key);
	receipt_signer_done(&none);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_signed_and_verified),
		cmocka_unit_test(test_says_what_it_may),
		cmocka_unit_test(test_says_what_is_durable),
		cmocka_unit_test(test_anchor),
		cmocka_unit_test(test_changed),
		cmocka_unit_test(test_replaced_parts),
		cmocka_unit_test(test_certificate_of_another_key),
		cmocka_unit_test(test_sign_refuses),
		cmocka_unit_test(test_signer_keys),
	};

	if (secmem_init(SECMEM_ALLOW_LOCKED)) {
		fprintf(stderr, "secmem_init: %s\n", err_detail());
		return 1;
	}
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
