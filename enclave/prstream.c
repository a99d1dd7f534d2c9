/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/prstream.h"

#include <openssl/crypto.h>
#include <string.h>

#include "enclave/primitives.h"
#include "enclave/secmem.h"
#include "lib/base/os.h"

enum { KEY_BYTES = 32, BLOCK_BYTES = 16 };
/* EVP counts in int */
enum { STEP_BYTES = 1 << 30 };

struct prstream {
	EVP_CIPHER_CTX *context;
	uint8_t key[KEY_BYTES]; /* secret; wiped once the schedule is made */
};

enum secpool_error prstream_new(struct prstream **ret_stream)
{
	const struct primitives *primitives;
	struct prstream *stream;
	enum secpool_error error = primitives_get(&primitives);

	if (error)
		return error;
	/* secret memory wherever secmem_init ran */
	stream = OPENSSL_zalloc(sizeof *stream);
	if (!stream)
		return err_set(SECPOOL_E_NO_LOCKED_MEMORY, "no secret memory for a scrub stream");
	os_random(stream->key, sizeof stream->key);
	stream->context = EVP_CIPHER_CTX_new();
	if (!stream->context || EVP_EncryptInit_ex2(stream->context, primitives->ctr, stream->key,
					NULL, NULL) != 1) {
		prstream_free(stream);
		return primitives_failed("setting up AES-256-CTR");
	}
	secmem_wipe(stream->key, sizeof stream->key);
	*ret_stream = stream;
	return SECPOOL_OK;
}

void prstream_free(struct prstream *stream)
{
	if (!stream)
		return;
	EVP_CIPHER_CTX_free(stream->context);
	OPENSSL_clear_free(stream, sizeof *stream);
}

enum secpool_error prstream_bytes(
	struct prstream *stream, uint64_t position, void *to, size_t count)
{
	uint64_t block = position / BLOCK_BYTES;
	uint8_t counter[BLOCK_BYTES] = {0};
	uint8_t *at = to;
	int done = 0;

	if (position % BLOCK_BYTES != 0)
		return err_set(SECPOOL_E_INVALID,
			"a scrub stream's position %llu is inside a block",
			(unsigned long long)position);
	/* NIST SP 800-38A 6.5: the block's number, big end first, is its counter */
	for (unsigned i = 0; i < 8; i++)
		counter[8 + i] = (uint8_t)(block >> (56 - 8 * i));
	if (EVP_EncryptInit_ex2(stream->context, NULL, NULL, counter, NULL) != 1)
		return primitives_failed("AES-256-CTR");
	memset(to, 0, count);
	while (count > 0) {
		size_t step = count < STEP_BYTES ? count : STEP_BYTES;

		if (EVP_EncryptUpdate(stream->context, at, &done, at, (int)step) != 1 ||
			done != (int)step)
			return primitives_failed("AES-256-CTR");
		at += step;
		count -= step;
	}
	return SECPOOL_OK;
}
