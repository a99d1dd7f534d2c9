/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/overwrite.h"

#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>

#include "lib/base/guarded_copy.h"

/*
 * What is done between two looks at `stop`. The ranges that guarded_differs compares side by side lie in it one base apart, so that one load of the base serves
 * all of them.
 */
enum { STEP_BYTES = GUARDED_RANGES * PRSTREAM_BASE_BYTES, POPULATE_BYTES = 16 << 20 };

_Static_assert((int)PRSTREAM_MASK_BYTES == (int)GUARDED_MASK_BYTES,
	"a mask is what guarded_differs takes");
_Static_assert(PRSTREAM_SPAN_BYTES % STEP_BYTES == 0, "a step needs the masks of one span");

static bool stopped(const _Atomic int *stop)
{
	return stop && *stop;
}

static uint64_t at_most(uint64_t bytes, uint64_t most)
{
	return bytes < most ? bytes : most;
}

/*
 * Maps the pages of media by many at a time, which takes a kernel less than a fault for each; what can't be mapped is found out when it is stored to.
 */
static void populate(uint8_t *map, uint64_t bytes, const _Atomic int *stop)
{
	for (uint64_t at = 0; at < bytes && !stopped(stop); at += POPULATE_BYTES) {
		if (madvise(map + at, at_most(bytes - at, POPULATE_BYTES), MADV_POPULATE_READ) != 0)
			return;
	}
}

/* Lines are stored past the caches; a last part of one is not, and is flushed. */
static enum msg_readback store_part(const struct prstream_piece *piece, uint8_t *to, size_t count)
{
	size_t rest = count % GUARDED_MASK_BYTES, lines = count - rest;
	uint8_t last[GUARDED_MASK_BYTES];
	enum secpool_error error = guarded_store_masked(to, piece->slice, piece->mask, lines);

	if (!error && rest > 0) {
		for (size_t i = 0; i < rest; i++)
			last[i] = piece->slice[lines + i] ^ piece->mask[i];
		error = guarded_copy(to + lines, last, rest);
		if (!error)
			error = guarded_flush(to + lines, rest);
	}
	return error ? MSG_READBACK_UNREACHABLE : MSG_READBACK_MATCHED;
}

enum msg_readback overwrite_store(
	struct prstream *stream, uint8_t *map, uint64_t bytes, const _Atomic int *stop)
{
	enum msg_readback result = MSG_READBACK_MATCHED;
	struct prstream_piece piece;

	for (uint64_t at = 0; at < bytes && result == MSG_READBACK_MATCHED;
		at += PRSTREAM_PIECE_BYTES) {
		if (at % STEP_BYTES == 0) {
			/* waits for the stores, so not at each piece */
			guarded_fence();
			if (stopped(stop))
				return MSG_READBACK_UNREACHABLE;
		}
		if (prstream_piece(stream, at, &piece) != SECPOOL_OK)
			return MSG_READBACK_NOT_OVERWRITTEN;
		result = store_part(&piece, map + at, at_most(bytes - at, PRSTREAM_PIECE_BYTES));
	}
	guarded_fence();
	return result;
}

/* A whole step: its ranges side by side. */
static enum msg_readback compare_step(
	struct prstream *stream, uint64_t position, const uint8_t *map)
{
	struct guarded_expected expected = {
		.stride = PRSTREAM_BASE_BYTES, .count = PRSTREAM_PIECE_BYTES};
	struct prstream_piece piece;
	bool differs = true;

	for (uint64_t at = 0; at < PRSTREAM_BASE_BYTES; at += PRSTREAM_PIECE_BYTES) {
		for (unsigned i = 0; i < GUARDED_RANGES; i++) {
			if (prstream_piece(stream, position + at + i * PRSTREAM_BASE_BYTES,
				    &piece) != SECPOOL_OK)
				return MSG_READBACK_NOT_OVERWRITTEN;
			expected.mask[i] = piece.mask;
		}
		expected.at = map + at;
		expected.from = piece.slice; /* the same of all of them */
		if (guarded_differs(&expected, &differs) != SECPOOL_OK)
			return MSG_READBACK_UNREACHABLE;
		if (differs)
			return MSG_READBACK_DIFFERED;
	}
	return MSG_READBACK_MATCHED;
}

/* What is left, less than a step: copied and compared. */
static enum msg_readback compare_rest(
	struct prstream *stream, uint64_t position, const uint8_t *map, uint64_t bytes)
{
	uint8_t made[PRSTREAM_PIECE_BYTES], found[PRSTREAM_PIECE_BYTES];

	for (uint64_t at = 0; at < bytes; at += PRSTREAM_PIECE_BYTES) {
		size_t count = at_most(bytes - at, PRSTREAM_PIECE_BYTES);

		if (prstream_bytes(stream, position + at, made, count) != SECPOOL_OK)
			return MSG_READBACK_NOT_OVERWRITTEN;
		if (guarded_copy(found, map + at, count) != SECPOOL_OK)
			return MSG_READBACK_UNREACHABLE;
		if (memcmp(made, found, count) != 0) /* lint: memcmp of public bytes */
			return MSG_READBACK_DIFFERED;
	}
	return MSG_READBACK_MATCHED;
}

enum msg_readback overwrite_compare(
	struct prstream *stream, const uint8_t *map, uint64_t bytes, const _Atomic int *stop)
{
	uint64_t at = 0;

	for (; bytes - at >= STEP_BYTES; at += STEP_BYTES) {
		enum msg_readback result;

		if (stopped(stop))
			return MSG_READBACK_UNREACHABLE;
		result = compare_step(stream, at, map + at);
		if (result != MSG_READBACK_MATCHED)
			return result;
	}
	return compare_rest(stream, at, map + at, bytes - at);
}

enum msg_readback overwrite_range(
	int media_fd, uint64_t offset, uint64_t bytes, const _Atomic int *stop)
{
	enum msg_readback result = MSG_READBACK_NOT_OVERWRITTEN;
	struct prstream *stream = NULL;
	void *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, media_fd, (off_t)offset);

	if (map == MAP_FAILED)
		return MSG_READBACK_UNREACHABLE;
	if (prstream_new(&stream) == SECPOOL_OK) {
		populate(map, bytes, stop);
		result = overwrite_store(stream, map, bytes, stop);
		if (result == MSG_READBACK_MATCHED)
			result = overwrite_compare(stream, map, bytes, stop);
	}
	prstream_free(stream);
	munmap(map, bytes);
	return result;
}
