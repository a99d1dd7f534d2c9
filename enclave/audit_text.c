/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/audit_text.h"

#include <stdio.h>
#include <string.h>

#include "enclave/audit.h"
#include "enclave/document.h"
#include "enclave/receipt_text.h"

static const char opening[] = "{\"record\":{", middle[] = "},\"signature\":\"", closing[] = "\"}";

enum {
	OPENING = sizeof opening - 1,
	MIDDLE = sizeof middle - 1,
	CLOSING = sizeof closing - 1,
	/* base64 of the longest signature, and what EVP_DecodeBlock makes of it */
	BASE64_MOST = (ECDSA_SIGNATURE_BYTES_MOST + 2) / 3 * 4,
	DECODED_MOST = BASE64_MOST / 4 * 3,
};

static enum secpool_error malformed(void)
{
	return err_set(SECPOOL_E_PROTOCOL, "it is not a signed line of an audit");
}

/* Strict: EVP_DecodeBlock takes several spellings of the same bytes. */
static bool decode(const char *text, size_t chars, struct audit_line *line)
{
	unsigned char raw[DECODED_MOST], again[BASE64_MOST + 1];
	int count, bytes;

	if (chars == 0 || chars % 4 != 0 || chars > BASE64_MOST)
		return false;
	count = EVP_DecodeBlock(raw, (const unsigned char *)text, (int)chars);
	if (count < 0)
		return false;
	bytes = count - (text[chars - 1] == '=') - (text[chars - 2] == '=');
	if (bytes <= 0 || bytes > ECDSA_SIGNATURE_BYTES_MOST ||
		EVP_EncodeBlock(again, raw, bytes) != (int)chars ||
		strncmp((const char *)again, text, chars) != 0)
		return false;
	memcpy(line->signature, raw, (size_t)bytes);
	line->signature_bytes = (size_t)bytes;
	return true;
}

enum secpool_error audit_split(const char *line, size_t bytes, struct audit_line *ret_line)
{
	struct audit_line found = {.body = line + OPENING - 1};
	const char *end = line + bytes - CLOSING, *at;

	if (bytes < OPENING + MIDDLE + CLOSING || memchr(line, '\0', bytes) ||
		memchr(line, '\n', bytes) || strncmp(line, opening, OPENING) != 0 ||
		strncmp(end, closing, CLOSING) != 0)
		return malformed();
	/* base64 has no quote: the last one before the end opens the signature */
	for (at = end; at > line && at[-1] != '"'; at--)
		;
	if (at < line + OPENING + MIDDLE || strncmp(at - MIDDLE, middle, MIDDLE) != 0 ||
		!decode(at, (size_t)(end - at), &found))
		return malformed();
	found.body_bytes = (size_t)(at - MIDDLE + 1 - found.body);
	*ret_line = found;
	return SECPOOL_OK;
}

enum secpool_error audit_check_line(
	const char *line, size_t bytes, EVP_PKEY *key, struct audit_line *ret_line)
{
	struct audit_line found;
	enum secpool_error error = audit_split(line, bytes, &found);

	if (error)
		return error;
	if (ecdsa_verify(key, found.body, found.body_bytes, found.signature, found.signature_bytes))
		return err_set(SECPOOL_E_INTEGRITY,
			"it was changed, or another enclave signed it: its signature does not "
			"match");
	*ret_line = found;
	return SECPOOL_OK;
}

bool audit_follows(const struct audit_line *line, uint64_t number, const uint8_t previous[32])
{
	char hex[2 * AUDIT_DIGEST_BYTES + 1], text[160];
	int count;

	receipt_hex(previous, AUDIT_DIGEST_BYTES, hex);
	count = snprintf(text, sizeof text, "{\"audit\":1,\"number\":%llu,\"previous\":\"%s\",",
		(unsigned long long)number, hex);
	return count > 0 && (size_t)count < line->body_bytes &&
	       strncmp(line->body, text, (size_t)count) == 0;
}

/* The signature says that the enclave wrote it; written again it must be the same, so that nothing was read wrongly. */
static bool read_facts(const struct audit_line *line, struct audit_anchor_facts *ret_facts)
{
	char body[AUDIT_ANCHOR_BYTES], again[AUDIT_ANCHOR_BYTES], hex[2 * AUDIT_DIGEST_BYTES + 1];
	unsigned long long records, bytes, time_ns;
	struct audit_anchor_facts facts;

	if (line->body_bytes >= sizeof body)
		return false;
	memcpy(body, line->body, line->body_bytes);
	body[line->body_bytes] = '\0';
	/* lint: the width in the format is that of hex without its NUL */
	if (sscanf(body,
		    "{\"audit-anchor\":1,\"records\":%llu,\"bytes\":%llu,\"head\":\"%64[0-9a-f]"
		    "\",\"time_ns\":%llu}",
		    &records, &bytes, hex, &time_ns) != 4)
		return false;
	snprintf(again, sizeof again, AUDIT_ANCHOR_FORMAT, records, bytes, hex, time_ns);
	if (strcmp(again, body) != 0 || strlen(hex) != 2 * AUDIT_DIGEST_BYTES)
		return false;
	for (size_t i = 0; i < AUDIT_DIGEST_BYTES; i++) {
		unsigned byte = 0;

		if (sscanf(hex + 2 * i, "%2x", &byte) != 1)
			return false;
		facts.head[i] = (uint8_t)byte;
	}
	facts.records = records;
	facts.bytes = bytes;
	facts.time_ns = time_ns;
	*ret_facts = facts;
	return true;
}

enum secpool_error audit_read_anchor(
	const char *text, size_t bytes, EVP_PKEY *key, struct audit_anchor_facts *ret_facts)
{
	struct audit_line line;
	enum secpool_error error;

	if (bytes == 0 || bytes > AUDIT_ANCHOR_BYTES || text[bytes - 1] != '\n')
		return malformed();
	error = audit_check_line(text, bytes - 1, key, &line);
	if (error)
		return error;
	return read_facts(&line, ret_facts) ? SECPOOL_OK : malformed();
}
