/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/hostkeys.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "enclave/quote_verify.h"
#include "enclave/secmem.h"
#include "enclave/wrap.h"
#include "lib/base/os.h"

enum { PEM_BYTES = 512, SIGNER_DRAWS_MOST = 4 };

/* One start: what is open, and what has been read. */
struct opening {
	struct keytree *tree;
	const struct anchor_options *options;
	const char *state_dir;
	struct hostkeys keys;
};

/* ---- files of the state folder ---- */

static enum secpool_error path_of(const struct opening *o, const char *name, char path[PATH_MAX])
{
	if (snprintf(path, PATH_MAX, "%s/%s", o->state_dir, name) >= PATH_MAX)
		return err_set(SECPOOL_E_LIMIT, "the state folder's path is too long");
	return SECPOOL_OK;
}

/* Reads a file into bytes; *ret_bytes 0 when it is not there. An empty or too long one is damaged. */
static enum secpool_error read_state(const struct opening *o, const char *name, uint8_t *bytes,
	size_t capacity, size_t *ret_bytes)
{
	char path[PATH_MAX];
	enum secpool_error error = path_of(o, name, path);
	char *text = NULL;
	size_t count = 0;

	if (error)
		return error;
	error = os_read_file(path, capacity, &text, &count);
	if (error == SECPOOL_E_NOT_FOUND) {
		*ret_bytes = 0;
		return SECPOOL_OK;
	}
	if (error == SECPOOL_E_LIMIT || (!error && count == 0))
		error = err_set(SECPOOL_E_STORE, "%s is damaged (%zu bytes): put its backup back",
			path, count);
	if (!error) {
		memcpy(bytes, text, count);
		*ret_bytes = count;
	}
	free(text);
	return error;
}

static enum secpool_error write_state(
	const struct opening *o, const char *name, const void *bytes, size_t count, unsigned mode)
{
	char path[PATH_MAX];
	enum secpool_error error = path_of(o, name, path);

	return error ? error : os_write_file_durable(path, bytes, count, mode);
}

/* ---- the root key ---- */

static enum secpool_error open_tree(struct opening *o)
{
	struct anchor_options options = *o->options;
	uint8_t signer[WRAP_BLOB_BYTES_MOST];
	size_t signer_bytes = 0;
	enum secpool_error error =
		read_state(o, "signer.wrapped", signer, sizeof signer, &signer_bytes);

	if (error)
		return error;
	options.may_provision = options.may_provision && signer_bytes == 0;
	return anchor_start(&o->keys.anchor, o->tree, &options, &o->keys.provisioned);
}

/* ---- the host's attestation key ---- */

/* anchor.pem is for people who check receipts; it is written when it does not say what the TPM says. */
static enum secpool_error write_anchor(const struct opening *o)
{
	char pem[PEM_BYTES];
	uint8_t held[PEM_BYTES];
	size_t held_bytes = 0;
	enum secpool_error error;

	error = quote_public_pem(o->keys.signer.ak.area, o->keys.signer.ak.bytes, pem, sizeof pem);
	if (error)
		return error;
	error = read_state(o, "anchor.pem", held, sizeof held - 1, &held_bytes);
	if (error)
		return error;
	held[held_bytes] = '\0';
	if (strcmp((const char *)held, pem) == 0)
		return SECPOOL_OK;
	if (held_bytes > 0 && !o->keys.anchor.taking)
		return err_set(SECPOOL_E_STORE,
			"%s/anchor.pem is not the attestation key of host.ak: put the right one "
			"back, "
			"or remove it to have it written again",
			o->state_dir);
	return write_state(o, "anchor.pem", pem, strlen(pem), 0644);
}

static enum secpool_error open_attestation_key(struct opening *o, bool signer_exists)
{
	uint8_t blob[TPM_BLOB_BYTES];
	size_t blob_bytes = 0;
	enum secpool_error error;
	bool made;

	error = read_state(o, "host.ak", blob, sizeof blob, &blob_bytes);
	if (error)
		return error;
	/* what is there is of the TPM that is gone, or of an attempt to take the store */
	if (o->keys.anchor.taking)
		blob_bytes = 0;
	made = blob_bytes == 0;
	if (made && signer_exists && !o->keys.anchor.taking)
		return err_set(SECPOOL_E_STORE,
			"%s/host.ak is missing: put its backup back, or remove signer.wrapped and "
			"anchor.pem to sign receipts under a new attestation key",
			o->state_dir);
	error = tpm_attestation_key(
		o->keys.anchor.tpm, blob, &blob_bytes, &o->keys.signer.ek, &o->keys.signer.ak);
	if (!error && made)
		error = write_state(o, "host.ak", blob, blob_bytes, 0600);
	return error ? error : write_anchor(o);
}

/* ---- the receipt signer ---- */

/* Fills in the signer's key; its certificate comes later. */
static enum secpool_error open_signing_key(struct opening *o, const uint8_t *blob, size_t bytes)
{
	struct wrap_label label = {.purpose = WRAP_SIGNING_KEY};
	uint8_t *key = secmem_new(RECEIPT_KEY_BYTES);
	uint8_t made[WRAP_BLOB_BYTES_MOST];
	size_t made_bytes = 0;
	enum secpool_error error = SECPOOL_E_INTERNAL;

	if (!key)
		return err_set(SECPOOL_E_NO_LOCKED_MEMORY, "no secret memory for the signing key");
	if (bytes > 0) {
		error = wrap_open(
			keytree_service_key(o->tree), &label, blob, bytes, key, RECEIPT_KEY_BYTES);
		if (error)
			error = err_set(SECPOOL_E_STORE,
				"%s/signer.wrapped does not open under the key tree: put its "
				"backup back",
				o->state_dir);
		else
			error = receipt_signer_init(&o->keys.signer, key);
		goto out;
	}
	/* 32 random bytes are no P-256 key (0 or at least the order, FIPS 186-5 A.2.2) once in 2^32 draws */
	for (unsigned i = 0; error && i < SIGNER_DRAWS_MOST; i++) {
		os_random(key, RECEIPT_KEY_BYTES);
		error = receipt_signer_init(&o->keys.signer, key);
	}
	if (!error) {
		o->keys.signer_ready = true;
		error = wrap_seal(keytree_service_key(o->tree), &label, key, RECEIPT_KEY_BYTES,
			made, &made_bytes);
	}
	if (!error)
		error = write_state(o, "signer.wrapped", made, made_bytes, 0600);
out:
	if (!error)
		o->keys.signer_ready = true;
	secmem_free(key);
	return error;
}

static enum secpool_error open_signer(struct opening *o)
{
	uint8_t blob[WRAP_BLOB_BYTES_MOST], digest[32];
	struct receipt_signer *signer = &o->keys.signer;
	size_t blob_bytes = 0;
	struct tpm_public ek, ak;
	enum secpool_error error;

	error = read_state(o, "signer.wrapped", blob, sizeof blob, &blob_bytes);
	if (!error)
		error = open_attestation_key(o, blob_bytes > 0);
	if (error)
		return error;
	ek = signer->ek;
	ak = signer->ak;
	error = open_signing_key(o, blob, blob_bytes);
	if (error)
		return error;
	signer->ek = ek;
	signer->ak = ak;
	/* who can copy a software TPM's state can put its counter back */
	signer->backup_proof = !tpm_is_software(o->keys.anchor.tpm);
	error = receipt_signer_digest(signer, digest);
	if (!error)
		error = tpm_quote(o->keys.anchor.tpm, o->options->pcrs, digest, sizeof digest,
			&signer->certificate);
	return error;
}

enum secpool_error hostkeys_open(
	const struct anchor_options *options, struct keytree *tree, struct hostkeys *ret_keys)
{
	struct opening o = {.state_dir = options->state_dir, .options = options, .tree = tree};
	enum secpool_error error = open_tree(&o);

	if (!error)
		error = open_signer(&o);
	if (!error) {
		/* a TPM has room for three keys, and anchoring needs two */
		tpm_attestation_key_done(o.keys.anchor.tpm);
		tpm_describe(o.keys.anchor.tpm, o.keys.tpm, sizeof o.keys.tpm);
	}
	if (!error && o.keys.anchor.taking)
		error = anchor_taken(&o.keys.anchor, o.state_dir);
	if (error)
		hostkeys_done(&o.keys);
	else
		*ret_keys = o.keys;
	return error;
}

void hostkeys_done(struct hostkeys *keys)
{
	if (keys->signer_ready)
		receipt_signer_done(&keys->signer);
	anchor_done(&keys->anchor);
	memset(keys, 0, sizeof *keys);
}
