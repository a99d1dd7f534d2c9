/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/anchor.h"

#include <string.h>

#include "enclave/anchor_files.h"
#include "enclave/secmem.h"
#include "lib/base/os.h"

/* Sealed: the root key, the counter's authorisation, the audit log's head, its records and bytes. */
enum {
	SEALED_BYTES = WRAP_KEY_BYTES + TPM_COUNTER_AUTH_BYTES + ANCHOR_AUDIT_BYTES + 8 + 8,
};

static enum secpool_error no_memory(void)
{
	return err_set(SECPOOL_E_NO_LOCKED_MEMORY, "no secret memory for the root key");
}

/* ---- what is sealed ---- */

/* A root file's head and blob for root; counter says when it opens. */
static enum secpool_error seal_root(struct anchor *anchor, const uint8_t *root,
	const struct tpm_counter *counter, struct buf_writer *writer)
{
	struct buf_writer w = {.bytes = secmem_new(SEALED_BYTES), .capacity = SEALED_BYTES};
	uint8_t blob[TPM_BLOB_BYTES];
	struct keyfile_root file = {.counter_index = counter->index,
		.first = counter->first,
		.last = counter->last,
		.blob = blob};
	enum secpool_error error;

	if (!w.bytes)
		return no_memory();
	buf_put(&w, root, WRAP_KEY_BYTES);
	buf_put(&w, anchor->auth, TPM_COUNTER_AUTH_BYTES);
	buf_put(&w, anchor->audit_head, sizeof anchor->audit_head);
	buf_put_number(&w, anchor->audit_count, 8);
	buf_put_number(&w, anchor->audit_bytes, 8);
	error = tpm_seal(
		anchor->tpm, anchor->pcrs, counter, w.bytes, SEALED_BYTES, blob, &file.blob_bytes);
	secmem_free(w.bytes);
	if (!error)
		keyfile_begin_root(writer, &file);
	return error;
}

/* Into the anchor and *ret_root, new secret memory. */
static enum secpool_error unseal_root(
	struct anchor *anchor, const struct keyfile_root *file, uint8_t **ret_root)
{
	const struct tpm_counter counter = {file->counter_index, file->first, file->last};
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
	*ret_root = root;
	root = NULL;
out:
	secmem_free(sealed);
	secmem_free(root);
	return error;
}

/* ---- start ---- */

/* The first generation: its node on the disk first, since root.sealed is what makes it a store. */
static enum secpool_error provision(
	struct anchor *anchor, struct keytree *tree, struct anchor_files *files)
{
	uint8_t bytes[TPM_BLOB_BYTES + 64], record[KEYFILE_NODE_BYTES];
	struct buf_writer w = {.bytes = bytes, .capacity = sizeof bytes};
	struct tpm_counter counter = {.index = 0};
	uint8_t *root = secmem_new(WRAP_KEY_BYTES), *kept = NULL;
	enum secpool_error error;

	if (!root)
		return no_memory();
	os_random(root, WRAP_KEY_BYTES);
	os_random(anchor->auth, TPM_COUNTER_AUTH_BYTES);
	error = tpm_counter_make(anchor->tpm, anchor->auth, &counter.index, &counter.first);
	kept = root;
	if (!error)
		error = keytree_new(
			tree, &root, anchor_files_read_slot, anchor_files_arg(files), record);
	if (!error)
		error = anchor_files_first(files, record);
	counter.last = counter.first;
	if (!error)
		error = seal_root(anchor, kept, &counter, &w);
	keyfile_end_root(&w);
	if (!error)
		error = anchor_files_write_root(files, w.bytes, w.used);
	anchor->counter_index = counter.index;
	anchor->generation = anchor->sealed = counter.last;
	secmem_free(root);
	return error;
}

/* The file that the counter's value opens: root.sealed, which is made of root.next last of all, or root.next where the TPM has counted already. */
static enum secpool_error choose(const struct anchor_files *files, uint64_t value, bool *ret_next)
{
	const struct keyfile_root *now = &files->root, *next = &files->next;

	*ret_next = value < now->first || value > now->last;
	if (!*ret_next || (files->has_next && value >= next->first && value <= next->last))
		return SECPOOL_OK;
	if (value > now->last)
		return err_set(SECPOOL_E_STORE,
			"%.120s was rolled back: it is of generation %llu, and the TPM's counter "
			"is "
			"at %llu: put back the newest state folder",
			files->state_dir, (unsigned long long)now->last, (unsigned long long)value);
	return err_set(SECPOOL_E_TPM,
		"the TPM was rolled back, or is another: its counter is at %llu, and %.120s is of "
		"generation %llu",
		(unsigned long long)value, files->state_dir, (unsigned long long)now->last);
}

/* The counter goes up to the root's last value: what else was ever sealed for those below it does not open any more. */
static enum secpool_error count_up(struct anchor *anchor, uint64_t value, uint64_t last)
{
	enum secpool_error error = SECPOOL_OK;

	while (!error && value < last)
		error = tpm_counter_step(anchor->tpm, anchor->counter_index, anchor->auth, &value);
	if (!error && value != last)
		error = err_set(SECPOOL_E_TPM, "the TPM's counter is at %llu instead of %llu",
			(unsigned long long)value, (unsigned long long)last);
	if (!error)
		anchor->generation = last;
	return error;
}

static enum secpool_error open_store(
	struct anchor *anchor, struct keytree *tree, struct anchor_files *files)
{
	const struct keyfile_root *file;
	uint8_t *root = NULL;
	uint64_t value = 0;
	bool next = false;
	enum secpool_error error = tpm_counter_read(anchor->tpm, files->root.counter_index, &value);

	if (error == SECPOOL_E_NOT_FOUND)
		return err_set(SECPOOL_E_TPM, "%s", err_detail());
	if (!error)
		error = choose(files, value, &next);
	if (error)
		return error;
	file = next ? &files->next : &files->root;
	anchor->counter_index = file->counter_index;
	error = unseal_root(anchor, file, &root);
	if (error)
		error = err_set(error, "%s/%s: %s", files->state_dir,
			next ? KEYFILE_NEXT : KEYFILE_ROOT, err_detail());
	if (!error && next)
		error = anchor_files_take_next(files);
	if (!error)
		error = count_up(anchor, value, file->last);
	if (!error)
		anchor->sealed = anchor->generation;
	if (!error && !next)
		anchor_files_drop_next(files);
	if (!error)
		error = anchor_files_load(files, tree, &root);
	secmem_free(root);
	return error;
}

enum secpool_error anchor_start(struct anchor *anchor, struct keytree *tree, const char *where,
	const char *state_dir, uint32_t pcrs, bool may_provision, bool *ret_provisioned)
{
	struct anchor_files files = {.nodes_fd = -1, .wraps_fd = -1};
	enum secpool_error error = tpm_open(where, &anchor->tpm);

	if (error)
		return error;
	anchor->pcrs = pcrs;
	anchor->auth = secmem_new(TPM_COUNTER_AUTH_BYTES);
	if (!anchor->auth)
		return no_memory();
	error = anchor_files_open(state_dir, &files);
	anchor->wraps_fd = files.wraps_fd;
	if (!error && files.has_root) {
		error = open_store(anchor, tree, &files);
	} else if (!error && (!may_provision || files.has_next)) {
		error = err_set(SECPOOL_E_STORE,
			"%s/root.sealed is missing, but what is there needs it: put its backup "
			"back, or move the state folder away to start anew without the old keys",
			state_dir);
	} else if (!error) {
		error = provision(anchor, tree, &files);
		*ret_provisioned = !error;
	}
	anchor_files_close(&files);
	return error;
}

void anchor_done(struct anchor *anchor)
{
	tpm_close(anchor->tpm);
	secmem_free(anchor->auth);
	if (anchor->wraps_fd > 0)
		os_close(&anchor->wraps_fd);
	memset(anchor, 0, sizeof *anchor);
}

/* ---- a new generation ---- */

void anchor_set_audit(struct anchor *anchor, const uint8_t head[ANCHOR_AUDIT_BYTES], uint64_t count,
	uint64_t bytes)
{
	memcpy(anchor->audit_head, head, sizeof anchor->audit_head);
	anchor->audit_count = count;
	anchor->audit_bytes = bytes;
}

enum secpool_error anchor_seal(
	struct anchor *anchor, struct keytree *tree, uint64_t last, struct buf_writer *writer)
{
	const struct tpm_counter counter = {anchor->counter_index, anchor->generation + 1, last};
	enum secpool_error error;
	uint8_t *root;

	if (anchor->pending || last <= anchor->sealed ||
		last - anchor->generation > ANCHOR_SKIPPED_MOST)
		return err_set(SECPOOL_E_INVALID,
			"generation %llu can't follow %llu, and the %llu that was sealed",
			(unsigned long long)last, (unsigned long long)anchor->generation,
			(unsigned long long)anchor->sealed);
	root = secmem_new(WRAP_KEY_BYTES);
	if (!root)
		return no_memory();
	os_random(root, WRAP_KEY_BYTES);
	error = seal_root(anchor, root, &counter, writer);
	if (!error)
		error = keytree_renew(tree, &root, writer);
	keyfile_end_root(writer);
	if (!error && writer->failed) {
		keytree_not_renewed(tree);
		error = err_set(SECPOOL_E_LIMIT, "a new generation of the key tree is too long");
	}
	anchor->pending = !error;
	if (!error)
		anchor->sealed = last;
	secmem_free(root);
	return error;
}

enum secpool_error anchor_commit(struct anchor *anchor, struct keytree *tree)
{
	enum secpool_error error;

	if (!anchor->pending)
		return err_set(SECPOOL_E_INVALID, "there is no new generation");
	error = count_up(anchor, anchor->generation, anchor->sealed);
	if (error)
		return error;
	anchor->pending = false;
	keytree_renewed(tree);
	return SECPOOL_OK;
}

void anchor_give_up(struct anchor *anchor, struct keytree *tree)
{
	if (anchor->pending)
		keytree_not_renewed(tree);
	anchor->pending = false;
}
