/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/prstream.h"

#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

#include "enclave/primitives.h"
#include "enclave/secmem.h"
#include "lib/base/os.h"

enum { KEY_BYTES = 32, BLOCK_BYTES = 16, LINE_BYTES = 64 };
enum {
	MASKS = PRSTREAM_SPAN_BYTES / PRSTREAM_PIECE_BYTES,
	MASKS_BYTES = MASKS * PRSTREAM_MASK_BYTES,
	BUFFER_BYTES = PRSTREAM_BASE_BYTES + MASKS_BYTES
};

/* The first half of a counter: what its blocks are for. */
enum { FOR_MASKS = 0, FOR_BASE = 1 };

struct prstream {
	EVP_CIPHER_CTX *context;
	uint8_t key[KEY_BYTES]; /* secret; wiped once the schedule is made */
	/* Ordinary memory: a device is given them, XORed, anyway. */
	uint8_t *base;
	uint8_t *masks; /* of one span */
	uint64_t span;	/* whose masks they are */
	bool masks_are_made;
};

/* AES-256-CTR from a block on. */
static enum secpool_error make(
	struct prstream *stream, uint8_t purpose, uint64_t block, uint8_t *to, size_t count)
{
	uint8_t counter[BLOCK_BYTES] = {purpose};
	int done = 0;

	/* NIST SP 800-38A 6.5: the block's number, big end first, is its counter */
	for (unsigned i = 0; i < 8; i++)
		counter[8 + i] = (uint8_t)(block >> (56 - 8 * i));
	memset(to, 0, count);
	if (EVP_EncryptInit_ex2(stream->context, NULL, NULL, counter, NULL) != 1 ||
		EVP_EncryptUpdate(stream->context, to, &done, to, (int)count) != 1 ||
		done != (int)count)
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
	stream->base = aligned_alloc(LINE_BYTES, BUFFER_BYTES);
	if (!stream->base) {
		prstream_free(stream);
		return err_set(SECPOOL_E_NO_MEMORY, "a scrub stream: out of memory");
	}
	stream->masks = stream->base + PRSTREAM_BASE_BYTES;
	os_random(stream->key, sizeof stream->key);
	stream->context = EVP_CIPHER_CTX_new();
	if (!stream->context ||
		EVP_EncryptInit_ex2(stream->context, primitives->ctr, stream->key, NULL, NULL) != 1)
		error = primitives_failed("setting up AES-256-CTR");
	else
		error = make(stream, FOR_BASE, 0, stream->base, PRSTREAM_BASE_BYTES);
	secmem_wipe(stream->key, sizeof stream->key);
	if (error) {
		prstream_free(stream);
		return error;
	}
	*ret_stream = stream;
	return SECPOOL_OK;
}

void prstream_free(struct prstream *stream)
{
	if (!stream)
		return;
	EVP_CIPHER_CTX_free(stream->context);
	if (stream->base)
		secmem_wipe(stream->base, BUFFER_BYTES);
	free(stream->base);
	OPENSSL_clear_free(stream, sizeof *stream);
}

enum secpool_error prstream_piece(
	struct prstream *stream, uint64_t position, struct prstream_piece *ret_piece)
{
	uint64_t span = position / PRSTREAM_SPAN_BYTES;
	uint64_t piece = position / PRSTREAM_PIECE_BYTES;

	if (!stream->masks_are_made || stream->span != span) {
		enum secpool_error error;

		stream->masks_are_made = false;
		error = make(stream, FOR_MASKS, span * (MASKS_BYTES / BLOCK_BYTES), stream->masks,
			MASKS_BYTES);
		if (error)
			return error;
		stream->span = span;
		stream->masks_are_made = true;
	}
	ret_piece->slice = stream->base + piece * PRSTREAM_PIECE_BYTES % PRSTREAM_BASE_BYTES;
	ret_piece->mask = stream->masks + piece % MASKS * PRSTREAM_MASK_BYTES;
	return SECPOOL_OK;
}

/* Whole lines, in vectors of 16 bytes: every x86-64 CPU has them, and wider ones gain nothing beside memory. */
static void mask_lines(uint8_t *restrict to, const uint8_t *restrict from,
	const uint8_t *restrict mask, size_t count)
{
	typedef uint64_t vector __attribute__((vector_size(16), may_alias, aligned(1)));
	const vector *masks = (const vector *)mask, *source = (const vector *)from;
	const vector mask0 = masks[0], mask1 = masks[1], mask2 = masks[2], mask3 = masks[3];
	vector *target = (vector *)to;

	for (size_t i = 0; i < count / sizeof(vector); i += 4) {
		target[i] = source[i] ^ mask0;
		target[i + 1] = source[i + 1] ^ mask1;
		target[i + 2] = source[i + 2] ^ mask2;
		target[i + 3] = source[i + 3] ^ mask3;
	}
}

/* The bytes of a piece from `at` on. */
static void mask_part(const struct prstream_piece *piece, size_t at, uint8_t *to, size_t count)
{
	size_t lines = 0;

	if (at % PRSTREAM_MASK_BYTES == 0) {
		lines = count - count % PRSTREAM_MASK_BYTES;
		mask_lines(to, piece->slice + at, piece->mask, lines);
	}
	for (size_t i = lines; i < count; i++)
		to[i] = piece->slice[at + i] ^ piece->mask[(at + i) % PRSTREAM_MASK_BYTES];
}

enum secpool_error prstream_bytes(
	struct prstream *stream, uint64_t position, void *to, size_t count)
{
	uint8_t *next = to;

	while (count > 0) {
		size_t at = position % PRSTREAM_PIECE_BYTES;
		size_t part = PRSTREAM_PIECE_BYTES - at < count ? PRSTREAM_PIECE_BYTES - at : count;
		struct prstream_piece piece;
		enum secpool_error error = prstream_piece(stream, position, &piece);

		if (error)
			return error;
		mask_part(&piece, at, next, part);
		position += part;
		next += part;
		count -= part;
	}
	return SECPOOL_OK;
}
