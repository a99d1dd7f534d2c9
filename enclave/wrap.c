/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/wrap.h"

#include <openssl/crypto.h>
#include <string.h>

#include "enclave/kwp.h"
#include "enclave/secmem.h"
#include "lib/base/buf.h"

enum { SECRET_BYTES_MOST = 160 };
/* purpose, tenant, region, epoch, page size, length of the secret; then the secret */
enum { LABEL_BYTES = 4 + WRAP_TENANT_BYTES + 8 + 8 + 8 + 4 };
enum { RECORD_BYTES_MOST = LABEL_BYTES + SECRET_BYTES_MOST };

_Static_assert((int)WRAP_KEY_BYTES == (int)KWP_KEY_BYTES, "one wrapping key");
_Static_assert(RECORD_BYTES_MOST + KWP_ADDED_BYTES_MOST <= WRAP_BLOB_BYTES_MOST, "fits a blob");

static enum secpool_error put_label(
	struct buf_writer *w, const struct wrap_label *label, size_t secret_bytes)
{
	char tenant[WRAP_TENANT_BYTES] = {0};
	size_t tenant_bytes = strnlen(label->tenant, sizeof label->tenant);

	if (tenant_bytes == sizeof label->tenant || secret_bytes < 1 ||
		secret_bytes > SECRET_BYTES_MOST)
		return err_set(
			SECPOOL_E_INVALID, "a wrap label with %zu bytes of secret", secret_bytes);
	/* what stands behind the name's end is not part of the label */
	memcpy(tenant, label->tenant, tenant_bytes);
	buf_put_number(w, label->purpose, 4);
	buf_put(w, tenant, sizeof tenant);
	buf_put_number(w, label->region, 8);
	buf_put_number(w, label->epoch, 8);
	buf_put_number(w, label->page_bytes, 8);
	buf_put_number(w, secret_bytes, 4);
	return SECPOOL_OK;
}

enum secpool_error wrap_seal(const uint8_t *key, const struct wrap_label *label, const void *secret,
	size_t secret_bytes, uint8_t *blob, size_t *ret_blob_bytes)
{
	enum secpool_error error = SECPOOL_E_INTERNAL;
	struct buf_writer w = {
		.bytes = secmem_new(RECORD_BYTES_MOST), .capacity = RECORD_BYTES_MOST};

	if (!w.bytes)
		return err_set(SECPOOL_E_NO_LOCKED_MEMORY, "no secret memory to wrap a key in");
	error = put_label(&w, label, secret_bytes);
	if (error)
		goto out;
	buf_put(&w, secret, secret_bytes);
	if (w.failed) {
		error = err_set(SECPOOL_E_INTERNAL, "a wrapped record is too long");
		goto out;
	}
	error = kwp_seal(key, w.bytes, w.used, blob, ret_blob_bytes);
out:
	secmem_free(w.bytes);
	return error;
}

enum secpool_error wrap_open(const uint8_t *key, const struct wrap_label *label,
	const uint8_t *blob, size_t blob_bytes, void *ret_secret, size_t secret_bytes)
{
	enum secpool_error error = SECPOOL_E_INTERNAL;
	uint8_t expect[LABEL_BYTES];
	struct buf_writer w = {.bytes = expect, .capacity = sizeof expect};
	size_t opened_bytes = 0;
	uint8_t *opened = NULL;

	error = put_label(&w, label, secret_bytes);
	if (error)
		return error;
	if (blob_bytes > WRAP_BLOB_BYTES_MOST)
		return err_set(SECPOOL_E_KEY_GONE, "a wrapped key of %zu bytes", blob_bytes);
	opened = secmem_new(WRAP_BLOB_BYTES_MOST);
	if (!opened)
		return err_set(SECPOOL_E_NO_LOCKED_MEMORY, "no secret memory to unwrap a key in");
	error = kwp_open(key, blob, blob_bytes, opened, &opened_bytes);
	if (error)
		goto out;
	if (opened_bytes != LABEL_BYTES + secret_bytes ||
		CRYPTO_memcmp(opened, expect, LABEL_BYTES) != 0) {
		error = err_set(SECPOOL_E_KEY_GONE, "a wrapped key does not open");
		goto out;
	}
	memcpy(ret_secret, opened + LABEL_BYTES, secret_bytes);
	error = SECPOOL_OK;
out:
	secmem_free(opened);
	return error;
}

/* The record in a blob, in new secret memory; the caller frees it. */
static enum secpool_error open_record(const uint8_t *key, const uint8_t *blob, size_t blob_bytes,
	uint8_t **ret_record, size_t *ret_bytes)
{
	enum secpool_error error = SECPOOL_E_INTERNAL;
	uint8_t *record = NULL;
	size_t bytes = 0;

	if (blob_bytes == 0 || blob_bytes > WRAP_BLOB_BYTES_MOST)
		return err_set(SECPOOL_E_KEY_GONE, "a wrapped key of %zu bytes", blob_bytes);
	record = secmem_new(WRAP_BLOB_BYTES_MOST);
	if (!record)
		return err_set(SECPOOL_E_NO_LOCKED_MEMORY, "no secret memory to unwrap a key in");
	error = kwp_open(key, blob, blob_bytes, record, &bytes);
	if (!error && (bytes <= LABEL_BYTES || bytes > RECORD_BYTES_MOST))
		error = err_set(SECPOOL_E_KEY_GONE, "a wrapped key does not open");
	if (error) {
		secmem_free(record);
		return error;
	}
	*ret_record = record;
	*ret_bytes = bytes;
	return SECPOOL_OK;
}

enum secpool_error wrap_read_label(
	const uint8_t *key, const uint8_t *blob, size_t blob_bytes, struct wrap_label *ret_label)
{
	struct wrap_label label;
	struct buf_reader r = {.count = 0};
	uint8_t *record = NULL;
	enum secpool_error error = open_record(key, blob, blob_bytes, &record, &r.count);

	if (error)
		return error;
	r.bytes = record;
	label.purpose = (enum wrap_purpose)buf_get_number(&r, 4);
	buf_get(&r, label.tenant, sizeof label.tenant);
	label.region = buf_get_number(&r, 8);
	label.epoch = buf_get_number(&r, 8);
	label.page_bytes = buf_get_number(&r, 8);
	if (r.failed || label.tenant[sizeof label.tenant - 1] != '\0')
		error = err_set(SECPOOL_E_KEY_GONE, "a wrapped key does not open");
	else
		*ret_label = label;
	secmem_free(record);
	return error;
}

enum secpool_error wrap_move(const uint8_t *key, const uint8_t *new_key, const uint8_t *blob,
	size_t blob_bytes, uint8_t *new_blob)
{
	uint8_t *record = NULL;
	size_t bytes = 0, moved = 0;
	enum secpool_error error = open_record(key, blob, blob_bytes, &record, &bytes);

	if (error)
		return error;
	error = kwp_seal(new_key, record, bytes, new_blob, &moved);
	if (!error && moved != blob_bytes)
		error = err_set(SECPOOL_E_INTERNAL, "a wrapped key changed its length");
	secmem_free(record);
	return error;
}
