/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/wrap.h"

#include <openssl/crypto.h>
#include <string.h>

#include "enclave/kwp.h"
#include "enclave/secmem.h"
#include "lib/base/buf.h"

enum { SECRET_BYTES_MOST = 128 };
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
