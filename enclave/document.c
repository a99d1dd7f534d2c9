/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/document.h"

#include <openssl/evp.h>
#include <stdarg.h>
#include <stdio.h>

void document_add(struct document *document, const char *format, ...)
{
	size_t left = document->room - document->used;
	va_list args;
	int count;

	if (document->failed)
		return;
	va_start(args, format);
	count = vsnprintf(document->at + document->used, left, format, args);
	va_end(args);
	if (count < 0 || (size_t)count >= left)
		document->failed = true;
	else
		document->used += (size_t)count;
}

/* EVP_EncodeBlock writes 4 characters for each 3 bytes begun, and a NUL. */
void document_base64(struct document *document, const uint8_t *bytes, size_t count)
{
	document_add(document, "\"");
	if (document->failed || (count + 2) / 3 * 4 + 1 > document->room - document->used) {
		document->failed = true;
		return;
	}
	document->used += (size_t)EVP_EncodeBlock(
		(unsigned char *)document->at + document->used, bytes, (int)count);
	document_add(document, "\"");
}

void document_string(struct document *document, const char *text)
{
	document_add(document, "\"");
	for (; *text; text++) {
		bool plain = *text >= ' ' && *text <= '~';

		document_add(document, *text == '"' || *text == '\\' ? "\\%c" : "%c",
			plain ? *text : '?');
	}
	document_add(document, "\"");
}

enum secpool_error document_check_signer(const struct receipt_signer *signer)
{
	const struct tpm_quote *quote = &signer->certificate;

	if (!signer->key || signer->ek.bytes > TPM_PUBLIC_BYTES ||
		signer->ak.bytes > TPM_PUBLIC_BYTES || quote->attest_bytes > TPM_ATTEST_BYTES ||
		quote->signature_bytes > TPM_SIGNATURE_BYTES || quote->pcr_count > TPM_PCRS_MOST)
		return err_set(SECPOOL_E_INVALID, "the receipt signer is not set up");
	return SECPOOL_OK;
}

static void add_member(struct document *document, const char *before, const char *name,
	const uint8_t *bytes, size_t count)
{
	document_add(document, "%s\"%s\":", before, name);
	document_base64(document, bytes, count);
}

void document_certificate(struct document *document, const struct receipt_signer *signer,
	const uint8_t spki[ECDSA_SPKI_BYTES], const char *before)
{
	const struct tpm_quote *quote = &signer->certificate;

	add_member(document, before, "key", spki, ECDSA_SPKI_BYTES);
	add_member(document, before, "ek", signer->ek.area, signer->ek.bytes);
	add_member(document, before, "ak", signer->ak.area, signer->ak.bytes);
	add_member(document, before, "attest", quote->attest, quote->attest_bytes);
	add_member(document, before, "attest_signature", quote->signature, quote->signature_bytes);
	add_member(
		document, before, "pcrs", quote->pcr_values[0], quote->pcr_count * TPM_PCR_BYTES);
}
