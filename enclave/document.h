/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Signed JSON documents (receipts, records of the audit): their text as the enclave writes it, and their members as the command reads them from untrusted bytes. The two
 * halves share no code but the words: the enclave runs no parser.
 * Threads: any; no state.
 */
#ifndef SECPOOL_ENCLAVE_DOCUMENT_H
#define SECPOOL_ENCLAVE_DOCUMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "enclave/ecdsa.h"
#include "enclave/receipt.h"
#include "enclave/tpm.h"
#include "lib/base/err.h"

struct json_object;

enum {
	DOCUMENT_BYTES_MOST = RECEIPT_DOCUMENT_BYTES,
	DOCUMENT_FINGERPRINT_BYTES = 65, /* of an attestation key: hex SHA-256 of its SubjectPublicKeyInfo, and a NUL */
	DOCUMENT_PEM_BYTES = 512,        /* of its public key */
};

/* ---- writing ---- */

/* The text as it grows, NUL-terminated: one that did not fit stays failed. */
struct document {
	char *at;
	size_t room; /* bytes at `at` */
	size_t used; /* without the NUL */
	bool failed;
};

void document_add(struct document *document, const char *format, ...) PRINTF_LIKE(2, 3);

/* Bytes as a JSON string in base64 (RFC 4648, section 4), with its quotes. */
void document_base64(struct document *document, const uint8_t *bytes, size_t count);

/* A text as a JSON string (RFC 8259, section 7), with its quotes; what is not printable ASCII becomes '?'. */
void document_string(struct document *document, const char *text);

/* Whether the signer has what document_certificate states. Errors: SECPOOL_E_INVALID. */
enum secpool_error document_check_signer(const struct receipt_signer *signer) MUST_USE;

/* The members key, ek, ak, attest, attest_signature and pcrs, each with `before` (a comma, and perhaps a line end) in front. spki: the signer's public key. */
void document_certificate(struct document *document, const struct receipt_signer *signer,
	const uint8_t spki[ECDSA_SPKI_BYTES], const char *before);

/* ---- reading ---- */

/* The members of document_certificate, still unbelieved. */
struct document_certificate {
	uint8_t spki[ECDSA_SPKI_BYTES];
	size_t spki_bytes;
	struct tpm_public ek, ak;
	struct tpm_quote quote;
	uint32_t pcr_mask;
};

/* One JSON object with nothing behind it; NULL for anything else. The caller puts it. */
struct json_object *document_parse(const char *text, size_t bytes);

/* A member that is a string without a NUL inside; NULL if there is none. Borrowed. */
const char *document_text(struct json_object *object, const char *name);

/* A string of printable ASCII, shorter than room, into to. */
bool document_copy_text(struct json_object *object, const char *name, char *to, size_t room);

/* A whole number that is not negative. */
bool document_number(struct json_object *object, const char *name, uint64_t *ret_number);

/* A string in base64 of at most `room` bytes. */
bool document_bytes(struct json_object *object, const char *name, uint8_t *to, size_t room, size_t *ret_bytes);

/* A string of 64 lower-case hexadecimal digits; to: 32 bytes. */
bool document_digest(struct json_object *object, const char *name, uint8_t *to);

/* False when a member is missing or malformed. */
bool document_take_certificate(struct json_object *object, struct document_certificate *ret_certificate);

/* Whether the host's TPM vouches for the key: its quote is over the key's SHA-256. what: whose key, for the sentence. Errors: SECPOOL_E_INTEGRITY. */
enum secpool_error document_check_certificate(const struct document_certificate *certificate, const char *what) MUST_USE;

/*
 * The attestation key's fingerprint, and whether it is the one in anchor_pem (NULL: true). Errors: SECPOOL_E_INTEGRITY for a key, or an anchor, that is none.
 */
enum secpool_error document_check_anchor(const struct document_certificate *certificate, const char *anchor_pem,
	char ret_fingerprint[DOCUMENT_FINGERPRINT_BYTES], bool *ret_is_anchor) MUST_USE;

#endif
