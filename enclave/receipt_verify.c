/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/receipt.h"

#include <json-c/json.h>
#include <string.h>

#include "enclave/document.h"
#include "enclave/ecdsa.h"
#include "enclave/receipt_text.h"

/* The document's parts, still unbelieved. */
struct parts {
	const char *body;
	uint8_t signature[ECDSA_SIGNATURE_BYTES_MOST];
	size_t signature_bytes;
	struct document_certificate certificate;
};

static enum secpool_error not_a_receipt(const char *what)
{
	return err_set(SECPOOL_E_PROTOCOL, "not a receipt: %s", what);
}

static enum secpool_error take_parts(struct json_object *document, struct parts *parts)
{
	const char *format = document_text(document, "format");

	if (!format || strcmp(format, RECEIPT_FORMAT) != 0)
		return not_a_receipt("its format is not " RECEIPT_FORMAT);
	parts->body = document_text(document, "body");
	if (!parts->body || !document_bytes(document, "signature", parts->signature,
				    sizeof parts->signature, &parts->signature_bytes))
		return not_a_receipt("body or signature is missing or malformed");
	if (!document_take_certificate(document, &parts->certificate))
		return not_a_receipt("its key or certificate is missing or malformed");
	return SECPOOL_OK;
}

/* The signature over the body, and the host's quote over the key that made it. */
static enum secpool_error check_signatures(const struct parts *parts)
{
	EVP_PKEY *key = NULL;
	enum secpool_error error =
		ecdsa_public(parts->certificate.spki, parts->certificate.spki_bytes, &key);

	if (error)
		return error;
	error = ecdsa_verify(
		key, parts->body, strlen(parts->body), parts->signature, parts->signature_bytes);
	EVP_PKEY_free(key);
	if (error)
		return err_set(SECPOOL_E_INTEGRITY,
			"the receipt was changed: its signature does not match");
	return document_check_certificate(&parts->certificate, "the receipt's key");
}

/* Compares the attestation key with the operator's, and gives its fingerprint. */
static enum secpool_error check_anchor(
	const struct parts *parts, const char *anchor_pem, struct receipt_facts *facts)
{
	bool is_anchor = false;
	enum secpool_error error = document_check_anchor(
		&parts->certificate, anchor_pem, facts->ak_fingerprint, &is_anchor);

	if (!error && !is_anchor)
		error = err_set(SECPOOL_E_INTEGRITY,
			"another host signed this: its attestation key is not the anchor");
	return error;
}

/* The facts of a body whose signature was checked. */
static enum secpool_error read_body(const char *body, struct receipt_facts *facts)
{
	struct json_object *object = document_parse(body, strlen(body));
	char durable[8], proof[8];
	bool good =
		object && document_number(object, "region", &facts->region) &&
		document_number(object, "number", &facts->number) &&
		document_number(object, "generation", &facts->generation) &&
		document_number(object, "key_destroyed_ns", &facts->destroyed_ns) &&
		document_number(object, "overwritten_bytes", &facts->scrubbed_bytes) &&
		document_number(object, "unreachable_bytes", &facts->unreachable_bytes) &&
		document_digest(object, "previous", facts->previous) &&
		document_copy_text(object, "tenant", facts->tenant, sizeof facts->tenant) &&
		document_copy_text(object, "readback", facts->readback, sizeof facts->readback) &&
		document_copy_text(object, "clients", facts->client, sizeof facts->client) &&
		document_number(object, "bytes", &facts->bytes) &&
		document_number(object, "copies", &facts->copies) &&
		document_number(object, "epoch", &facts->epoch) &&
		document_number(object, "released_ns", &facts->released_ns) &&
		document_copy_text(object, "durable", durable, sizeof durable) &&
		document_copy_text(object, "backup-proof", proof, sizeof proof);

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
	document = document_parse(text, bytes);
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
