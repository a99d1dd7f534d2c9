/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Queues of resident pages in the order in which they came, many of them in one piece of memory of a fixed size: a queue is a list of
 * chunks of two cache lines, each with 17 entries, taken from a common store. So the memory is bounded by 8 bytes for each page that
 * the store is for, however the pages spread over the queues, and nothing is allocated on the way.
 *
 * Threads: a queue belongs to whoever holds its owner's lock (cache.c); the store has its own lock, taken inside, once in 17 entries.
 */
#ifndef SECPOOL_VICTIMQUEUE_H
#define SECPOOL_VICTIMQUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"
#include "lib/spinlock.h"

enum {
	VICTIMQUEUE_CHUNK_ENTRIES = 17,
	VICTIMQUEUE_CHUNK_BYTES = 128,
	/* with fewer pages for each queue the half-filled chunks at both ends of the queues would not fit into 8 bytes a page: (1/16 - 1/17) of a page's chunk, 2 chunks a queue */
	VICTIMQUEUE_PAGES_LEAST = 2 * 16 * 17,
	VICTIMQUEUE_REGION_BITS = 16,
	VICTIMQUEUE_PGNO_BITS = 40,
};

struct victimqueue_chunk;

struct victimqueue_store {
	struct spinlock lock; /* Protects: free, fresh. Not: chunks, chunk_count (immutable) */
	uint32_t free;	      /* list of chunks that were used before: number + 1, 0 none */
	uint32_t fresh;	      /* chunks from here on were never used: their memory is not touched before */
	uint32_t chunk_count;
	struct victimqueue_chunk *chunks;
};

/* All zeros is an empty queue. */
struct victimqueue {
	uint32_t first, last; /* chunks: number + 1, 0 none */
	uint32_t count;	      /* entries */
};

struct victimqueue_entry {
	uint32_t region;
	uint64_t pgno;
};

/* pages: that fit the limit; queues: that share it. Errors: SECPOOL_E_NO_MEMORY. */
enum secpool_error victimqueue_store_init(struct victimqueue_store *store, size_t pages, unsigned queues) MUST_USE;
void victimqueue_store_done(struct victimqueue_store *store);

/*
 * Puts an entry last. since: any number that says when (victimqueue_since); a chunk keeps that of its first entry. False, and nothing
 * changed, if the store is used up: that takes more entries than it was made for.
 */
bool victimqueue_push(struct victimqueue_store *store, struct victimqueue *queue, struct victimqueue_entry entry, uint16_t since);

/* Takes up to `most` entries that are first and lie in one chunk; returns how many: 0 only if the queue is empty. */
unsigned victimqueue_pop(struct victimqueue_store *store, struct victimqueue *queue, struct victimqueue_entry *ret_entries, unsigned most);

/* When the first entries came. The queue is not empty. */
uint16_t victimqueue_since(const struct victimqueue_store *store, const struct victimqueue *queue);

/* Drops all entries of a region, in time that grows with the queue; returns how many. The order of the others stays. */
size_t victimqueue_forget(struct victimqueue_store *store, struct victimqueue *queue, uint32_t region);

#endif
