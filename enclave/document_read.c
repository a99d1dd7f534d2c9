/* SPDX-License-Identifier: Apache-2.0 */
/* Reading signed documents: untrusted bytes. */
#include <json-c/json.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>

#include "enclave/document.h"
#include "enclave/primitives.h"
#include "enclave/quote_verify.h"
#include "enclave/receipt_text.h"

enum { JSON_DEPTH_MOST = 4 };

struct json_object *document_parse(const char *text, size_t bytes)
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

const char *document_text(struct json_object *object, const char *name)
{
	struct json_object *value = NULL;
	const char *text;

	if (!json_object_object_get_ex(object, name, &value) ||
		!json_object_is_type(value, json_type_string))
		return NULL;
	text = json_object_get_string(value);
	return strlen(text) == (size_t)json_object_get_string_len(value) ? text : NULL;
}

bool document_number(struct json_object *object, const char *name, uint64_t *ret_number)
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

bool document_bytes(
	struct json_object *object, const char *name, uint8_t *to, size_t room, size_t *ret_bytes)
{
	unsigned char raw[DOCUMENT_BYTES_MOST];
	const char *text = document_text(object, name);
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

bool document_digest(struct json_object *object, const char *name, uint8_t *to)
{
	char again[2 * RECEIPT_DIGEST_BYTES + 1];
	const char *text = document_text(object, name);

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

bool document_copy_text(struct json_object *object, const char *name, char *to, size_t room)
{
	const char *text = document_text(object, name);
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

bool document_take_certificate(
	struct json_object *object, struct document_certificate *ret_certificate)
{
	struct document_certificate found = {.spki_bytes = 0};
	struct tpm_quote *quote = &found.quote;
	size_t pcr_bytes = 0;

	if (!document_bytes(object, "key", found.spki, sizeof found.spki, &found.spki_bytes) ||
		!document_bytes(
			object, "ek", found.ek.area, sizeof found.ek.area, &found.ek.bytes) ||
		!document_bytes(
			object, "ak", found.ak.area, sizeof found.ak.area, &found.ak.bytes) ||
		!document_bytes(object, "attest", quote->attest, sizeof quote->attest,
			&quote->attest_bytes) ||
		!document_bytes(object, "attest_signature", quote->signature,
			sizeof quote->signature, &quote->signature_bytes) ||
		!document_bytes(object, "pcrs", quote->pcr_values[0], sizeof quote->pcr_values,
			&pcr_bytes) ||
		pcr_bytes % TPM_PCR_BYTES != 0 || !quoted_pcrs(quote, &found.pcr_mask))
		return false;
	quote->pcr_count = (unsigned)(pcr_bytes / TPM_PCR_BYTES);
	*ret_certificate = found;
	return true;
}

enum secpool_error document_check_certificate(
	const struct document_certificate *certificate, const char *what)
{
	const struct tpm_quote *quote = &certificate->quote;
	uint8_t nonce[RECEIPT_DIGEST_BYTES];
	struct quote_facts facts;
	enum secpool_error error =
		primitives_sha256(certificate->spki, certificate->spki_bytes, nonce);

	if (error)
		return error;
	error = quote_verify(certificate->ek.area, certificate->ek.bytes, certificate->ak.area,
		certificate->ak.bytes, quote->attest, quote->attest_bytes, quote->signature,
		quote->signature_bytes, nonce, sizeof nonce, certificate->pcr_mask,
		quote->pcr_values[0], quote->pcr_count, &facts);
	return error ? err_set(SECPOOL_E_INTEGRITY, "the host's TPM does not vouch for %s: %s",
			       what, err_detail())
		     : SECPOOL_OK;
}

static EVP_PKEY *key_of_pem(const char *pem)
{
	BIO *bio = BIO_new_mem_buf(pem, -1);
	EVP_PKEY *key = bio ? PEM_read_bio_PUBKEY(bio, NULL, NULL, NULL) : NULL;

	BIO_free(bio);
	ERR_clear_error();
	return key;
}

enum secpool_error document_check_anchor(const struct document_certificate *certificate,
	const char *anchor_pem, char ret_fingerprint[DOCUMENT_FINGERPRINT_BYTES],
	bool *ret_is_anchor)
{
	uint8_t digest[RECEIPT_DIGEST_BYTES];
	unsigned char *der = NULL;
	char pem[DOCUMENT_PEM_BYTES];
	EVP_PKEY *key = NULL, *anchor = NULL;
	int der_bytes = -1;
	enum secpool_error error =
		quote_public_pem(certificate->ak.area, certificate->ak.bytes, pem, sizeof pem);

	if (error)
		return err_set(SECPOOL_E_INTEGRITY, "the attestation key: %s", err_detail());
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
	}
	if (!error) {
		*ret_is_anchor = !anchor_pem || EVP_PKEY_eq(anchor, key) == 1;
		receipt_hex(digest, sizeof digest, ret_fingerprint);
	}
	OPENSSL_free(der);
	EVP_PKEY_free(key);
	EVP_PKEY_free(anchor);
	ERR_clear_error();
	return error;
}
