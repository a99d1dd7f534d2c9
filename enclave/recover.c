/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/recover.h"

#include <limits.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "enclave/anchor_files.h"
#include "enclave/anchor_root.h"
#include "enclave/receipt.h"
#include "enclave/secmem.h"
#include "lib/base/os.h"

/* How far the new generation may be above that of the store: over as many that were begun and not finished as a policy allows at most. A front that says more would bring `asserted` to where it does not fit its seven bytes any more. */
enum { AHEAD_MOST = 1 << 20 };

/* One recovery. */
struct recovering {
	const struct anchor_options *options;
	const struct recover_claim *claim;
	struct anchor_files files;
	bool as_next; /* root.next is the root: it is put in its place when all was looked at */
	struct anchor_files view; /* files with its records in their places, in copies in memory */
	struct keytree *tree;
	struct anchor anchor;
	uint8_t *key; /* secret: the recovery key */
};

/* ---- what is there ---- */

/* The key as it was typed. Every byte of it is in secret memory only. */
static enum secpool_error read_key(struct recovering *r)
{
	char *text = secmem_new(RECOVERY_TYPED_BYTES_MOST);
	enum secpool_error error = SECPOOL_OK;
	size_t used = 0;
	ssize_t got = 1;

	r->key = secmem_new(RECOVERY_KEY_BYTES);
	if (!text || !r->key)
		error = err_set(
			SECPOOL_E_NO_LOCKED_MEMORY, "no secret memory for the recovery key");
	while (!error && got != 0 && used < RECOVERY_TYPED_BYTES_MOST) {
		got = read(r->claim->key_fd, text + used, RECOVERY_TYPED_BYTES_MOST - used);
		if (got < 0 && !os_interrupted())
			error = os_error("read the recovery key");
		used += got > 0 ? (size_t)got : 0;
		/* a terminal gives a line at a time, and no end */
		if (used > 0 && text[used - 1] == '\n')
			break;
	}
	if (!error)
		error = recovery_read(text, used, r->key);
	secmem_free(text);
	return error;
}

static enum secpool_error open_root(
	struct recovering *r, const struct keyfile_root *file, uint8_t **ret_root)
{
	enum secpool_error error = anchor_root_recover(&r->anchor, file, r->key, ret_root);

	return error == SECPOOL_E_KEY_GONE ? err_set(SECPOOL_E_DENIED, "%s: %.160s",
						     r->options->state_dir, err_detail())
					   : error;
}

static enum secpool_error check_generation(const struct recovering *r)
{
	const struct recover_claim *claim = r->claim;

	if (r->anchor.generation != claim->generation)
		return err_set(SECPOOL_E_DENIED,
			"the store is of generation %llu, not of %llu: see whether there is a "
			"newer backup. A receipt that says 'durable: no' names the generation "
			"after its store's",
			(unsigned long long)r->anchor.generation,
			(unsigned long long)claim->generation);
	if (claim->next <= r->anchor.generation)
		return err_set(SECPOOL_E_STORE,
			"directory.db was rolled back: it knows of no generation %llu: put back "
			"the newest state folder",
			(unsigned long long)r->anchor.generation);
	if (claim->next - r->anchor.generation > AHEAD_MOST)
		return err_set(SECPOOL_E_STORE,
			"directory.db was changed: it knows of generation %llu, and the store is "
			"of %llu: put back the newest state folder",
			(unsigned long long)claim->next - 1,
			(unsigned long long)r->anchor.generation);
	return SECPOOL_OK;
}

/*
 * A root.next of the same counter was being committed when the machine stopped: it has all that root.sealed has, and more is durable with it, so it is gone on from. One of another counter is of a recovery that is whole: who
 * has the key that was shown then goes on from it.
 */
static enum secpool_error choose(struct recovering *r, uint8_t **ret_root)
{
	struct anchor_files *files = &r->files;
	enum secpool_error error;

	if (!files->has_root)
		return err_set(SECPOOL_E_STORE, "%s/root.sealed is missing: put its backup back",
			files->state_dir);
	if (!files->has_next || files->next.last <= files->root.last) {
		error = open_root(r, &files->root, ret_root);
		return error ? error : check_generation(r);
	}
	error = open_root(r, &files->next, ret_root);
	if (error == SECPOOL_E_DENIED && files->next.counter_index != files->root.counter_index)
		return err_set(SECPOOL_E_DENIED,
			"%s was recovered already: start it with the TPM of that, or use the "
			"recovery key that was shown then",
			files->state_dir);
	if (!error)
		error = check_generation(r);
	r->as_next = !error;
	return error ? error : anchor_files_as_next(files, &r->view);
}

/* The audit is that of this tree's signing key, whole, as long as was sealed at least, and ends where the operator says. */
static enum secpool_error check_audit(struct recovering *r)
{
	const struct wrap_label label = {.purpose = WRAP_SIGNING_KEY};
	struct receipt_signer signer = {.key = NULL};
	uint8_t *key = secmem_new(RECEIPT_KEY_BYTES);
	char path[PATH_MAX], *blob = NULL;
	struct audit audit;
	size_t bytes = 0;
	enum secpool_error error = SECPOOL_E_INTERNAL;

	if (!key)
		error = err_set(SECPOOL_E_NO_LOCKED_MEMORY, "no secret memory for the signing key");
	else if (snprintf(path, sizeof path, "%s/signer.wrapped", r->options->state_dir) >=
		 PATH_MAX)
		error = err_set(SECPOOL_E_LIMIT, "the state folder's path is too long");
	else
		error = os_read_file(path, WRAP_BLOB_BYTES_MOST, &blob, &bytes);
	if (!error)
		error = wrap_open(keytree_service_key(r->tree), &label, (const uint8_t *)blob,
			bytes, key, RECEIPT_KEY_BYTES);
	if (error == SECPOOL_E_KEY_GONE || error == SECPOOL_E_NOT_FOUND)
		error = err_set(SECPOOL_E_STORE, "%s is missing, or of another store", path);
	if (!error)
		error = receipt_signer_init(&signer, key);
	audit_init(&audit, &signer);
	if (!error)
		error = audit_resume(&audit, r->options->state_dir, false);
	if (!error)
		error = audit_check_sealed(&audit, r->options->state_dir, r->anchor.audit_head,
			r->anchor.audit_count, r->anchor.audit_bytes);
	if (!error && CRYPTO_memcmp(audit.head, r->claim->audit_head, sizeof audit.head) != 0)
		error = err_set(SECPOOL_E_DENIED,
			"the audit has %llu records, and its head is another than was given: see "
			"whether it is the newest, by a copy of it and the newest receipt (secpool "
			"audit verify --receipt)",
			(unsigned long long)audit.count);
	if (!error)
		anchor_set_audit(&r->anchor, audit.head, audit.count, audit.bytes);
	receipt_signer_done(&signer);
	secmem_free(key);
	free(blob);
	return error;
}

/* ---- the new root ---- */

static enum secpool_error make_next(struct recovering *r, struct buf_writer *writer)
{
	struct anchor *anchor = &r->anchor;
	uint64_t value = 0, next = r->claim->next;
	uint8_t *root = secmem_new(WRAP_KEY_BYTES);
	enum secpool_error error = SECPOOL_E_INTERNAL;

	anchor->auth = secmem_new(TPM_COUNTER_AUTH_BYTES);
	if (!root || !anchor->auth) {
		secmem_free(root);
		return err_set(SECPOOL_E_NO_LOCKED_MEMORY, "no secret memory for the root key");
	}
	os_random(root, WRAP_KEY_BYTES);
	os_random(anchor->auth, TPM_COUNTER_AUTH_BYTES);
	error = tpm_counter_make(anchor->tpm, anchor->auth, &anchor->counter_index, &value);
	anchor->base = next - value;
	anchor->asserted = next;
	if (!error && r->options->recovery)
		error = anchor_root_new_key(anchor, r->options->recovery_fd);
	if (!error)
		error = anchor_root_seal(anchor, root, next, next, writer);
	keytree_soil(r->tree);
	if (!error)
		error = keytree_renew(r->tree, &root, writer);
	if (!error)
		keyfile_end_root(writer);
	if (!error && writer->failed)
		error = err_set(SECPOOL_E_LIMIT, "the key tree is too long");
	secmem_free(root);
	return error;
}

/* From the end of this on the store is the new TPM's. A root.next that was gone on from is put in its place first: it is the root of before, if this one is not written. */
static enum secpool_error write_next(struct recovering *r, const struct buf_writer *writer)
{
	enum secpool_error error = SECPOOL_OK;
	char path[PATH_MAX];

	if (snprintf(path, sizeof path, "%s/" KEYFILE_NEXT, r->options->state_dir) >= PATH_MAX)
		return err_set(SECPOOL_E_LIMIT, "the state folder's path is too long");
	if (r->as_next)
		error = anchor_files_apply_next(&r->files);
	if (!error && r->as_next)
		error = keyfile_take_next(&r->files.next, r->options->state_dir);
	return error ? error : os_write_file_durable(path, writer->bytes, writer->used, 0600);
}

static enum secpool_error renew(struct recovering *r)
{
	struct buf_writer writer = {.capacity = KEYFILE_ROOT_BYTES_MOST};
	void *memory = mmap(NULL, KEYFILE_ROOT_BYTES_MOST, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	enum secpool_error error;

	if (memory == MAP_FAILED)
		return os_error("memory for a new generation");
	writer.bytes = memory;
	error = make_next(r, &writer);
	if (!error)
		error = write_next(r, &writer);
	munmap(memory, KEYFILE_ROOT_BYTES_MOST);
	return error;
}

enum secpool_error recover_run(const struct anchor_options *options,
	const struct recover_claim *claim, struct keytree *tree)
{
	struct recovering r = {.options = options,
		.claim = claim,
		.files = {.nodes_fd = -1, .wraps_fd = -1},
		.view = {.nodes_fd = -1, .wraps_fd = -1},
		.tree = tree,
		.anchor = {.pcrs = options->pcrs, .wraps_fd = -1}};
	uint8_t *root = NULL;
	enum secpool_error error = read_key(&r);

	if (!error)
		error = anchor_files_open(options->state_dir, &r.files);
	if (!error)
		error = choose(&r, &root);
	if (!error)
		error = anchor_files_load(r.as_next ? &r.view : &r.files, tree, &root);
	if (!error)
		error = check_audit(&r);
	if (!error)
		error = tpm_open(options->tpm, &r.anchor.tpm);
	if (!error)
		error = renew(&r);
	secmem_free(root);
	secmem_free(r.key);
	keytree_done(tree);
	anchor_done(&r.anchor);
	os_close(&r.files.wraps_fd);
	os_close(&r.view.nodes_fd);
	os_close(&r.view.wraps_fd);
	anchor_files_close(&r.files);
	return error;
}
