/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A signed audit for tests, made as the enclave makes it, with the signer of receipt_evidence.h: lines in memory, and every way to look at them. Threads: one.
 */
#ifndef SECPOOL_TESTS_UNIT_AUDIT_FIXTURE_H
#define SECPOOL_TESTS_UNIT_AUDIT_FIXTURE_H

#include "enclave/audit.h"
#include "enclave/audit_verify.h"
#include "tests/unit/receipt_evidence.h"

enum { LOG_BYTES_MOST = 1 << 16, LOG_LINES_MOST = 64 };

/* A file's bytes, with line ends. */
struct log {
	char text[LOG_BYTES_MOST];
	size_t bytes;
	bool full; /* every append is refused */
};

static struct log log_ __attribute__((unused));
static struct audit audit;

static inline EVP_PKEY *key_of(uint8_t byte)
{
	uint8_t scalar[ECDSA_PRIVATE_BYTES];
	EVP_PKEY *key = NULL;

	memset(scalar, byte, sizeof scalar);
	assert_int_equal(ecdsa_private(scalar, &key), SECPOOL_OK);
	return key;
}

/* The signer of host number `host`: other keys for each. */
static inline void make_signer(uint8_t host)
{
	uint8_t scalar[RECEIPT_KEY_BYTES];

	memset(scalar, 0x33 + host, sizeof scalar);
	assert_int_equal(receipt_signer_init(&signer, scalar), SECPOOL_OK);
	ek_key = key_of((uint8_t)(0x11 + host));
	ak_key = key_of((uint8_t)(0x22 + host));
	put_public(&signer.ek, ek_key, true);
	put_public(&signer.ak, ak_key, false);
	certify(&signer.certificate);
}

static inline void free_signer(void)
{
	receipt_signer_done(&signer);
	EVP_PKEY_free(ek_key);
	EVP_PKEY_free(ak_key);
}

static inline enum secpool_error append_line(void *arg, const char *line, bool wait)
{
	struct log *log = arg;
	size_t bytes = strlen(line);

	(void)wait;
	if (log->full)
		return err_set(SECPOOL_E_NO_SPACE, "the log is full");
	assert_true(log->bytes + bytes + 1 < sizeof log->text);
	memcpy(log->text + log->bytes, line, bytes);
	log->text[log->bytes + bytes] = '\n';
	log->bytes += bytes + 1;
	return SECPOOL_OK;
}

static inline void begin_log(void)
{
	memset(&log_, 0, sizeof log_);
	audit_init(&audit, &signer);
	audit.sink = append_line;
	audit.sink_arg = &log_;
}

static inline void keep(const struct audit_entry *entry)
{
	assert_int_equal(audit_keep(&audit, entry), SECPOOL_OK);
}

/* All of a file as the command looks at it. */
static inline enum secpool_error check_log(const char *text, size_t bytes, const char *anchor,
	const char *pem, const uint8_t *receipt, struct audit_report *ret_report)
{
	struct audit_verifier *verifier = NULL;
	struct audit_record record;
	enum secpool_error error = audit_verifier_new(pem, receipt, &verifier);

	while (!error && bytes > 0) {
		const char *end = memchr(text, '\n', bytes);

		if (!end) {
			error = err_set(SECPOOL_E_INTEGRITY, "torn");
			break;
		}
		error = audit_verify_line(verifier, text, (size_t)(end - text), &record);
		bytes -= (size_t)(end - text) + 1;
		text = end + 1;
	}
	if (!error)
		error = audit_verify_end(verifier, anchor, strlen(anchor), ret_report);
	audit_verifier_free(verifier);
	return error;
}

#endif
