/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/eventlog.h"

#include <openssl/evp.h>
#include <string.h>

enum { SHA1_BYTES = 20, SHA256_BYTES = 32, ALG_SHA256 = 0x000b, EV_NO_ACTION = 3 };

/* What is written so far; full: something did not fit. */
struct writer {
	uint8_t *log;
	size_t used;
	int full;
};

static void put(struct writer *writer, const void *bytes, size_t count)
{
	if (count > EVENTLOG_BYTES_MOST - writer->used) {
		writer->full = 1;
		return;
	}
	memcpy(writer->log + writer->used, bytes, count);
	writer->used += count;
}

/* Little endian, whatever the machine. */
static void put_number(struct writer *writer, uint32_t number, size_t bytes)
{
	uint8_t text[4];

	for (size_t i = 0; i < bytes; i++)
		text[i] = (uint8_t)(number >> (8 * i));
	put(writer, text, bytes);
}

/* A TCG_PCClientPCREvent of SHA-1's time that holds a TCG_EfiSpecIdEvent: what comes behind has SHA-256 digests. */
static void put_header(struct writer *writer)
{
	static const uint8_t zero[SHA1_BYTES];
	static const char signature[16] = "Spec ID Event03";
	struct writer inner = {.log = (uint8_t[64]){0}};

	put(&inner, signature, sizeof signature);
	put_number(&inner, 0, 4); /* platform class: client */
	put_number(&inner, 0, 1); /* minor version */
	put_number(&inner, 2, 1); /* major version */
	put_number(&inner, 0, 1); /* errata */
	put_number(&inner, 2, 1); /* size of a UINTN: 64 bits */
	put_number(&inner, 1, 4); /* one algorithm */
	put_number(&inner, ALG_SHA256, 2);
	put_number(&inner, SHA256_BYTES, 2);
	put_number(&inner, 0, 1); /* no vendor information */
	put_number(writer, 0, 4);
	put_number(writer, EV_NO_ACTION, 4);
	put(writer, zero, sizeof zero);
	put_number(writer, (uint32_t)inner.used, 4);
	put(writer, inner.log, inner.used);
}

enum secpool_error eventlog_make(
	const struct eventlog_event *events, size_t count, uint8_t *log, size_t *ret_bytes)
{
	struct writer writer = {.log = log};

	put_header(&writer);
	for (size_t i = 0; i < count; i++) {
		const struct eventlog_event *event = &events[i];
		uint8_t digest[SHA256_BYTES];
		size_t bytes = strlen(event->text);

		if (EVP_Digest(event->text, bytes, digest, NULL, EVP_sha256(), NULL) != 1)
			return err_set(SECPOOL_E_CRYPTO, "SHA-256 failed");
		put_number(&writer, event->pcr, 4);
		put_number(&writer, event->type, 4);
		put_number(&writer, 1, 4);
		put_number(&writer, ALG_SHA256, 2);
		put(&writer, digest, sizeof digest);
		put_number(&writer, (uint32_t)bytes, 4);
		put(&writer, event->text, bytes);
	}
	if (writer.full)
		return err_set(
			SECPOOL_E_LIMIT, "an event log of more than %d bytes", EVENTLOG_BYTES_MOST);
	*ret_bytes = writer.used;
	return SECPOOL_OK;
}
