/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/anchor.h"

#include <string.h>

#include "enclave/anchor_files.h"
#include "enclave/anchor_root.h"
#include "enclave/secmem.h"
#include "lib/base/os.h"

static enum secpool_error no_memory(void)
{
	return err_set(SECPOOL_E_NO_LOCKED_MEMORY, "no secret memory for the root key");
}

/* ---- start ---- */

/* The first generation: its node on the disk first, since root.sealed is what makes it a store. A recovery key is shown before that: one that was shown and is of no store harms nobody. */
static enum secpool_error provision(struct anchor *anchor, struct keytree *tree,
	struct anchor_files *files, const struct anchor_options *options)
{
	uint8_t bytes[TPM_BLOB_BYTES + KEYFILE_RECOVERY_MOST + 64], record[KEYFILE_NODE_BYTES];
	struct buf_writer w = {.bytes = bytes, .capacity = sizeof bytes};
	uint8_t *root = secmem_new(WRAP_KEY_BYTES), *kept = NULL;
	enum secpool_error error = SECPOOL_OK;

	if (!root)
		return no_memory();
	if (options->recovery)
		error = anchor_root_new_key(anchor, options->recovery_fd);
	os_random(root, WRAP_KEY_BYTES);
	os_random(anchor->auth, TPM_COUNTER_AUTH_BYTES);
	if (!error)
		error = tpm_counter_make(
			anchor->tpm, anchor->auth, &anchor->counter_index, &anchor->generation);
	kept = root;
	if (!error)
		error = keytree_new(
			tree, &root, anchor_files_read_slot, anchor_files_arg(files), record);
	if (!error)
		error = anchor_files_first(files, record);
	if (!error)
		error = anchor_root_seal(anchor, kept, anchor->generation, anchor->generation, &w);
	if (!error)
		keyfile_end_root(&w);
	if (!error)
		error = anchor_files_write_root(files, w.bytes, w.used);
	anchor->counted = anchor->sealed = anchor->generation;
	secmem_free(root);
	return error;
}

/* The generation that a root's counter, as the TPM has it, stands for; SECPOOL_E_NOT_FOUND: this TPM has no such counter. */
static enum secpool_error read_generation(
	struct anchor *anchor, const struct keyfile_root *root, uint64_t *ret_generation)
{
	enum secpool_error error =
		tpm_counter_read(anchor->tpm, root->counter_index, ret_generation);

	if (!error)
		*ret_generation += root->base;
	return error;
}

static bool opens_at(const struct keyfile_root *root, uint64_t generation)
{
	return generation >= root->first && generation <= root->last;
}

/* The generation that the TPM is at, and the file that opens there: root.sealed, which is made of root.next last of all, or root.next where the TPM has counted already, or has another counter: then it is of a recovery. */
static enum secpool_error choose(struct anchor *anchor, const struct anchor_files *files,
	uint64_t *ret_generation, bool *ret_next)
{
	const struct keyfile_root *now = &files->root, *next = &files->next;
	uint64_t at = 0;
	enum secpool_error error = SECPOOL_E_NOT_FOUND;

	if (files->has_next && next->counter_index != now->counter_index) {
		error = read_generation(anchor, next, ret_generation);
		*ret_next = anchor->taking = !error && opens_at(next, *ret_generation);
		if (*ret_next || (error && error != SECPOOL_E_NOT_FOUND))
			return error;
	}
	error = read_generation(anchor, now, &at);
	if (error == SECPOOL_E_NOT_FOUND)
		return err_set(SECPOOL_E_TPM,
			"%.160s; with its recovery key the store is moved to this one: secpool "
			"keystore recover",
			err_detail());
	if (error)
		return error;
	*ret_generation = at;
	*ret_next = !opens_at(now, at);
	if (!*ret_next || (files->has_next && opens_at(next, at)))
		return SECPOOL_OK;
	if (at > now->last)
		return err_set(SECPOOL_E_STORE,
			"%.120s was rolled back: it is of generation %llu, and the TPM's counter "
			"is at %llu: put back the newest state folder",
			files->state_dir, (unsigned long long)now->last, (unsigned long long)at);
	return err_set(SECPOOL_E_TPM,
		"the TPM was rolled back, or is another: its counter is at %llu, and %.120s is of "
		"generation %llu",
		(unsigned long long)at, files->state_dir, (unsigned long long)now->last);
}

/* The counter goes up to the root's last value, so many steps at most: what else was ever sealed for those below it does not open any more. */
static enum secpool_error count_up(struct anchor *anchor, uint64_t last, uint64_t steps)
{
	enum secpool_error error = SECPOOL_OK;

	for (; !error && anchor->counted < last && steps > 0; steps--) {
		error = tpm_counter_step(
			anchor->tpm, anchor->counter_index, anchor->auth, &anchor->counted);
		if (!error)
			anchor->counted += anchor->base;
	}
	if (!error && anchor->counted > last)
		error = err_set(SECPOOL_E_TPM, "the TPM's counter is at %llu instead of %llu",
			(unsigned long long)anchor->counted, (unsigned long long)last);
	if (!error && anchor->counted == last)
		anchor->generation = last;
	return error;
}

static enum secpool_error open_store(
	struct anchor *anchor, struct keytree *tree, struct anchor_files *files)
{
	const struct keyfile_root *file;
	uint8_t *root = NULL;
	uint64_t generation = 0;
	bool next = false;
	enum secpool_error error = choose(anchor, files, &generation, &next);

	if (error)
		return error;
	file = next ? &files->next : &files->root;
	anchor->counter_index = file->counter_index;
	error = anchor_root_unseal(anchor, file, &root);
	if (error)
		error = err_set(error, "%s/%s: %s", files->state_dir,
			next ? KEYFILE_NEXT : KEYFILE_ROOT, err_detail());
	if (!error && next)
		error = anchor_files_apply_next(files);
	if (!error && next && !anchor->taking)
		error = keyfile_take_next(&files->next, files->state_dir);
	anchor->counted = generation;
	if (!error)
		error = count_up(anchor, file->last, UINT64_MAX);
	if (!error)
		anchor->sealed = anchor->generation;
	if (!error && !next)
		error = anchor_files_drop_next(files);
	if (!error)
		error = anchor_files_load(files, tree, &root);
	secmem_free(root);
	return error;
}

enum secpool_error anchor_start(struct anchor *anchor, struct keytree *tree,
	const struct anchor_options *options, bool *ret_provisioned)
{
	struct anchor_files files = {.nodes_fd = -1, .wraps_fd = -1};
	enum secpool_error error = tpm_open(options->tpm, &anchor->tpm);

	if (error)
		return error;
	anchor->pcrs = options->pcrs;
	anchor->skipped_most = ANCHOR_SKIPPED_MOST;
	anchor->auth = secmem_new(TPM_COUNTER_AUTH_BYTES);
	if (!anchor->auth)
		return no_memory();
	error = anchor_files_open(options->state_dir, &files);
	anchor->wraps_fd = files.wraps_fd;
	if (!error && files.has_root) {
		error = open_store(anchor, tree, &files);
	} else if (!error && (!options->may_provision || files.has_next)) {
		error = err_set(SECPOOL_E_STORE,
			"%s/root.sealed is missing, but what is there needs it: put its backup "
			"back, or move the state folder away to start anew without the old keys",
			options->state_dir);
	} else if (!error) {
		error = provision(anchor, tree, &files, options);
		*ret_provisioned = !error;
	}
	anchor_files_close(&files);
	return error;
}

enum secpool_error anchor_taken(struct anchor *anchor, const char *state_dir)
{
	struct anchor_files files = {.nodes_fd = -1, .wraps_fd = -1};
	enum secpool_error error = anchor_files_open(state_dir, &files);

	if (!error && (!files.has_root || !files.has_next))
		error = err_set(SECPOOL_E_STORE, "%s: root.next is gone", state_dir);
	if (!error)
		error = tpm_counter_remove(anchor->tpm, files.root.counter_index);
	if (!error)
		error = keyfile_take_next(&files.next, state_dir);
	if (!error)
		anchor->taking = false;
	os_close(&files.wraps_fd);
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
	enum secpool_error error;
	uint8_t *root;

	if (!anchor->pending && last > anchor->sealed &&
		last - anchor->generation > anchor->skipped_most)
		return err_set(SECPOOL_E_LIMIT,
			"%llu generations were begun and not finished: see policy, "
			"anchor_skipped_most",
			(unsigned long long)(last - anchor->generation - 1));
	if (anchor->pending || last <= anchor->sealed)
		return err_set(SECPOOL_E_INVALID,
			"generation %llu can't follow %llu, and the %llu that was sealed",
			(unsigned long long)last, (unsigned long long)anchor->generation,
			(unsigned long long)anchor->sealed);
	root = secmem_new(WRAP_KEY_BYTES);
	if (!root)
		return no_memory();
	os_random(root, WRAP_KEY_BYTES);
	error = anchor_root_seal(anchor, root, anchor->generation + 1, last, writer);
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
	error = count_up(anchor, anchor->sealed, ANCHOR_STEPS_MOST);
	if (error || anchor->counted < anchor->sealed)
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
