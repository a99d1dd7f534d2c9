/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/vtpm/state.h"

#include <fcntl.h>
#include <limits.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/os.h"

/* The file: magic | nonce | ciphertext | tag. The magic is authenticated too. */
enum { MAGIC_BYTES = 8, NONCE_BYTES = 12, TAG_BYTES = 16, KEY_BYTES = 32 };
enum { OVERHEAD_BYTES = MAGIC_BYTES + NONCE_BYTES + TAG_BYTES };
static const uint8_t MAGIC[MAGIC_BYTES] = {'S', 'P', 'V', 'T', 'P', 'M', '0', '1'};

struct state {
	char path[PATH_MAX];
	char key_path[PATH_MAX];
	int lock;
	bool may_be_missing; /* provisioning, and nothing was stored yet */
	uint8_t key[KEY_BYTES];
};

static enum secpool_error take_lock(const char *dir, int *ret_fd)
{
	enum secpool_error error;
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof path, "%.*s/lock", PATH_MAX - 8, dir);
	fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return os_error("open the TPM state's lock %s", path);
	error = os_lock(fd, path);
	if (error == SECPOOL_E_BUSY)
		error = err_set(
			error, "%s: another secpool-vtpm runs on this state, end it first", dir);
	if (error)
		os_close(&fd);
	else
		*ret_fd = fd;
	return error;
}

static enum secpool_error read_key(struct state *state)
{
	enum secpool_error error;
	char *text = NULL;
	struct stat about;
	size_t bytes = 0;
	int fd = open(state->key_path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0)
		return os_error("open the TPM state's key %s", state->key_path);
	if (fstat(fd, &about) != 0)
		error = os_error("stat %s", state->key_path);
	else if (!S_ISREG(about.st_mode) || (about.st_mode & 077) != 0)
		error = err_set(SECPOOL_E_STORE,
			"%s may be read by others: the TPM's state counts as disclosed",
			state->key_path);
	else
		error = os_read_fd(fd, state->key_path, KEY_BYTES, &text, &bytes);
	os_close(&fd);
	if (!error && bytes != KEY_BYTES)
		error = err_set(SECPOOL_E_STORE, "%s is damaged: %zu bytes instead of %d",
			state->key_path, bytes, KEY_BYTES);
	if (!error)
		memcpy(state->key, text, KEY_BYTES);
	if (text)
		OPENSSL_cleanse(text, bytes);
	free(text);
	return error;
}

/*
 * Key and state as they are on disk: one without the other is an error unless provisioning
 * stopped between them.
 */
static enum secpool_error take_key(struct state *state, const char *dir, bool provision)
{
	bool have_state = access(state->path, F_OK) == 0;
	bool have_key = access(state->key_path, F_OK) == 0;

	if (!have_state && !provision)
		return err_set(SECPOOL_E_NOT_FOUND,
			"no TPM state in %s: a new TPM is made only with --provision (keys sealed "
			"to "
			"the old one are lost then)",
			dir);
	if (have_state && !have_key)
		return err_set(SECPOOL_E_STORE,
			"%s is missing: %s can't be read without it, restore it or remove the "
			"state",
			state->key_path, state->path);
	state->may_be_missing = !have_state;
	if (have_key)
		return read_key(state);
	os_random(state->key, KEY_BYTES);
	return os_write_file_durable(state->key_path, state->key, KEY_BYTES, 0600);
}

/* A damaged state is found at the start, before libtpms sees a byte. */
static enum secpool_error check_state(struct state *state)
{
	uint8_t *plain;
	size_t count = 0;
	enum secpool_error error;

	if (state->may_be_missing)
		return SECPOOL_OK;
	plain = calloc(1, STATE_BYTES_MOST);
	if (!plain)
		return os_error("read %s", state->path);
	error = state_load(state, plain, &count);
	OPENSSL_cleanse(plain, count);
	free(plain);
	return error;
}

enum secpool_error state_open(const char *dir, bool provision, struct state **ret_state)
{
	enum secpool_error error = SECPOOL_E_INTERNAL;
	struct state *state = NULL;

	if (strlen(dir) + 16 > PATH_MAX)
		return err_set(SECPOOL_E_LIMIT, "the TPM state's path is too long: %.64s...", dir);
	state = calloc(1, sizeof *state);
	if (!state)
		return os_error("open the TPM state in %s", dir);
	state->lock = -1;
	snprintf(state->path, sizeof state->path, "%.*s/state", PATH_MAX - 8, dir);
	snprintf(state->key_path, sizeof state->key_path, "%.*s/key", PATH_MAX - 8, dir);
	if (provision && (error = os_make_dir(dir, 0700)) != SECPOOL_OK)
		goto out;
	if (!provision && access(dir, F_OK) != 0) {
		error = err_set(SECPOOL_E_NOT_FOUND,
			"no TPM state: there is no folder %s (--provision makes a new TPM)", dir);
		goto out;
	}
	if ((error = take_lock(dir, &state->lock)) != SECPOOL_OK)
		goto out;
	if ((error = take_key(state, dir, provision)) != SECPOOL_OK)
		goto out;
	if ((error = check_state(state)) != SECPOOL_OK)
		goto out;
	*ret_state = state;
	state = NULL;
out:
	state_close(state);
	return error;
}

void state_close(struct state *state)
{
	if (!state)
		return;
	os_close(&state->lock);
	OPENSSL_cleanse(state, sizeof *state);
	free(state);
}

/* AES-256-GCM over count bytes, either way; false: it failed, or the tag is wrong. */
static bool run_gcm(const struct state *state, bool encrypt, const uint8_t nonce[NONCE_BYTES],
	const uint8_t *from, size_t count, uint8_t *to, uint8_t tag[TAG_BYTES])
{
	EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
	int used = 0, last = 0;
	bool good = context != NULL;

	good = good &&
	       EVP_CipherInit_ex(context, EVP_aes_256_gcm(), NULL, state->key, nonce, encrypt) == 1;
	good = good && EVP_CipherUpdate(context, NULL, &used, MAGIC, MAGIC_BYTES) == 1;
	good = good && EVP_CipherUpdate(context, to, &used, from, (int)count) == 1;
	if (good && !encrypt)
		good = EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_SET_TAG, TAG_BYTES, tag) == 1;
	good = good && EVP_CipherFinal_ex(context, to + used, &last) == 1;
	good = good && (size_t)used + (size_t)last == count;
	if (good && encrypt)
		good = EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_GET_TAG, TAG_BYTES, tag) == 1;
	EVP_CIPHER_CTX_free(context);
	if (!good && !encrypt)
		OPENSSL_cleanse(to, count);
	return good;
}

enum secpool_error state_load(struct state *state, uint8_t *ret_bytes, size_t *ret_count)
{
	enum secpool_error error;
	uint8_t *file = NULL;
	char *text = NULL;
	size_t bytes = 0;

	error = os_read_file(state->path, STATE_BYTES_MOST + OVERHEAD_BYTES, &text, &bytes);
	if (error == SECPOOL_E_NOT_FOUND && state->may_be_missing)
		return error;
	if (error)
		return err_set(
			SECPOOL_E_STORE, "the TPM's state is not readable: %s", err_detail());
	file = (uint8_t *)text;
	if (bytes <= OVERHEAD_BYTES || CRYPTO_memcmp(file, MAGIC, MAGIC_BYTES) != 0)
		error = err_set(SECPOOL_E_STORE,
			"%s is not a TPM state or was cut short: restore it from a copy",
			state->path);
	else if (!run_gcm(state, false, file + MAGIC_BYTES, file + MAGIC_BYTES + NONCE_BYTES,
			 bytes - OVERHEAD_BYTES, ret_bytes, file + bytes - TAG_BYTES))
		error = err_set(SECPOOL_E_STORE,
			"%s is damaged or not of this key: restore it from a copy", state->path);
	else
		*ret_count = bytes - OVERHEAD_BYTES;
	free(text);
	return error;
}

enum secpool_error state_store(struct state *state, const uint8_t *bytes, size_t count)
{
	enum secpool_error error;
	uint8_t *file;

	if (count == 0 || count > STATE_BYTES_MOST)
		return err_set(SECPOOL_E_LIMIT, "a TPM state of %zu bytes can't be stored", count);
	file = calloc(1, count + OVERHEAD_BYTES);
	if (!file)
		return os_error("store the TPM's state");
	memcpy(file, MAGIC, MAGIC_BYTES);
	os_random(file + MAGIC_BYTES, NONCE_BYTES);
	if (!run_gcm(state, true, file + MAGIC_BYTES, bytes, count,
		    file + MAGIC_BYTES + NONCE_BYTES, file + MAGIC_BYTES + NONCE_BYTES + count))
		error = err_set(SECPOOL_E_CRYPTO, "the TPM's state could not be encrypted");
	else
		error = os_write_file_durable(state->path, file, count + OVERHEAD_BYTES, 0600);
	if (!error)
		state->may_be_missing = false;
	free(file);
	return error;
}
