/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding streams among a region's faults: forward, backward and strided, several at once. A fault where a stream was expected to go on widens that
 * stream's window; one that no stream expected starts a new stream in the place of the one that was idle longest, with a window of one page.
 *
 * Streams are kept by the part of the region that they are in, each part with a lock of its own, so that faults far apart share none; a stream that
 * leaves its part is handed to the next one's.
 * Threads: any; a lock is held for a few instructions.
 */
#ifndef SECPOOL_READAHEAD_H
#define SECPOOL_READAHEAD_H

#include <stdint.h>

#include "lib/spinlock.h"

enum {
	READAHEAD_PARTS = 8,
	READAHEAD_PART_PAGES = 4096, /* parts take turns over the region in pieces of this size */
	READAHEAD_STREAMS = 8,       /* of a part */
	READAHEAD_WINDOW_MOST = 128, /* pages */
	READAHEAD_STRIDE_MOST = 64,  /* pages; faults further apart are not of one stream */
};

struct readahead_stream {
	uint64_t last;   /* the fault that was seen last */
	uint64_t next;   /* where the stream faults next, if it goes on */
	int64_t stride;  /* pages; 0: only one fault was seen */
	uint32_t window; /* pages filled at the last fault */
	uint64_t used;   /* when, in faults of the part */
};

struct readahead_part {
	_Alignas(64) struct spinlock lock; /* Protects: all below */
	struct readahead_stream streams[READAHEAD_STREAMS];
	uint64_t now; /* faults so far */
};

struct readahead {
	uint32_t window_most; /* immutable */
	struct readahead_part parts[READAHEAD_PARTS];
};

/* window_most: pages, up to READAHEAD_WINDOW_MOST: what is read ahead must fit the local budget several times. */
void readahead_init(struct readahead *readahead, uint32_t window_most);

/*
 * Notes a fault at pgno of a region of page_count pages. Returns how many pages to fill, from 1 to the window that fits the region: pgno, pgno + *ret_stride and so on.
 */
unsigned readahead_note(struct readahead *readahead, uint64_t pgno, uint64_t page_count, int64_t *ret_stride);

#endif
