/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes that leave the process: little endian, written and read by these helpers and never by laying a struct
 * over a buffer. A writer or reader that ran over its end stays failed and does nothing more, so that
 * one check at the end is enough.
 */
#ifndef SECPOOL_BASE_BUF_H
#define SECPOOL_BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct buf_writer {
	uint8_t *bytes;
	size_t capacity;
	size_t used;
	bool failed;
};

struct buf_reader {
	const uint8_t *bytes;
	size_t count;
	size_t used;
	bool failed;
};

static inline void buf_put(struct buf_writer *w, const void *from, size_t count)
{
	if (w->failed || count > w->capacity - w->used) {
		w->failed = true;
		return;
	}
	memcpy(w->bytes + w->used, from, count);
	w->used += count;
}

static inline void buf_put_number(struct buf_writer *w, uint64_t value, size_t count)
{
	uint8_t le[8];

	for (size_t i = 0; i < count; i++)
		le[i] = (uint8_t)(value >> (8 * i));
	buf_put(w, le, count);
}

static inline void buf_get(struct buf_reader *r, void *to, size_t count)
{
	if (r->failed || count > r->count - r->used) {
		r->failed = true;
		memset(to, 0, count);
		return;
	}
	memcpy(to, r->bytes + r->used, count);
	r->used += count;
}

static inline uint64_t buf_get_number(struct buf_reader *r, size_t count)
{
	uint8_t le[8];
	uint64_t value = 0;

	buf_get(r, le, count);
	for (size_t i = 0; i < count; i++)
		value |= (uint64_t)le[i] << (8 * i);
	return value;
}

#endif
