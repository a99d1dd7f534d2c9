/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/anchor_root.h"

#include <string.h>

#include "enclave/secmem.h"
#include "lib/base/os.h"

/*
 * Sealed: the root key, the counter's authorisation, the audit log's head, its records and bytes, the base, what was asserted, and whether there is a recovery key: 128 bytes, which is what a TPM seals (MAX_SYM_DATA). So a generation
 * that was asserted has 7 of them.
 * For the recovery key: the root key, the audit's head, its records and bytes, the generation, what was asserted.
 */
enum {
	ASSERTED_BYTES = 7,
	SEALED_BYTES = WRAP_KEY_BYTES + TPM_COUNTER_AUTH_BYTES + ANCHOR_AUDIT_BYTES + 8 + 8 + 8 +
		       ASSERTED_BYTES + 1,
	RECOVERED_BYTES = WRAP_KEY_BYTES + ANCHOR_AUDIT_BYTES + 8 + 8 + 8 + 8,
};
_Static_assert(SEALED_BYTES <= 128, "a TPM seals it");
_Static_assert((int)RECOVERED_BYTES <= (int)RECOVERY_PLAIN_BYTES_MOST, "it can be encrypted");
_Static_assert(
	4 + WRAP_BLOB_BYTES_MOST + RECOVERY_BLOB_BYTES_MOST <= KEYFILE_RECOVERY_MOST, "it fits");

static const struct wrap_label public_label = {.purpose = WRAP_RECOVERY_PUBLIC};

static enum secpool_error no_memory(void)
{
	return err_set(SECPOOL_E_NO_LOCKED_MEMORY, "no secret memory for the root key");
}

/* ---- for the TPM ---- */

static enum secpool_error seal(struct anchor *anchor, const uint8_t *root,
	const struct keyfile_root *file, uint8_t blob[TPM_BLOB_BYTES], size_t *ret_bytes)
{
	const struct tpm_counter counter = {
		file->counter_index, file->first - file->base, file->last - file->base};
	struct buf_writer w = {.bytes = secmem_new(SEALED_BYTES), .capacity = SEALED_BYTES};
	enum secpool_error error;

	if (!w.bytes)
		return no_memory();
	if (anchor->asserted >> (8 * ASSERTED_BYTES) != 0) { /* less of it would say less */
		secmem_free(w.bytes);
		return err_set(SECPOOL_E_LIMIT, "generation %llu has no room in a sealed root",
			(unsigned long long)anchor->asserted);
	}
	buf_put(&w, root, WRAP_KEY_BYTES);
	buf_put(&w, anchor->auth, TPM_COUNTER_AUTH_BYTES);
	buf_put(&w, anchor->audit_head, sizeof anchor->audit_head);
	buf_put_number(&w, anchor->audit_count, 8);
	buf_put_number(&w, anchor->audit_bytes, 8);
	buf_put_number(&w, anchor->base, 8);
	buf_put_number(&w, anchor->asserted, ASSERTED_BYTES);
	buf_put_number(&w, anchor->has_recovery, 1);
	error = tpm_seal(
		anchor->tpm, anchor->pcrs, &counter, w.bytes, SEALED_BYTES, blob, ret_bytes);
	secmem_free(w.bytes);
	return error;
}

/* The public half that this generation's root vouches for: nobody can put another there. */
static enum secpool_error take_public(
	struct anchor *anchor, const struct keyfile_root *file, const uint8_t *root)
{
	struct buf_reader r = {.bytes = file->recovery, .count = file->recovery_bytes};
	size_t bytes = (size_t)buf_get_number(&r, 4);
	uint8_t *public = secmem_new(RECOVERY_PUBLIC_BYTES);
	enum secpool_error error = SECPOOL_E_KEY_GONE;

	if (!public)
		return no_memory();
	if (!r.failed && bytes <= r.count - r.used)
		error = wrap_open(root, &public_label, r.bytes + r.used, bytes, public,
			RECOVERY_PUBLIC_BYTES);
	if (!error)
		memcpy(anchor->recovery_public, public, RECOVERY_PUBLIC_BYTES);
	secmem_free(public);
	if (error == SECPOOL_E_KEY_GONE)
		error = err_set(SECPOOL_E_STORE,
			"what it has for the recovery key was changed: put its backup back");
	return error;
}

enum secpool_error anchor_root_unseal(
	struct anchor *anchor, const struct keyfile_root *file, uint8_t **ret_root)
{
	const struct tpm_counter counter = {
		file->counter_index, file->first - file->base, file->last - file->base};
	struct buf_reader r = {.count = SEALED_BYTES};
	uint8_t *sealed = secmem_new(SEALED_BYTES), *root = secmem_new(WRAP_KEY_BYTES);
	enum secpool_error error;

	if (!sealed || !root) {
		error = no_memory();
		goto out;
	}
	error = tpm_unseal(
		anchor->tpm, &counter, file->blob, file->blob_bytes, sealed, SEALED_BYTES);
	if (error)
		goto out;
	r.bytes = sealed;
	buf_get(&r, root, WRAP_KEY_BYTES);
	buf_get(&r, anchor->auth, TPM_COUNTER_AUTH_BYTES);
	buf_get(&r, anchor->audit_head, sizeof anchor->audit_head);
	anchor->audit_count = buf_get_number(&r, 8);
	anchor->audit_bytes = buf_get_number(&r, 8);
	anchor->base = buf_get_number(&r, 8);
	anchor->asserted = buf_get_number(&r, ASSERTED_BYTES);
	anchor->has_recovery = buf_get_number(&r, 1) != 0;
	if (anchor->base != file->base)
		error = err_set(SECPOOL_E_STORE, "its head was changed: put its backup back");
	if (!error && anchor->has_recovery)
		error = take_public(anchor, file, root);
	if (error)
		goto out;
	*ret_root = root;
	root = NULL;
out:
	secmem_free(sealed);
	secmem_free(root);
	return error;
}

/* ---- for the recovery key ---- */

/* recovery: KEYFILE_RECOVERY_MOST bytes. */
static enum secpool_error encrypt(struct anchor *anchor, const uint8_t *root, uint64_t generation,
	uint8_t *recovery, size_t *ret_bytes)
{
	uint8_t wrapped[WRAP_BLOB_BYTES_MOST], blob[RECOVERY_BLOB_BYTES_MOST];
	struct buf_writer to = {.bytes = recovery, .capacity = KEYFILE_RECOVERY_MOST};
	struct buf_writer w = {.bytes = secmem_new(RECOVERED_BYTES), .capacity = RECOVERED_BYTES};
	size_t wrapped_bytes = 0, blob_bytes = 0;
	enum secpool_error error;

	if (!w.bytes)
		return no_memory();
	buf_put(&w, root, WRAP_KEY_BYTES);
	buf_put(&w, anchor->audit_head, sizeof anchor->audit_head);
	buf_put_number(&w, anchor->audit_count, 8);
	buf_put_number(&w, anchor->audit_bytes, 8);
	buf_put_number(&w, generation, 8);
	buf_put_number(&w, anchor->asserted, 8);
	error = recovery_seal(anchor->recovery_public, w.bytes, RECOVERED_BYTES, blob, &blob_bytes);
	secmem_free(w.bytes);
	if (!error)
		error = wrap_seal(root, &public_label, anchor->recovery_public,
			RECOVERY_PUBLIC_BYTES, wrapped, &wrapped_bytes);
	if (error)
		return error;
	buf_put_number(&to, wrapped_bytes, 4);
	buf_put(&to, wrapped, wrapped_bytes);
	buf_put(&to, blob, blob_bytes);
	*ret_bytes = to.used;
	return SECPOOL_OK;
}

enum secpool_error anchor_root_seal(struct anchor *anchor, const uint8_t *root, uint64_t first,
	uint64_t last, struct buf_writer *writer)
{
	uint8_t blob[TPM_BLOB_BYTES], recovery[KEYFILE_RECOVERY_MOST];
	struct keyfile_root file = {.counter_index = anchor->counter_index,
		.first = first,
		.last = last,
		.base = anchor->base,
		.blob = blob,
		.recovery = recovery};
	enum secpool_error error = seal(anchor, root, &file, blob, &file.blob_bytes);

	if (!error && anchor->has_recovery)
		error = encrypt(anchor, root, last, recovery, &file.recovery_bytes);
	if (!error)
		keyfile_begin_root(writer, &file);
	return error;
}

enum secpool_error anchor_root_recover(struct anchor *anchor, const struct keyfile_root *file,
	const uint8_t *key, uint8_t **ret_root)
{
	struct buf_reader at = {.bytes = file->recovery, .count = file->recovery_bytes};
	size_t wrapped_bytes = (size_t)buf_get_number(&at, 4);
	struct buf_reader r = {.count = RECOVERED_BYTES};
	uint8_t *opened = secmem_new(RECOVERED_BYTES), *root = secmem_new(WRAP_KEY_BYTES);
	enum secpool_error error;

	if (!opened || !root) {
		error = no_memory();
		goto out;
	}
	if (at.failed || wrapped_bytes > at.count - at.used) {
		error = err_set(SECPOOL_E_KEY_GONE, "the store has nothing for a recovery key");
		goto out;
	}
	at.used += wrapped_bytes;
	error = recovery_open(key, at.bytes + at.used, at.count - at.used, opened, RECOVERED_BYTES);
	if (error)
		goto out;
	r.bytes = opened;
	buf_get(&r, root, WRAP_KEY_BYTES);
	buf_get(&r, anchor->audit_head, sizeof anchor->audit_head);
	anchor->audit_count = buf_get_number(&r, 8);
	anchor->audit_bytes = buf_get_number(&r, 8);
	anchor->generation = buf_get_number(&r, 8);
	anchor->asserted = buf_get_number(&r, 8);
	*ret_root = root;
	root = NULL;
out:
	secmem_free(opened);
	secmem_free(root);
	return error;
}

enum secpool_error anchor_root_new_key(struct anchor *anchor, int fd)
{
	uint8_t *key = secmem_new(RECOVERY_KEY_BYTES);
	char *text = secmem_new(RECOVERY_TEXT_BYTES);
	enum secpool_error error = SECPOOL_E_INTERNAL;

	if (!key || !text)
		error = no_memory();
	else if (fd <= 0)
		error = err_set(SECPOOL_E_POLICY,
			"a new recovery key would be seen by nobody: make the store with 'secpool "
			"keystore provision', or say 'recovery: none' in the policy");
	else
		error = recovery_make(key, anchor->recovery_public);
	if (!error)
		error = recovery_print(key, text);
	if (!error) {
		text[strlen(text) + 1] = '\0'; /* room for the line end is in RECOVERY_TEXT_BYTES */
		text[strlen(text)] = '\n';
		error = os_write_all(fd, text, strlen(text));
	}
	anchor->has_recovery = !error;
	secmem_free(key);
	secmem_free(text);
	return error;
}
