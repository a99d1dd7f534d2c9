/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checks an audit file line by line, offline, on untrusted bytes: signatures, the chain, the key's certificates, and the anchor, which shows the loss of records at the end.
 * Threads: one at a time for each verifier.
 */
#ifndef SECPOOL_ENCLAVE_AUDIT_VERIFY_H
#define SECPOOL_ENCLAVE_AUDIT_VERIFY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "enclave/audit.h"
#include "lib/base/err.h"
#include "lib/wire/msg.h"

/* What a record says, for showing; numbers that it does not have are 0, texts "". */
struct audit_record {
	uint64_t number, time_ns, missed;
	uint64_t session, region, epoch, generation, bytes, receipt;
	bool by_front, has_peer;
	uint64_t uid, pid;
	char kind[32], tenant[MSG_NAME_BYTES], device[MSG_NAME_BYTES], error[40];
	char detail[2 * ERR_DETAIL_BYTES];
	char sha256[2 * AUDIT_DIGEST_BYTES + 1]; /* of a receipt, of a start's policy file */
};

/* What was found in a whole file that is good. */
struct audit_report {
	uint64_t records, anchored; /* those behind the first `anchored` are unanchored: their removal would not be seen */
	uint64_t missed;            /* that the enclave says were not kept: refusals beyond the limit, or no room */
	uint64_t starts;
	uint64_t anchor_ns;         /* when the anchor was made */
	char head[2 * AUDIT_DIGEST_BYTES + 1];
	char ak_fingerprint[65];    /* of the last start's attestation key */
	bool receipt_found;
};

struct audit_verifier;

/*
 * anchor_pem: the host's attestation key as the operator knows it (NULL: none). receipt: SHA-256 of a receipt that must be in the audit, AUDIT_DIGEST_BYTES (NULL: none). Both are borrowed.
 * Errors: SECPOOL_E_NO_MEMORY.
 */
enum secpool_error audit_verifier_new(const char *anchor_pem, const uint8_t *receipt, struct audit_verifier **ret_verifier) MUST_USE;
void audit_verifier_free(struct audit_verifier *verifier);

/* The next line, without its line end. Errors: SECPOOL_E_INTEGRITY with the record's number and what is wrong; nothing behind it can be told. */
enum secpool_error audit_verify_line(struct audit_verifier *verifier, const char *line, size_t bytes, struct audit_record *ret_record) MUST_USE;

/*
 * The end of the file, with the text of audit.anchor. Errors: SECPOOL_E_INTEGRITY: records are missing at the end, the anchor is of another audit, no start is certified by anchor_pem, the
 * receipt is not there.
 */
enum secpool_error audit_verify_end(struct audit_verifier *verifier, const char *anchor, size_t anchor_bytes, struct audit_report *ret_report) MUST_USE;

#endif
