/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding streams among a region's faults: forward, backward and strided, several at once. A fault where a stream was expected to go on widens that
 * stream's window; one that no stream expected starts a new stream in the place of the one that was idle longest, with a window of one page.
 * Threads: any; the lock is held for a few instructions.
 */
#ifndef SECPOOL_READAHEAD_H
#define SECPOOL_READAHEAD_H

#include <pthread.h>
#include <stdint.h>

enum {
	READAHEAD_STREAMS = 8,
	READAHEAD_WINDOW_MOST = 32, /* pages */
	READAHEAD_STRIDE_MOST = 64, /* pages; faults further apart are not of one stream */
};

struct readahead_stream {
	uint64_t last;   /* the fault that was seen last */
	uint64_t next;   /* where the stream faults next, if it goes on */
	int64_t stride;  /* pages; 0: only one fault was seen */
	uint32_t window; /* pages filled at the last fault */
	uint64_t used;   /* when, in faults */
};

struct readahead {
	pthread_mutex_t lock; /* Protects: all below */
	struct readahead_stream streams[READAHEAD_STREAMS];
	uint64_t now; /* faults so far */
};

void readahead_init(struct readahead *readahead);
void readahead_done(struct readahead *readahead);

/*
 * Notes a fault at pgno of a region of page_count pages. Returns how many pages to fill, from 1 to the window that fits the region: pgno, pgno + *ret_stride and so on.
 */
unsigned readahead_note(struct readahead *readahead, uint64_t pgno, uint64_t page_count, int64_t *ret_stride);

#endif
