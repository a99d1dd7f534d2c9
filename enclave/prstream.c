/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/prstream.h"

#include <openssl/crypto.h>
#include <string.h>

#include "enclave/primitives.h"
#include "enclave/secmem.h"
#include "lib/base/os.h"

enum {
	KEY_BYTES = 32,
	BLOCK_BYTES = 16,
	BASE_BYTES = 256 << 10,
	BASE_PIECES = BASE_BYTES / PRSTREAM_PIECE_BYTES,
	MASKS = 256, /* made at a time */
};

/* The pieces' own bytes are of a part of the stream that the base does not reach: NIST SP 800-38A 6.5, no counter is used twice. */
#define MASKS_BLOCK (1ull << 32)

struct prstream {
	uint64_t first_mask; /* of masks; UINT64_MAX: none yet */
	uint8_t base[BASE_BYTES];
	uint8_t masks[MASKS][PRSTREAM_LINE_BYTES];
	EVP_CIPHER_CTX *context;
	uint8_t key[KEY_BYTES]; /* secret; wiped once the schedule is made */
};

/* The key's stream from a block on: the block's number, big end first, is its counter (NIST SP 800-38A 6.5). */
static enum secpool_error key_stream(struct prstream *stream, uint64_t block, void *to, int count)
{
	uint8_t counter[BLOCK_BYTES] = {0};
	int done = 0;

	for (unsigned i = 0; i < 8; i++)
		counter[8 + i] = (uint8_t)(block >> (56 - 8 * i));
	memset(to, 0, (size_t)count);
	if (EVP_EncryptInit_ex2(stream->context, NULL, NULL, counter, NULL) != 1 ||
		EVP_EncryptUpdate(stream->context, to, &done, to, count) != 1 || done != count)
		return primitives_failed("AES-256-CTR");
	return SECPOOL_OK;
}

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
	stream->first_mask = UINT64_MAX;
	os_random(stream->key, sizeof stream->key);
	stream->context = EVP_CIPHER_CTX_new();
	if (!stream->context ||
		EVP_EncryptInit_ex2(stream->context, primitives->ctr, stream->key, NULL, NULL) != 1)
		error = primitives_failed("setting up AES-256-CTR");
	secmem_wipe(stream->key, sizeof stream->key);
	if (!error)
		error = key_stream(stream, 0, stream->base, BASE_BYTES);
	if (error)
		prstream_free(stream);
	else
		*ret_stream = stream;
	return error;
}

void prstream_free(struct prstream *stream)
{
	if (!stream)
		return;
	EVP_CIPHER_CTX_free(stream->context);
	OPENSSL_clear_free(stream, sizeof *stream);
}

/* The bytes of a piece's own. NULL when they could not be made. */
static const uint8_t *mask_of(struct prstream *stream, uint64_t piece)
{
	uint64_t first = piece / MASKS * MASKS;

	if (stream->first_mask != first) {
		stream->first_mask = UINT64_MAX;
		if (key_stream(stream, MASKS_BLOCK + first * (PRSTREAM_LINE_BYTES / BLOCK_BYTES),
			    stream->masks, (int)sizeof stream->masks) != SECPOOL_OK)
			return NULL;
		stream->first_mask = first;
	}
	return stream->masks[piece - first];
}

/* Lines of the base with a mask on them. The compiler makes the widest XORs of it that it may. */
static inline __attribute__((always_inline)) void mask_with(uint8_t *restrict to,
	const uint8_t *restrict base, const uint8_t *restrict mask, size_t lines)
{
	uint64_t kept[PRSTREAM_LINE_BYTES / sizeof(uint64_t)];

	memcpy(kept, mask, sizeof kept);
	for (size_t line = 0; line < lines; line++) {
		uint64_t words[PRSTREAM_LINE_BYTES / sizeof(uint64_t)];
		memcpy(words, base + line * PRSTREAM_LINE_BYTES, sizeof words);
		for (size_t i = 0; i < sizeof words / sizeof *words; i++)
			words[i] ^= kept[i];
		memcpy(to + line * PRSTREAM_LINE_BYTES, words, sizeof words);
	}
}

#ifdef __x86_64__
__attribute__((target("avx512f,prefer-vector-width=512"), optimize("O3"))) static void mask_wide(
	uint8_t *restrict to, const uint8_t *restrict base, const uint8_t *restrict mask,
	size_t lines)
{
	mask_with(to, base, mask, lines);
}
#endif

static void mask_lines(uint8_t *restrict to, const uint8_t *restrict base,
	const uint8_t *restrict mask, size_t lines)
{
#ifdef __x86_64__
	/* not by target_clones: its choice is made before a sanitizer's runtime is ready */
	if (__builtin_cpu_supports("avx512f")) {
		mask_wide(to, base, mask, lines);
		return;
	}
#endif
	mask_with(to, base, mask, lines);
}

enum secpool_error prstream_bytes(
	struct prstream *stream, uint64_t position, void *to, size_t count)
{
	uint8_t *at = to;

	if (position % PRSTREAM_LINE_BYTES != 0)
		return err_set(SECPOOL_E_INVALID, "a scrub stream's position %llu is inside a line",
			(unsigned long long)position);
	while (count > 0) {
		uint64_t piece = position / PRSTREAM_PIECE_BYTES;
		size_t inside = (size_t)(position % PRSTREAM_PIECE_BYTES);
		size_t step = PRSTREAM_PIECE_BYTES - inside, lines;
		const uint8_t *base =
			stream->base + piece % BASE_PIECES * PRSTREAM_PIECE_BYTES + inside;
		const uint8_t *mask = mask_of(stream, piece);

		if (!mask)
			return SECPOOL_E_CRYPTO;
		if (step > count)
			step = count;
		lines = step / PRSTREAM_LINE_BYTES;
		mask_lines(at, base, mask, lines);
		for (size_t i = lines * PRSTREAM_LINE_BYTES; i < step; i++)
			at[i] = base[i] ^ mask[i % PRSTREAM_LINE_BYTES];
		at += step;
		position += step;
		count -= step;
	}
	return SECPOOL_OK;
}
