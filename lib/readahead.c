/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/readahead.h"

#include <stddef.h>

/* A page number that no region has: 2^36 pages at most. */
#define NO_PAGE UINT64_MAX

void readahead_init(struct readahead *readahead)
{
	*readahead = (struct readahead){.now = 0};
	for (unsigned i = 0; i < READAHEAD_STREAMS; i++)
		readahead->streams[i].last = readahead->streams[i].next = NO_PAGE;
	pthread_mutex_init(&readahead->lock, NULL);
}

void readahead_done(struct readahead *readahead)
{
	pthread_mutex_destroy(&readahead->lock);
}

/* The stream that expected this fault. */
static struct readahead_stream *find_expected(struct readahead *readahead, uint64_t pgno)
{
	for (unsigned i = 0; i < READAHEAD_STREAMS; i++)
		if (readahead->streams[i].next == pgno && readahead->streams[i].stride != 0)
			return &readahead->streams[i];
	return NULL;
}

/* The stream whose last fault is near enough to make a stride with this one. */
static struct readahead_stream *find_near(struct readahead *readahead, uint64_t pgno)
{
	for (unsigned i = 0; i < READAHEAD_STREAMS; i++) {
		struct readahead_stream *stream = &readahead->streams[i];
		int64_t stride = (int64_t)(pgno - stream->last);
		if (stream->last != NO_PAGE && stride != 0 && stride <= READAHEAD_STRIDE_MOST &&
			stride >= -READAHEAD_STRIDE_MOST)
			return stream;
	}
	return NULL;
}

static struct readahead_stream *find_idle(struct readahead *readahead)
{
	struct readahead_stream *idle = &readahead->streams[0];

	for (unsigned i = 1; i < READAHEAD_STREAMS; i++)
		if (readahead->streams[i].used < idle->used)
			idle = &readahead->streams[i];
	return idle;
}

/* How many steps of the stride stay inside the region, up to `most`. */
static unsigned fit(uint64_t pgno, int64_t stride, uint64_t page_count, unsigned most)
{
	unsigned count = 1;

	while (count < most) {
		uint64_t at = pgno + (uint64_t)stride * count; /* wraps to a huge number below 0 */
		if (at >= page_count)
			break;
		count++;
	}
	return count;
}

unsigned readahead_note(
	struct readahead *readahead, uint64_t pgno, uint64_t page_count, int64_t *ret_stride)
{
	struct readahead_stream *stream;
	unsigned count;

	pthread_mutex_lock(&readahead->lock);
	readahead->now++;
	stream = find_expected(readahead, pgno);
	if (stream) {
		stream->window *= 2;
		if (stream->window > READAHEAD_WINDOW_MOST)
			stream->window = READAHEAD_WINDOW_MOST;
	} else {
		stream = find_near(readahead, pgno);
		if (stream) {
			stream->stride = (int64_t)(pgno - stream->last);
		} else {
			stream = find_idle(readahead);
			stream->stride = 0;
		}
		stream->window = 1;
	}
	count = stream->stride == 0 ? 1 : fit(pgno, stream->stride, page_count, stream->window);
	stream->last = pgno + (uint64_t)stream->stride * (count - 1);
	stream->next = stream->stride == 0 ? NO_PAGE : stream->last + (uint64_t)stream->stride;
	stream->used = readahead->now;
	*ret_stride = stream->stride;
	pthread_mutex_unlock(&readahead->lock);
	return count;
}
