/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/audit.h"

#include <string.h>

#include "enclave/audit_text.h"
#include "enclave/document.h"
#include "enclave/ecdsa.h"
#include "enclave/primitives.h"
#include "enclave/receipt_text.h"
#include "lib/base/clock.h"

enum { HEX_BYTES = 2 * AUDIT_DIGEST_BYTES + 1 };

static const char *const words[AUDIT_KIND_COUNT] = {
#define AUDIT_WORD(NAME, word) [AUDIT_##NAME] = word,
	AUDIT_KINDS(AUDIT_WORD)
#undef AUDIT_WORD
};

void audit_init(struct audit *audit, const struct receipt_signer *signer)
{
	*audit = (struct audit){.signer = signer,
		.refusals = {.period_ns = 60 * CLOCK_NS_PER_S, .burst = AUDIT_REFUSALS}};
}

static void add_number(struct document *body, const char *name, uint64_t number)
{
	if (number != 0)
		document_add(body, ",\"%s\":%llu", name, (unsigned long long)number);
}

static void add_text(struct document *body, const char *name, const char *text)
{
	if (!text || !text[0])
		return;
	document_add(body, ",\"%s\":", name);
	document_string(body, text);
}

/* Who, of what, and how it ended. Nothing here is a key: names, numbers, digests and sentences. */
static void add_entry(struct document *body, const struct audit_entry *entry)
{
	char hex[HEX_BYTES];

	if (entry->by_front)
		document_add(body, ",\"by\":\"front\"");
	add_text(body, "tenant", entry->tenant);
	add_text(body, "device", entry->device);
	if (entry->has_peer)
		document_add(body, ",\"uid\":%u,\"pid\":%u", entry->uid, entry->pid);
	add_number(body, "session", entry->session);
	add_number(body, "region", entry->region);
	add_number(body, "epoch", entry->epoch);
	add_number(body, "generation", entry->generation);
	add_number(body, "bytes", entry->bytes);
	add_number(body, "receipt", entry->receipt);
	if (entry->sha256) {
		receipt_hex(entry->sha256, AUDIT_DIGEST_BYTES, hex);
		add_text(body, "sha256", hex);
	}
	if (entry->error)
		add_text(body, "error", err_name(entry->error));
	add_text(body, "detail", entry->detail);
}

static enum secpool_error make_body(
	const struct audit *audit, const struct audit_entry *entry, struct document *body)
{
	uint8_t spki[ECDSA_SPKI_BYTES];
	char previous[HEX_BYTES];
	enum secpool_error error = SECPOOL_OK;

	receipt_hex(audit->head, AUDIT_DIGEST_BYTES, previous);
	document_add(body, AUDIT_RECORD_FORMAT ",\"kind\":\"%s\"",
		(unsigned long long)audit->count + 1, previous,
		(unsigned long long)clock_calendar_ns(), words[entry->kind]);
	add_number(body, "missed", audit->missed);
	add_entry(body, entry);
	if (entry->kind == AUDIT_PROVISIONED || entry->kind == AUDIT_UNSEALED ||
		entry->kind == AUDIT_RECOVERED) {
		error = document_check_signer(audit->signer);
		if (!error)
			error = ecdsa_spki(audit->signer->key, spki);
		if (!error)
			document_certificate(body, audit->signer, spki, ",");
	}
	document_add(body, "}");
	return error;
}

/* body, signed, as a line. */
static enum secpool_error sign_line(
	const struct receipt_signer *signer, const struct document *body, struct document *line)
{
	uint8_t signature[ECDSA_SIGNATURE_BYTES_MOST];
	size_t signature_bytes = 0;
	enum secpool_error error;

	if (body->failed)
		return err_set(SECPOOL_E_LIMIT, "an audit record is too long");
	error = ecdsa_sign(signer->key, body->at, body->used, signature, &signature_bytes);
	if (error)
		return error;
	document_add(line, "{\"record\":%s,\"signature\":", body->at);
	document_base64(line, signature, signature_bytes);
	document_add(line, "}");
	return line->failed ? err_set(SECPOOL_E_LIMIT, "an audit record is too long") : SECPOOL_OK;
}

static enum secpool_error append(struct audit *audit, const struct audit_entry *entry, bool wait)
{
	char body_text[AUDIT_LINE_BYTES], line_text[AUDIT_LINE_BYTES];
	struct document body = {.at = body_text, .room = sizeof body_text};
	struct document line = {.at = line_text, .room = sizeof line_text};
	uint8_t head[AUDIT_DIGEST_BYTES];
	enum secpool_error error;

	if (!audit->sink)
		return err_set(SECPOOL_E_INTERNAL, "there is no audit to append to");
	error = make_body(audit, entry, &body);
	if (!error)
		error = sign_line(audit->signer, &body, &line);
	if (!error)
		error = primitives_sha256(line.at, line.used, head);
	if (!error)
		error = audit->sink(audit->sink_arg, line.at, wait);
	if (error)
		return error;
	memcpy(audit->head, head, sizeof head);
	audit->count++;
	audit->bytes += line.used + 1;
	audit->missed = 0;
	return SECPOOL_OK;
}

static enum secpool_error refused(enum secpool_error error)
{
	return error ? err_set(error, "refused, because its audit record can't be kept: %.180s",
			       err_detail())
		     : SECPOOL_OK;
}

enum secpool_error audit_keep(struct audit *audit, const struct audit_entry *entry)
{
	return refused(append(audit, entry, true));
}

enum secpool_error audit_add(struct audit *audit, const struct audit_entry *entry)
{
	return refused(append(audit, entry, false));
}

enum secpool_error audit_sync(const struct audit *audit)
{
	if (!audit->sink)
		return err_set(SECPOOL_E_INTERNAL, "there is no audit to wait for");
	return refused(audit->sink(audit->sink_arg, "", true));
}

void audit_tell(struct audit *audit, const struct audit_entry *entry)
{
	bool refusal = entry->kind == AUDIT_REFUSED || entry->kind == AUDIT_NOT_ATTESTED;
	char detail[ERR_DETAIL_BYTES];

	/* who is answered with this thread's sentence still is */
	msg_set_text(detail, sizeof detail, err_detail());
	if ((refusal && !log_allowed(&audit->refusals)) || append(audit, entry, false))
		audit->missed++;
	err_set(SECPOOL_OK, "%s", detail);
}

enum secpool_error audit_anchor(const struct audit *audit, char *anchor)
{
	char body_text[AUDIT_ANCHOR_BYTES], line_text[AUDIT_ANCHOR_BYTES], head[HEX_BYTES];
	struct document body = {.at = body_text, .room = sizeof body_text};
	struct document line = {.at = line_text, .room = sizeof line_text};
	enum secpool_error error;

	receipt_hex(audit->head, AUDIT_DIGEST_BYTES, head);
	document_add(&body, AUDIT_ANCHOR_FORMAT, (unsigned long long)audit->count,
		(unsigned long long)audit->bytes, head, (unsigned long long)clock_calendar_ns());
	error = sign_line(audit->signer, &body, &line);
	document_add(&line, "\n");
	if (!error && line.failed)
		error = err_set(SECPOOL_E_LIMIT, "the audit's anchor is too long");
	if (!error)
		memcpy(anchor, line.at, line.used + 1);
	return error;
}
