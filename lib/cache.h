/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The budget of plaintext in local memory, and the order in which pages leave it (docs/eviction.md).
 *
 * There are two queues, each first in, first out: of new pages, and of hot ones. Nothing tells when a resident page is used; what is known is how long a page
 * had been out when it is asked for again. One that comes back soon enters the hot queue, so that a scan, whose pages don't come back, passes through the other one and pushes no
 * hot page out. When a page left is noted in its word as an era, a count of evictions in units of a part of the budget.
 *
 * Workers share as little as can be: each shard has its own lock, queues, and room in advance (credit), which it takes from the common count in larger pieces.
 * Threads: any, also guests in a signal's handler, with all other signals blocked; a shard's lock is held for a few instructions. Not for a handler: init, done, wait_low, forget.
 */
#ifndef SECPOOL_CACHE_H
#define SECPOOL_CACHE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"
#include "lib/spinlock.h"
#include "lib/victimqueue.h"

enum cache_queue { CACHE_NEW = 0, CACHE_HOT = 1, CACHE_QUEUES = 2 };

enum {
	CACHE_SHARDS = 16,   /* workers beyond share them */
	CACHE_ERA_BITS = 15,
	CACHE_ERAS = 64,     /* of one turn-over of the budget */
	CACHE_HOT_ERAS = 64, /* a page that was out no longer than this is hot */
	CACHE_REGIONS_MOST = 1 << VICTIMQUEUE_REGION_BITS,
	CACHE_LINE_BYTES = 64,
};

/* The marks between which the cleaner keeps free room, and what a shard takes in advance, as parts of the limit. */
enum { CACHE_LOW_PART = 32, CACHE_HIGH_PART = 16, CACHE_CREDIT_PART = 512 };

/* Victims are hot pages when those are more than so many of 8 queued pages; new ones otherwise. */
enum { CACHE_HOT_SHARE = 6 };

struct cache_entry {
	uint32_t region; /* slot in the pool's table */
	uint64_t pgno;
	enum cache_queue queue;
};

struct cache_shard {
	_Alignas(CACHE_LINE_BYTES) struct spinlock lock; /* Protects: queues, credit. Not: count, since (copies for who looks without it) */
	struct victimqueue queues[CACHE_QUEUES];
	_Atomic size_t credit; /* bytes, taken from the common count and not used yet */
	_Atomic uint32_t count[CACHE_QUEUES];
	_Atomic uint32_t since[CACHE_QUEUES]; /* era of the queue's first entries */
};

struct cache {
	size_t limit_bytes, low_bytes, high_bytes, credit_bytes, era_pages; /* immutable */
	struct victimqueue_store store;
	_Alignas(CACHE_LINE_BYTES) _Atomic size_t taken_bytes; /* used, and the shards' credit */
	_Alignas(CACHE_LINE_BYTES) _Atomic uint64_t popped;
	_Atomic uint32_t cleaning; /* a futex: 0 while the cleaner sleeps */
	_Atomic bool stopping;
	struct cache_shard shards[CACHE_SHARDS];
};

/* limit_bytes: of plaintext in local memory. Errors: SECPOOL_E_NO_MEMORY. */
enum secpool_error cache_init(struct cache *cache, size_t limit_bytes) MUST_USE;
void cache_done(struct cache *cache);

/* Takes bytes from the budget; false, and nothing changed, if they don't fit. worker: any number. */
bool cache_reserve(struct cache *cache, unsigned worker, size_t bytes);
void cache_return(struct cache *cache, unsigned worker, size_t bytes);

/* What is reserved and was not returned. */
size_t cache_used_bytes(struct cache *cache);

/*
 * The cleaner's wait: returns true when pages should go: from the moment when less than low_bytes are free until high_bytes are (hysteresis). False after cache_stop.
 */
bool cache_wait_low(struct cache *cache);
void cache_stop(struct cache *cache);

/* A page became resident, or goes to the back of its queue. One entry a resident page: there is always room. */
void cache_push(struct cache *cache, unsigned worker, struct cache_entry entry);

/* Takes the next victims, `most` at the most, the oldest first; they say from which queue they come. Fewer, also 0, when nothing more is queued or
 * others take victims at the same moment. */
unsigned cache_pop(struct cache *cache, struct cache_entry *ret_entries, unsigned most);

/* To be noted for a page that leaves now; and the queue for a page that comes back and left in that era. */
uint16_t cache_era(const struct cache *cache);
enum cache_queue cache_queue_for(const struct cache *cache, uint16_t era);

/* How many pages are queued. */
size_t cache_count(struct cache *cache);

/* Drops all entries of a region. */
void cache_forget(struct cache *cache, uint32_t region);

/* What the queues take at the most. */
size_t cache_metadata_bytes(const struct cache *cache);

#endif
