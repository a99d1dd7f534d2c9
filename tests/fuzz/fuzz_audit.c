/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libFuzzer: any bytes as an audit, the anchor up to the first NUL and the lines behind it. What is refused leaves nothing; what is taken is numbered in order, printable, and no more than the lines.
 * Signatures can't be guessed, so each line is also looked at as one that this target signed itself.
 */
#include <stdlib.h>
#include <string.h>

#include "enclave/audit_text.h"
#include "enclave/audit_verify.h"
#include "enclave/ecdsa.h"

enum { LINE_MOST = 2 * AUDIT_LINE_BYTES };

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

static void require(bool holds)
{
	if (!holds)
		abort();
}

static void check_text(const char *text, size_t room)
{
	require(strnlen(text, room) < room);
	for (; *text; text++)
		require(*text >= ' ' && *text <= '~');
}

static void check_line(
	struct audit_verifier *verifier, const char *line, size_t bytes, uint64_t *count)
{
	struct audit_record record, before;

	memset(&record, 0x77, sizeof record);
	before = record;
	if (audit_verify_line(verifier, line, bytes, &record) != SECPOOL_OK) {
		require(memcmp(&record, &before, sizeof record) == 0);
		return;
	}
	require(record.number == ++*count);
	check_text(record.kind, sizeof record.kind);
	check_text(record.tenant, sizeof record.tenant);
	check_text(record.device, sizeof record.device);
	check_text(record.error, sizeof record.error);
	check_text(record.detail, sizeof record.detail);
	check_text(record.sha256, sizeof record.sha256);
}

static EVP_PKEY *own_key(void)
{
	static EVP_PKEY *key;
	uint8_t scalar[ECDSA_PRIVATE_BYTES];

	memset(scalar, 0x42, sizeof scalar);
	if (!key)
		require(ecdsa_private(scalar, &key) == SECPOOL_OK);
	return key;
}

/* These bytes as a body, rightly signed: what stands in it is all that is left to refuse. */
static void check_signed(const char *body, size_t bytes)
{
	static unsigned char line[2 * LINE_MOST];
	uint8_t signature[ECDSA_SIGNATURE_BYTES_MOST];
	struct audit_anchor_facts facts;
	struct audit_line parts;
	size_t signature_bytes = 0, used = 0;

	if (bytes < 2 || bytes > LINE_MOST || body[0] != '{' || body[bytes - 1] != '}')
		return;
	require(ecdsa_sign(own_key(), body, bytes, signature, &signature_bytes) == SECPOOL_OK);
	memcpy(line, "{\"record\":", 10);
	memcpy(line + 10, body, bytes);
	used = 10 + bytes;
	memcpy(line + used, ",\"signature\":\"", 14);
	used += 14;
	used += (size_t)EVP_EncodeBlock(line + used, signature, (int)signature_bytes);
	memcpy(line + used, "\"}\n", 3);
	used += 3;
	if (audit_check_line((char *)line, used - 1, own_key(), &parts) == SECPOOL_OK) {
		require(parts.body_bytes == bytes && memcmp(parts.body, body, bytes) == 0);
		(void)audit_follows(&parts, 1, signature);
	}
	(void)!audit_read_anchor((char *)line, used, own_key(), &facts);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
	const char *anchor = (const char *)bytes, *at, *stop = anchor + count;
	size_t anchor_bytes = strnlen(anchor, count);
	struct audit_report report, before;
	struct audit_verifier *verifier = NULL;
	uint64_t records = 0;

	check_signed(anchor, anchor_bytes);
	at = anchor + anchor_bytes + (anchor_bytes < count);
	require(audit_verifier_new(NULL, count >= 100 && bytes[0] == 0 ? bytes : NULL, &verifier) ==
		SECPOOL_OK);
	while (at < stop) {
		const char *end = memchr(at, '\n', (size_t)(stop - at));
		size_t line = (size_t)((end ? end : stop) - at);

		check_line(verifier, at, line, &records);
		check_signed(at, line);
		at += line + (end != NULL);
	}
	memset(&report, 0x77, sizeof report);
	before = report;
	if (audit_verify_end(verifier, anchor, anchor_bytes, &report) != SECPOOL_OK)
		require(memcmp(&report, &before, sizeof report) == 0);
	else
		require(report.records == records && report.anchored <= records);
	audit_verifier_free(verifier);
	return 0;
}
