/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/receipt.h"

#include <inttypes.h>
#include <json-c/json.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>

#include "enclave/ecdsa.h"
#include "enclave/primitives.h"
#include "enclave/quote_verify.h"
#include "enclave/receipt_text.h"

enum { JSON_DEPTH_MOST = 4, PEM_BYTES = 512 };

/* The document's parts, still unbelieved. */
struct parts {
	const char *body;
	uint8_t signature[ECDSA_SIGNATURE_BYTES_MOST];
	uint8_t spki[ECDSA_SPKI_BYTES];
	struct tpm_public ek, ak;
	struct tpm_quote quote;
	size_t signature_bytes, spki_bytes, pcr_bytes;
	uint32_t pcr_mask;
};

static enum secpool_error not_a_receipt(const char *what)
{
	return err_set(SECPOOL_E_PROTOCOL, "not a receipt: %s", what);
}

/* One JSON object with nothing behind it; NULL for anything else. The caller puts it. */
static struct json_object *parse_object(const char *text, size_t bytes)
{
	struct json_tokener *tokener = json_tokener_new_ex(JSON_DEPTH_MOST);
	struct json_object *object = NULL;

	if (!tokener)
		return NULL;
	json_tokener_set_flags(tokener, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
	object = json_tokener_parse_ex(tokener, text, (int)bytes);
	if (object && (json_tokener_get_error(tokener) != json_tokener_success ||
			      json_tokener_get_parse_end(tokener) != bytes ||
			      !json_object_is_type(object, json_type_object))) {
		json_object_put(object);
		object = NULL;
	}
	json_tokener_free(tokener);
	return object;
}

/* A member that is a string without a NUL inside; NULL if there is none. Borrowed. */
static const char *text_of(struct json_object *object, const char *name)
{
	struct json_object *value = NULL;
	const char *text;

	if (!json_object_object_get_ex(object, name, &value) ||
		!json_object_is_type(value, json_type_string))
		return NULL;
	text = json_object_get_string(value);
	return strlen(text) == (size_t)json_object_get_string_len(value) ? text : NULL;
}

static bool number_of(struct json_object *object, const char *name, uint64_t *ret_number)
{
	struct json_object *value = NULL;

	if (!json_object_object_get_ex(object, name, &value) ||
		!json_object_is_type(value, json_type_int))
		return false;
	/* json-c gives 0 for a negative number as uint64, and the greatest int64 for one that is larger */
	if (json_object_get_int64(value) < 0)
		return false;
	*ret_number = json_object_get_uint64(value);
	return true;
}

/* A member in base64, at most `room` bytes. */
static bool bytes_of(
	struct json_object *object, const char *name, uint8_t *to, size_t room, size_t *ret_bytes)
{
	unsigned char raw[RECEIPT_DOCUMENT_BYTES];
	const char *text = text_of(object, name);
	size_t chars = text ? strlen(text) : 0, bytes;
	int count;

	if (!text || chars == 0 || chars % 4 != 0 || chars >= sizeof raw ||
		strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=") !=
			chars)
		return false;
	count = EVP_DecodeBlock(raw, (const unsigned char *)text, (int)chars);
	if (count < 0)
		return false;
	/* EVP_DecodeBlock counts the padding as bytes */
	bytes = (size_t)count - (text[chars - 1] == '=') - (text[chars - 2] == '=');
	if (bytes > room)
		return false;
	memcpy(to, raw, bytes);
	*ret_bytes = bytes;
	return true;
}

static bool digest_of(struct json_object *object, const char *name, uint8_t *to)
{
	char again[2 * RECEIPT_DIGEST_BYTES + 1];
	const char *text = text_of(object, name);

	if (!text || strlen(text) != 2 * RECEIPT_DIGEST_BYTES)
		return false;
	for (size_t i = 0; i < RECEIPT_DIGEST_BYTES; i++) {
		char two[3] = {text[2 * i], text[2 * i + 1], 0};

		to[i] = (uint8_t)strtoul(two, NULL, 16);
	}
	/* anything but lower-case hex does not come out the same */
	receipt_hex(to, RECEIPT_DIGEST_BYTES, again);
	return strcmp(text, again) == 0;
}

/* Big-endian numbers of a TPM structure; stays failed once it ran over its end. */
struct tpm_reader {
	const uint8_t *bytes;
	size_t left;
	bool failed;
};

static uint64_t tpm_number(struct tpm_reader *r, size_t count)
{
	uint64_t number = 0;

	if (r->failed || count > r->left) {
		r->failed = true;
		return 0;
	}
	for (size_t i = 0; i < count; i++)
		number = number << 8 | r->bytes[i];
	r->bytes += count;
	r->left -= count;
	return number;
}

static void tpm_skip(struct tpm_reader *r, size_t count)
{
	if (r->failed || count > r->left) {
		r->failed = true;
		return;
	}
	r->bytes += count;
	r->left -= count;
}

/*
 * The PCRs that the certificate's quote says it is over (TPMS_ATTEST, TPM 2.0 part 2, 10.12.8): one selection, of the SHA-256 bank. quote_verify
 * then holds the quote to exactly these.
 */
static bool quoted_pcrs(const struct tpm_quote *quote, uint32_t *ret_mask)
{
	enum { CLOCK_INFO_BYTES = 17, FIRMWARE_BYTES = 8, ALG_SHA256 = 0x000b };
	struct tpm_reader r = {.bytes = quote->attest, .left = quote->attest_bytes};
	size_t selected;
	uint32_t mask = 0;

	tpm_skip(&r, 4 + 2);
	tpm_skip(&r, tpm_number(&r, 2)); /* qualified signer */
	tpm_skip(&r, tpm_number(&r, 2)); /* nonce */
	tpm_skip(&r, CLOCK_INFO_BYTES + FIRMWARE_BYTES);
	if (tpm_number(&r, 4) != 1 || tpm_number(&r, 2) != ALG_SHA256)
		return false;
	selected = tpm_number(&r, 1);
	if (selected > sizeof mask)
		return false;
	for (size_t i = 0; i < selected; i++)
		mask |= (uint32_t)tpm_number(&r, 1) << (8 * i);
	*ret_mask = mask;
	return !r.failed;
}

static enum secpool_error take_parts(struct json_object *document, struct parts *parts)
{
	struct tpm_quote *quote = &parts->quote;
	const char *format = text_of(document, "format");

	if (!format || strcmp(format, RECEIPT_FORMAT) != 0)
		return not_a_receipt("its format is not " RECEIPT_FORMAT);
	parts->body = text_of(document, "body");
	if (!parts->body ||
		!bytes_of(document, "signature", parts->signature, sizeof parts->signature,
			&parts->signature_bytes) ||
		!bytes_of(document, "key", parts->spki, sizeof parts->spki, &parts->spki_bytes))
		return not_a_receipt("body, signature or key is missing or malformed");
	if (!bytes_of(document, "ek", parts->ek.area, sizeof parts->ek.area, &parts->ek.bytes) ||
		!bytes_of(
			document, "ak", parts->ak.area, sizeof parts->ak.area, &parts->ak.bytes) ||
		!bytes_of(document, "attest", quote->attest, sizeof quote->attest,
			&quote->attest_bytes) ||
		!bytes_of(document, "attest_signature", quote->signature, sizeof quote->signature,
			&quote->signature_bytes) ||
		!bytes_of(document, "pcrs", quote->pcr_values[0], sizeof quote->pcr_values,
			&parts->pcr_bytes) ||
		parts->pcr_bytes % TPM_PCR_BYTES != 0 || !quoted_pcrs(quote, &parts->pcr_mask))
		return not_a_receipt("its certificate is missing or malformed");
	quote->pcr_count = (unsigned)(parts->pcr_bytes / TPM_PCR_BYTES);
	return SECPOOL_OK;
}

/* The signature over the body, and the host's quote over the key that made it. */
static enum secpool_error check_signatures(const struct parts *parts)
{
	const struct tpm_quote *quote = &parts->quote;
	uint8_t nonce[RECEIPT_DIGEST_BYTES];
	struct quote_facts facts;
	EVP_PKEY *key = NULL;
	enum secpool_error error = ecdsa_public(parts->spki, parts->spki_bytes, &key);

	if (error)
		return error;
	error = ecdsa_verify(
		key, parts->body, strlen(parts->body), parts->signature, parts->signature_bytes);
	EVP_PKEY_free(key);
	if (error)
		return err_set(SECPOOL_E_INTEGRITY,
			"the receipt was changed: its signature does not match");
	error = primitives_sha256(parts->spki, parts->spki_bytes, nonce);
	if (error)
		return error;
	error = quote_verify(parts->ek.area, parts->ek.bytes, parts->ak.area, parts->ak.bytes,
		quote->attest, quote->attest_bytes, quote->signature, quote->signature_bytes, nonce,
		sizeof nonce, parts->pcr_mask, quote->pcr_values[0], quote->pcr_count, &facts);
	if (error)
		return err_set(SECPOOL_E_INTEGRITY,
			"the host's TPM does not vouch for the receipt's key: %s", err_detail());
	return SECPOOL_OK;
}

static EVP_PKEY *key_of_pem(const char *pem)
{
	BIO *bio = BIO_new_mem_buf(pem, -1);
	EVP_PKEY *key = bio ? PEM_read_bio_PUBKEY(bio, NULL, NULL, NULL) : NULL;

	BIO_free(bio);
	ERR_clear_error();
	return key;
}

/* Compares the attestation key with the operator's, and gives its fingerprint. */
static enum secpool_error check_anchor(
	const struct parts *parts, const char *anchor_pem, struct receipt_facts *facts)
{
	uint8_t digest[RECEIPT_DIGEST_BYTES];
	unsigned char *der = NULL;
	char pem[PEM_BYTES];
	EVP_PKEY *key = NULL, *anchor = NULL;
	int der_bytes = -1;
	enum secpool_error error =
		quote_public_pem(parts->ak.area, parts->ak.bytes, pem, sizeof pem);

	if (error)
		return err_set(
			SECPOOL_E_INTEGRITY, "the receipt's attestation key: %s", err_detail());
	key = key_of_pem(pem);
	if (key)
		der_bytes = i2d_PUBKEY(key, &der);
	error = der_bytes > 0 ? primitives_sha256(der, (size_t)der_bytes, digest)
			      : primitives_failed("reading the attestation key");
	if (!error && anchor_pem) {
		anchor = key_of_pem(anchor_pem);
		if (!anchor)
			error = err_set(
				SECPOOL_E_INTEGRITY, "the anchor is not a public key in PEM");
		else if (EVP_PKEY_eq(anchor, key) != 1)
			error = err_set(SECPOOL_E_INTEGRITY,
				"another host signed this: its attestation key is not the anchor");
	}
	if (!error)
		receipt_hex(digest, sizeof digest, facts->ak_fingerprint);
	OPENSSL_free(der);
	EVP_PKEY_free(key);
	EVP_PKEY_free(anchor);
	ERR_clear_error();
	return error;
}

static bool copy_text(struct json_object *object, const char *name, char *to, size_t room)
{
	const char *text = text_of(object, name);
	size_t count = text ? strlen(text) : 0;

	if (!text || count >= room)
		return false;
	/* shown on terminals: nothing but printable characters */
	for (size_t i = 0; text[i]; i++) {
		if (text[i] < ' ' || text[i] > '~')
			return false;
	}
	memcpy(to, text, count + 1);
	return true;
}

/* The facts of a body whose signature was checked. */
static enum secpool_error read_body(const char *body, struct receipt_facts *facts)
{
	struct json_object *object = parse_object(body, strlen(body));
	char durable[8], proof[8];
	bool good = object && number_of(object, "region", &facts->region) &&
		    number_of(object, "number", &facts->number) &&
		    number_of(object, "generation", &facts->generation) &&
		    number_of(object, "key_destroyed_ns", &facts->destroyed_ns) &&
		    number_of(object, "overwritten_bytes", &facts->scrubbed_bytes) &&
		    number_of(object, "unreachable_bytes", &facts->unreachable_bytes) &&
		    digest_of(object, "previous", facts->previous) &&
		    copy_text(object, "tenant", facts->tenant, sizeof facts->tenant) &&
		    copy_text(object, "readback", facts->readback, sizeof facts->readback) &&
		    copy_text(object, "clients", facts->client, sizeof facts->client) &&
		    number_of(object, "bytes", &facts->bytes) &&
		    number_of(object, "copies", &facts->copies) &&
		    number_of(object, "epoch", &facts->epoch) &&
		    number_of(object, "released_ns", &facts->released_ns) &&
		    copy_text(object, "durable", durable, sizeof durable) &&
		    copy_text(object, "backup-proof", proof, sizeof proof);

	json_object_put(object);
	if (!good)
		return not_a_receipt("its body is malformed");
	facts->durable = strcmp(durable, "yes") == 0;
	facts->backup_proof = strcmp(proof, "yes") == 0;
	return SECPOOL_OK;
}

uint32_t receipt_readback_number(const char *word)
{
	for (uint32_t i = MSG_READBACK_MATCHED; receipt_readback_name(i); i++)
		if (strcmp(word, receipt_readback_name(i)) == 0)
			return i;
	return 0;
}

uint32_t receipt_client_number(const char *word)
{
	for (uint32_t i = MSG_CLIENT_ACKNOWLEDGED; receipt_client_name(i); i++)
		if (strcmp(word, receipt_client_name(i)) == 0)
			return i;
	return 0;
}

enum secpool_error receipt_verify(
	const char *text, size_t bytes, const char *anchor_pem, struct receipt_facts *ret_facts)
{
	enum secpool_error error = SECPOOL_E_INTERNAL;
	struct receipt_facts facts = {0};
	struct parts parts = {0};
	struct json_object *document;

	if (bytes > RECEIPT_DOCUMENT_BYTES)
		return not_a_receipt("too long");
	document = parse_object(text, bytes);
	if (!document)
		return not_a_receipt("not one JSON object");
	error = take_parts(document, &parts);
	if (error)
		goto out;
	error = check_signatures(&parts);
	if (error)
		goto out;
	error = check_anchor(&parts, anchor_pem, &facts);
	if (error)
		goto out;
	error = read_body(parts.body, &facts);
	if (error)
		goto out;
	error = receipt_digest(text, bytes, facts.digest);
	if (error)
		goto out;
	*ret_facts = facts;
out:
	json_object_put(document);
	return error;
}
