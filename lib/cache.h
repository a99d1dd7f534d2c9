/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The budget of plaintext in local memory, and the order in which pages leave it: first in, first out.
 *
 * The queue holds one entry for each resident page (8 bytes). Entries of released regions are taken out at release.
 * Threads: any; cache.lock is held for a few instructions.
 */
#ifndef SECPOOL_CACHE_H
#define SECPOOL_CACHE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

struct cache_entry {
	uint32_t region; /* slot in the pool's table */
	uint64_t pgno;
};

struct cache {
	pthread_mutex_t lock; /* Protects: all below. Not: the sizes (immutable) */
	size_t limit_bytes, low_bytes, high_bytes;
	pthread_cond_t low; /* less than low_bytes are free, or stopping */
	bool cleaning, stopping;
	size_t used_bytes;
	uint64_t *ring;       /* region 16 | page number 48 */
	size_t ring_size;     /* a power of two, more than the pages that fit the limit */
	size_t head, count;
};

enum { CACHE_REGIONS_MOST = 1 << 16 };

/* The marks between which the cleaner keeps free room, as parts of the limit. */
enum { CACHE_LOW_PART = 32, CACHE_HIGH_PART = 16 };

/* limit_bytes: of plaintext pages, without the workers' own. Errors: SECPOOL_E_NO_MEMORY. */
enum secpool_error cache_init(struct cache *cache, size_t limit_bytes) MUST_USE;
void cache_done(struct cache *cache);

/* Takes bytes from the budget; false if they don't fit. */
bool cache_reserve(struct cache *cache, size_t bytes);
void cache_return(struct cache *cache, size_t bytes);

/*
 * The cleaner's wait: returns true when pages should go: from the moment when less than low_bytes are free until high_bytes are (hysteresis). False after cache_stop.
 */
bool cache_wait_low(struct cache *cache);
void cache_stop(struct cache *cache);

/* A page became resident, or goes to the back of the queue. */
void cache_push(struct cache *cache, uint32_t region, uint64_t pgno);

/* Takes the next victim; false if the queue is empty. */
bool cache_pop(struct cache *cache, struct cache_entry *ret_entry);

/* How many pages are queued. */
size_t cache_count(struct cache *cache);

/* Drops all entries of a region. */
void cache_forget(struct cache *cache, uint32_t region);

size_t cache_used_bytes(struct cache *cache);

#endif
