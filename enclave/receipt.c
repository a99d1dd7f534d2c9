/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/receipt.h"

#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

#include "enclave/document.h"
#include "enclave/ecdsa.h"
#include "enclave/primitives.h"
#include "enclave/receipt_text.h"

enum secpool_error receipt_signer_init(
	struct receipt_signer *signer, const uint8_t private_key[RECEIPT_KEY_BYTES])
{
	EVP_PKEY *key = NULL;
	enum secpool_error error = ecdsa_private(private_key, &key);

	if (error)
		return error;
	memset(signer, 0, sizeof *signer);
	signer->key = key;
	return SECPOOL_OK;
}

void receipt_signer_done(struct receipt_signer *signer)
{
	EVP_PKEY_free(signer->key);
	signer->key = NULL;
}

enum secpool_error receipt_signer_digest(
	const struct receipt_signer *signer, uint8_t ret_digest[RECEIPT_DIGEST_BYTES])
{
	uint8_t spki[ECDSA_SPKI_BYTES];
	enum secpool_error error = ecdsa_spki(signer->key, spki);

	return error ? error : primitives_sha256(spki, sizeof spki, ret_digest);
}

enum secpool_error receipt_digest(
	const char *text, size_t bytes, uint8_t ret_digest[RECEIPT_DIGEST_BYTES])
{
	/* a file of it may have gained a line end */
	while (bytes > 0 && text[bytes - 1] == '\n')
		bytes--;
	return primitives_sha256(text, bytes, ret_digest);
}

/* A tenant's name goes into the document as it is, so nothing that JSON would have to escape may be in it. */
static bool plain_name(const char *name)
{
	if (!name[0] || strnlen(name, MSG_NAME_BYTES) == MSG_NAME_BYTES)
		return false;
	for (; *name; name++) {
		if (*name <= ' ' || *name > '~' || *name == '"' || *name == '\\')
			return false;
	}
	return true;
}

/* The part that is signed: a JSON object on one line, with its keys in this order. */
static void add_body(struct document *text, const struct receipt_signer *signer,
	const struct msg_enc_receipt *facts, bool durable)
{
	char previous[2 * RECEIPT_DIGEST_BYTES + 1];

	receipt_hex(facts->previous, sizeof facts->previous, previous);
	document_add(text, "{\"number\":%" PRIu64 ",\"previous\":\"%s\",\"tenant\":\"%s\"",
		facts->number, previous, facts->tenant);
	document_add(text,
		",\"region\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"copies\":%" PRIu64
		",\"epoch\":%" PRIu64,
		facts->region, facts->bytes, facts->copies, facts->epoch);
	document_add(text, ",\"released_ns\":%" PRIu64 ",\"key_destroyed_ns\":%" PRIu64,
		facts->released_ns, facts->destroyed_ns);
	document_add(text, ",\"generation\":%" PRIu64 ",\"durable\":\"%s\",\"backup-proof\":\"%s\"",
		facts->generation, durable ? "yes" : "no",
		durable && signer->backup_proof ? "yes" : "no");
	document_add(text, ",\"overwritten_bytes\":%" PRIu64 ",\"unreachable_bytes\":%" PRIu64,
		facts->scrubbed_bytes, facts->unreachable_bytes);
	document_add(text, ",\"readback\":\"%s\",\"clients\":\"%s\"}",
		receipt_readback_name(facts->readback), receipt_client_name(facts->client));
}

static enum secpool_error check_facts(
	const struct receipt_signer *signer, const struct msg_enc_receipt *facts)
{
	if (!plain_name(facts->tenant))
		return err_set(SECPOOL_E_INVALID, "a receipt for a tenant without a plain name");
	if (!receipt_readback_name(facts->readback) || !receipt_client_name(facts->client))
		return err_set(SECPOOL_E_INVALID, "a receipt with read-back %u, client %u",
			facts->readback, facts->client);
	return document_check_signer(signer);
}

/* The document around a body: the body as a JSON string, so that the signed bytes travel as they are. */
static void add_document(struct document *text, const struct receipt_signer *signer,
	const char *body, const uint8_t *spki, const uint8_t *signature, size_t signature_bytes)
{
	document_add(text, "{\"format\":\"" RECEIPT_FORMAT "\",\n\"body\":");
	document_string(text, body);
	document_add(text, ",\n\"signature\":");
	document_base64(text, signature, signature_bytes);
	document_certificate(text, signer, spki, ",\n");
	document_add(text, "}\n");
}

enum secpool_error receipt_sign(const struct receipt_signer *signer,
	const struct msg_enc_receipt *facts, uint64_t generation, uint64_t asserted, char *text,
	size_t *ret_bytes)
{
	char body_text[RECEIPT_DOCUMENT_BYTES], whole_text[RECEIPT_DOCUMENT_BYTES];
	struct document body = {.at = body_text, .room = sizeof body_text};
	struct document whole = {.at = whole_text, .room = sizeof whole_text};
	uint8_t spki[ECDSA_SPKI_BYTES], signature[ECDSA_SIGNATURE_BYTES_MOST];
	size_t signature_bytes = 0;
	enum secpool_error error = check_facts(signer, facts);

	if (error)
		return error;
	add_body(&body, signer, facts,
		facts->generation > asserted && facts->generation <= generation);
	error = ecdsa_spki(signer->key, spki);
	if (error)
		return error;
	error = ecdsa_sign(signer->key, body_text, body.used, signature, &signature_bytes);
	if (error)
		return error;
	add_document(&whole, signer, body_text, spki, signature, signature_bytes);
	if (body.failed || whole.failed)
		return err_set(SECPOOL_E_LIMIT, "a receipt is longer than %d bytes",
			(int)RECEIPT_DOCUMENT_BYTES);
	memcpy(text, whole_text, whole.used + 1);
	*ret_bytes = whole.used;
	return SECPOOL_OK;
}
