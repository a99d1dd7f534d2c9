/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/readahead.h"

#include <stddef.h>

/* A page number that no region has: 2^36 pages at most. */
#define NO_PAGE UINT64_MAX

void readahead_init(struct readahead *readahead, uint32_t window_most)
{
	*readahead = (struct readahead){.window_most = window_most < READAHEAD_WINDOW_MOST
							       ? window_most
							       : READAHEAD_WINDOW_MOST};
	for (unsigned p = 0; p < READAHEAD_PARTS; p++)
		for (unsigned i = 0; i < READAHEAD_STREAMS; i++)
			readahead->parts[p].streams[i] =
				(struct readahead_stream){.last = NO_PAGE, .next = NO_PAGE};
}

static struct readahead_part *part_of(struct readahead *readahead, uint64_t pgno)
{
	return &readahead->parts[pgno / READAHEAD_PART_PAGES % READAHEAD_PARTS];
}

/* The stream that expected this fault. */
static struct readahead_stream *find_expected(struct readahead_part *part, uint64_t pgno)
{
	for (unsigned i = 0; i < READAHEAD_STREAMS; i++)
		if (part->streams[i].next == pgno && part->streams[i].stride != 0)
			return &part->streams[i];
	return NULL;
}

/* The stream whose last fault is near enough to make a stride with this one. */
static struct readahead_stream *find_near(struct readahead_part *part, uint64_t pgno)
{
	for (unsigned i = 0; i < READAHEAD_STREAMS; i++) {
		struct readahead_stream *stream = &part->streams[i];
		int64_t stride = (int64_t)(pgno - stream->last);
		if (stream->last != NO_PAGE && stride != 0 && stride <= READAHEAD_STRIDE_MOST &&
			stride >= -READAHEAD_STRIDE_MOST)
			return stream;
	}
	return NULL;
}

static struct readahead_stream *find_idle(struct readahead_part *part)
{
	struct readahead_stream *idle = &part->streams[0];

	for (unsigned i = 1; i < READAHEAD_STREAMS; i++)
		if (part->streams[i].used < idle->used)
			idle = &part->streams[i];
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

/* A stream whose next fault will be noted in another part goes on there. */
static void hand_over(struct readahead *readahead, struct readahead_stream moving)
{
	struct readahead_part *part = part_of(readahead, moving.next);
	struct readahead_stream *place;

	spinlock_take(&part->lock);
	place = find_idle(part);
	moving.used = part->now;
	*place = moving;
	spinlock_give(&part->lock);
}

/* The stream that the fault belongs to, its window and stride brought up to date. */
static struct readahead_stream *find_stream(
	struct readahead_part *part, uint64_t pgno, uint32_t window_most)
{
	struct readahead_stream *stream = find_expected(part, pgno);

	if (stream) {
		stream->window *= 2;
		if (stream->window > window_most)
			stream->window = window_most;
		return stream;
	}
	stream = find_near(part, pgno);
	if (stream) {
		stream->stride = (int64_t)(pgno - stream->last);
	} else {
		stream = find_idle(part);
		stream->stride = 0;
	}
	stream->window = 1;
	return stream;
}

unsigned readahead_note(
	struct readahead *readahead, uint64_t pgno, uint64_t page_count, int64_t *ret_stride)
{
	struct readahead_part *part = part_of(readahead, pgno);
	struct readahead_stream *stream, moving = {.next = NO_PAGE};
	unsigned count;

	spinlock_take(&part->lock);
	part->now++;
	stream = find_stream(part, pgno, readahead->window_most);
	count = stream->stride == 0 ? 1 : fit(pgno, stream->stride, page_count, stream->window);
	stream->last = pgno + (uint64_t)stream->stride * (count - 1);
	stream->next = stream->stride == 0 ? NO_PAGE : stream->last + (uint64_t)stream->stride;
	stream->used = part->now;
	*ret_stride = stream->stride;
	if (stream->next < page_count && part_of(readahead, stream->next) != part) {
		moving = *stream;
		*stream = (struct readahead_stream){.last = NO_PAGE, .next = NO_PAGE};
	}
	spinlock_give(&part->lock);
	if (moving.next != NO_PAGE)
		hand_over(readahead, moving);
	return count;
}
