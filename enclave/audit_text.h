/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The outer form of a signed line, which its writer (audit.c), the start (audit_resume.c) and its reader (audit_verify.c) share: {"record":BODY,"signature":"BASE64"}. The
 * signature is over BODY's bytes as they stand. Threads: any.
 */
#ifndef SECPOOL_ENCLAVE_AUDIT_TEXT_H
#define SECPOOL_ENCLAVE_AUDIT_TEXT_H

#include <openssl/evp.h>
#include <stddef.h>
#include <stdint.h>

#include "enclave/ecdsa.h"

/* The beginnings of the two bodies: no receipt's body begins so, though one key signs all three. */
#define AUDIT_RECORD_FORMAT "{\"audit\":1,\"number\":%llu,\"previous\":\"%s\",\"time_ns\":%llu"
#define AUDIT_ANCHOR_FORMAT "{\"audit-anchor\":1,\"records\":%llu,\"bytes\":%llu,\"head\":\"%s\",\"time_ns\":%llu}"

/* The parts of a line; body points into it. */
struct audit_line {
	const char *body;
	size_t body_bytes;
	uint8_t signature[ECDSA_SIGNATURE_BYTES_MOST];
	size_t signature_bytes;
};

/* What an anchor says. */
struct audit_anchor_facts {
	uint64_t records, bytes, time_ns;
	uint8_t head[32];
};

/* Takes a line (without its line end) apart. Every other spelling of the same is refused. Errors: SECPOOL_E_PROTOCOL. */
enum secpool_error audit_split(const char *line, size_t bytes, struct audit_line *ret_line) MUST_USE;

/* A line that is signed by key. Errors: SECPOOL_E_PROTOCOL, SECPOOL_E_INTEGRITY. */
enum secpool_error audit_check_line(const char *line, size_t bytes, EVP_PKEY *key, struct audit_line *ret_line) MUST_USE;

/* The anchor in a text, if key signed it. Errors: SECPOOL_E_PROTOCOL, SECPOOL_E_INTEGRITY. */
enum secpool_error audit_read_anchor(const char *text, size_t bytes, EVP_PKEY *key, struct audit_anchor_facts *ret_facts) MUST_USE;

/* Whether the body is that of record `number`, behind a record with this digest. */
bool audit_follows(const struct audit_line *line, uint64_t number, const uint8_t previous[32]);

#endif
