/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys at rest: AES-256 key wrap with padding (RFC 5649 section 4, NIST SP 800-38F section 6.3: KWP) around a record that names what the key is for, so
 * that a wrapped key put in another's place is refused. All plaintext stays in secret memory. Threads: any.
 */
#ifndef SECPOOL_ENCLAVE_WRAP_H
#define SECPOOL_ENCLAVE_WRAP_H

#include <stddef.h>
#include <stdint.h>

#include "enclave/keypage.h"
#include "lib/base/err.h"

enum { WRAP_KEY_BYTES = 32, WRAP_BLOB_BYTES_MOST = 320, WRAP_TENANT_BYTES = 64 };

/* RECOVERY_PUBLIC: no secret, wrapped to vouch for it; SEALED: of a sealed region, its owner's; GRANTED: the same below another tenant (docs/sealed.md) */
enum wrap_purpose { WRAP_NODE_KEY = 1, WRAP_REGION_KEYS = 2, WRAP_SIGNING_KEY = 3, WRAP_RECOVERY_PUBLIC = 4, WRAP_SEALED_KEYS = 5, WRAP_GRANTED_KEYS = 6 };

/* What is wrapped beside the key, and compared after unwrapping. Fields that a purpose does not use are 0. */
struct wrap_label {
	enum wrap_purpose purpose;
	char tenant[WRAP_TENANT_BYTES];
	uint64_t region;
	uint64_t epoch;
	uint64_t page_bytes;
};

/*
 * key: WRAP_KEY_BYTES, secret. secret: what to wrap, 1 to 160 bytes, secret. blob: WRAP_BLOB_BYTES_MOST bytes.
 * Errors: SECPOOL_E_INVALID (length, or a tenant without its NUL), SECPOOL_E_NO_LOCKED_MEMORY, SECPOOL_E_CRYPTO.
 */
enum secpool_error wrap_seal(const uint8_t *key, const struct wrap_label *label, const void *secret, size_t secret_bytes, uint8_t *blob, size_t *ret_blob_bytes) MUST_USE;

/*
 * secret_bytes: exactly what was wrapped; ret_secret in secret memory, untouched on error.
 * Errors: SECPOOL_E_KEY_GONE (wrong key, changed blob, other label or length: not told apart).
 */
enum secpool_error wrap_open(const uint8_t *key, const struct wrap_label *label, const uint8_t *blob, size_t blob_bytes, void *ret_secret, size_t secret_bytes) MUST_USE;

/*
 * What a blob under key is for. Errors: SECPOOL_E_KEY_GONE (wrong key, changed blob, not a record of wrap_seal), SECPOOL_E_NO_LOCKED_MEMORY, SECPOOL_E_CRYPTO.
 */
enum secpool_error wrap_read_label(const uint8_t *key, const uint8_t *blob, size_t blob_bytes, struct wrap_label *ret_label) MUST_USE;

/*
 * The same record, label and secret, under another key. new_blob: WRAP_BLOB_BYTES_MOST bytes; it is as long as blob.
 * Errors: as wrap_read_label.
 */
enum secpool_error wrap_move(const uint8_t *key, const uint8_t *new_key, const uint8_t *blob, size_t blob_bytes, uint8_t *new_blob) MUST_USE;

#endif
