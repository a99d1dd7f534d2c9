/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/audit_verify.h"

#include <json-c/json.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "enclave/audit_text.h"
#include "enclave/document.h"
#include "enclave/primitives.h"
#include "enclave/receipt_text.h"

struct audit_verifier {
	const char *anchor_pem;
	bool is_anchor; /* a start was certified by it */
	bool wants_receipt;
	char receipt[2 * AUDIT_DIGEST_BYTES + 1];
	EVP_PKEY *key; /* NULL before the first record */
	uint8_t spki[ECDSA_SPKI_BYTES];
	uint8_t head[AUDIT_DIGEST_BYTES];
	uint8_t (*heads)[AUDIT_DIGEST_BYTES]; /* of every record: an anchor may be of any */
	size_t room;
	struct audit_report report;
};

enum secpool_error audit_verifier_new(
	const char *anchor_pem, const uint8_t *receipt, struct audit_verifier **ret_verifier)
{
	struct audit_verifier *verifier = calloc(1, sizeof *verifier);

	if (!verifier)
		return err_set(SECPOOL_E_NO_MEMORY, "checking an audit: out of memory");
	verifier->anchor_pem = anchor_pem;
	verifier->wants_receipt = receipt != NULL;
	if (receipt)
		receipt_hex(receipt, AUDIT_DIGEST_BYTES, verifier->receipt);
	*ret_verifier = verifier;
	return SECPOOL_OK;
}

void audit_verifier_free(struct audit_verifier *verifier)
{
	if (!verifier)
		return;
	EVP_PKEY_free(verifier->key);
	free(verifier->heads);
	free(verifier);
}

static enum secpool_error wrong(const struct audit_verifier *verifier, const char *what)
{
	char copy[ERR_DETAIL_BYTES];

	msg_set_text(copy, sizeof copy, what);
	return err_set(SECPOOL_E_INTEGRITY, "record %llu: %.200s",
		(unsigned long long)verifier->report.records + 1, copy);
}

static bool is_start(const char *kind)
{
	return strcmp(kind, "provisioned") == 0 || strcmp(kind, "unsealed") == 0 ||
	       strcmp(kind, "recovered") == 0;
}

/* The certificate of a start's record: the first one's key is the audit's, and all others have the same. */
static enum secpool_error take_start(struct audit_verifier *verifier, struct json_object *body)
{
	struct document_certificate certificate;
	bool is_anchor = false;
	enum secpool_error error;

	if (!document_take_certificate(body, &certificate))
		return err_set(
			SECPOOL_E_INTEGRITY, "its key's certificate is missing or malformed");
	if (verifier->key &&
		(certificate.spki_bytes != sizeof verifier->spki ||
			CRYPTO_memcmp(certificate.spki, verifier->spki, sizeof verifier->spki)))
		return err_set(SECPOOL_E_INTEGRITY, "it is of another signing key");
	error = document_check_certificate(&certificate, "the audit's key");
	if (!error)
		error = document_check_anchor(&certificate, verifier->anchor_pem,
			verifier->report.ak_fingerprint, &is_anchor);
	if (!error && !verifier->key)
		error = ecdsa_public(certificate.spki, certificate.spki_bytes, &verifier->key);
	if (error)
		return error;
	memcpy(verifier->spki, certificate.spki, sizeof verifier->spki);
	verifier->is_anchor |= is_anchor;
	verifier->report.starts++;
	return SECPOOL_OK;
}

/* A member that may be missing: then it is as it was. */
static bool optional_number(struct json_object *body, const char *name, uint64_t *number)
{
	return !json_object_object_get_ex(body, name, NULL) || document_number(body, name, number);
}

static bool optional_text(struct json_object *body, const char *name, char *to, size_t room)
{
	return !json_object_object_get_ex(body, name, NULL) ||
	       document_copy_text(body, name, to, room);
}

static bool read_record(struct json_object *body, struct audit_record *record)
{
	char by[8] = "";

	record->has_peer = json_object_object_get_ex(body, "uid", NULL);
	if (!document_number(body, "number", &record->number) ||
		!document_number(body, "time_ns", &record->time_ns) ||
		!document_copy_text(body, "kind", record->kind, sizeof record->kind) ||
		!optional_number(body, "missed", &record->missed) ||
		!optional_number(body, "session", &record->session) ||
		!optional_number(body, "region", &record->region) ||
		!optional_number(body, "epoch", &record->epoch) ||
		!optional_number(body, "generation", &record->generation) ||
		!optional_number(body, "bytes", &record->bytes) ||
		!optional_number(body, "receipt", &record->receipt) ||
		!optional_number(body, "uid", &record->uid) ||
		!optional_number(body, "pid", &record->pid) ||
		!optional_text(body, "by", by, sizeof by) ||
		!optional_text(body, "tenant", record->tenant, sizeof record->tenant) ||
		!optional_text(body, "device", record->device, sizeof record->device) ||
		!optional_text(body, "error", record->error, sizeof record->error) ||
		!optional_text(body, "detail", record->detail, sizeof record->detail) ||
		!optional_text(body, "sha256", record->sha256, sizeof record->sha256))
		return false;
	record->by_front = strcmp(by, "front") == 0;
	return true;
}

static bool keep_head(struct audit_verifier *verifier)
{
	size_t at = (size_t)verifier->report.records;

	if (at == verifier->room) {
		size_t room = verifier->room ? 2 * verifier->room : 1024;
		void *more = reallocarray(verifier->heads, room, sizeof *verifier->heads);

		if (!more)
			return false;
		verifier->heads = more;
		verifier->room = room;
	}
	memcpy(verifier->heads[at], verifier->head, sizeof verifier->head);
	return true;
}

/* A line of which nothing is believed yet, up to its place in the chain. */
static enum secpool_error check_line(struct audit_verifier *verifier, const char *line,
	size_t bytes, struct json_object **ret_body, struct audit_record *record)
{
	enum secpool_error error;
	struct audit_line parts;

	error = audit_split(line, bytes, &parts);
	if (error)
		return error;
	*ret_body = document_parse(parts.body, parts.body_bytes);
	if (!*ret_body || !read_record(*ret_body, record))
		return err_set(SECPOOL_E_INTEGRITY, "it is no record of an audit");
	if (!verifier->key && !is_start(record->kind))
		return err_set(SECPOOL_E_INTEGRITY,
			"the first record must be that of a start: those before it are missing");
	if (!verifier->key)
		error = take_start(verifier, *ret_body);
	else if (is_start(record->kind)) {
		/* the signature first: a certificate of nobody costs a lot to look at */
		error = audit_check_line(line, bytes, verifier->key, &parts);
		if (!error)
			error = take_start(verifier, *ret_body);
	}
	if (!error)
		error = audit_check_line(line, bytes, verifier->key, &parts);
	if (!error && !audit_follows(&parts, verifier->report.records + 1, verifier->head))
		error = err_set(SECPOOL_E_INTEGRITY,
			"it does not follow the one before it: records were removed, added or put "
			"in another order (it says number %llu)",
			(unsigned long long)record->number);
	return error;
}

enum secpool_error audit_verify_line(struct audit_verifier *verifier, const char *line,
	size_t bytes, struct audit_record *ret_record)
{
	struct audit_record record = {.number = 0};
	struct json_object *body = NULL;
	enum secpool_error error = SECPOOL_E_INTERNAL;

	if (bytes >= AUDIT_LINE_BYTES)
		return wrong(verifier, "it is too long for a record");
	error = check_line(verifier, line, bytes, &body, &record);
	if (error) {
		error = wrong(verifier, err_detail());
		goto out;
	}
	error = primitives_sha256(line, bytes, verifier->head);
	if (!error && !keep_head(verifier))
		error = err_set(SECPOOL_E_NO_MEMORY, "checking an audit: out of memory");
	if (error)
		goto out;
	verifier->report.records++;
	verifier->report.missed += record.missed;
	if (verifier->wants_receipt && strcmp(record.kind, "receipt") == 0 &&
		strcmp(record.sha256, verifier->receipt) == 0)
		verifier->report.receipt_found = true;
	*ret_record = record;
out:
	json_object_put(body);
	return error;
}

/* The anchor's record is where it says, and what it says. */
static enum secpool_error check_anchor_record(
	struct audit_verifier *verifier, const char *anchor, size_t bytes)
{
	struct audit_report *report = &verifier->report;
	struct audit_anchor_facts facts;
	enum secpool_error error = audit_read_anchor(anchor, bytes, verifier->key, &facts);

	if (error)
		return err_set(SECPOOL_E_INTEGRITY, "the anchor: %.200s", err_detail());
	if (facts.records > report->records)
		return err_set(SECPOOL_E_INTEGRITY,
			"records are missing at the end: %llu were anchored, %llu are here",
			(unsigned long long)facts.records, (unsigned long long)report->records);
	if (facts.records > 0 && CRYPTO_memcmp(facts.head, verifier->heads[facts.records - 1],
					 AUDIT_DIGEST_BYTES) != 0)
		return err_set(SECPOOL_E_INTEGRITY,
			"record %llu is not the one that was anchored: another audit of the same "
			"enclave has taken its place",
			(unsigned long long)facts.records);
	report->anchored = facts.records;
	report->anchor_ns = facts.time_ns;
	return SECPOOL_OK;
}

enum secpool_error audit_verify_end(struct audit_verifier *verifier, const char *anchor,
	size_t anchor_bytes, struct audit_report *ret_report)
{
	enum secpool_error error;

	if (!verifier->key)
		return err_set(SECPOOL_E_INTEGRITY, "the audit is empty: its records are missing");
	error = check_anchor_record(verifier, anchor, anchor_bytes);
	if (error)
		return error;
	if (verifier->anchor_pem && !verifier->is_anchor)
		return err_set(SECPOOL_E_INTEGRITY,
			"another host wrote this: none of its attestation keys is the one in the "
			"--anchor file");
	if (verifier->wants_receipt && !verifier->report.receipt_found)
		return err_set(SECPOOL_E_INTEGRITY,
			"the receipt is not in the audit: its record was removed, or it is of "
			"another key manager");
	receipt_hex(verifier->head, AUDIT_DIGEST_BYTES, verifier->report.head);
	*ret_report = verifier->report;
	return SECPOOL_OK;
}
