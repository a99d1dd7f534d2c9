/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/cache.h"

#include <assert.h>
#include <stdlib.h>

#include "lib/base/os.h"

enum { LEAST_PAGE_BYTES = 4096, PGNO_BITS = 48 };

enum secpool_error cache_init(struct cache *cache, size_t limit_bytes)
{
	size_t size = 16;

	while (size <= limit_bytes / LEAST_PAGE_BYTES + 1)
		size *= 2;
	*cache = (struct cache){
		.limit_bytes = limit_bytes,
		.low_bytes = limit_bytes / CACHE_LOW_PART,
		.high_bytes = limit_bytes / CACHE_HIGH_PART,
		.ring_size = size,
	};
	cache->ring = calloc(size, sizeof *cache->ring);
	if (!cache->ring)
		return os_error("queue of %zu pages", size);
	pthread_mutex_init(&cache->lock, NULL);
	pthread_cond_init(&cache->low, NULL);
	return SECPOOL_OK;
}

void cache_done(struct cache *cache)
{
	if (!cache->ring)
		return;
	free(cache->ring);
	cache->ring = NULL;
	pthread_mutex_destroy(&cache->lock);
	pthread_cond_destroy(&cache->low);
}

static size_t free_bytes(const struct cache *cache)
{
	return cache->limit_bytes - cache->used_bytes;
}

bool cache_wait_low(struct cache *cache)
{
	bool go_on;

	pthread_mutex_lock(&cache->lock);
	if (free_bytes(cache) >= cache->high_bytes)
		cache->cleaning = false;
	while (!cache->stopping && !cache->cleaning)
		pthread_cond_wait(&cache->low, &cache->lock);
	go_on = !cache->stopping;
	pthread_mutex_unlock(&cache->lock);
	return go_on;
}

void cache_stop(struct cache *cache)
{
	pthread_mutex_lock(&cache->lock);
	cache->stopping = true;
	pthread_cond_broadcast(&cache->low);
	pthread_mutex_unlock(&cache->lock);
}

bool cache_reserve(struct cache *cache, size_t bytes)
{
	bool fits;

	pthread_mutex_lock(&cache->lock);
	fits = bytes <= free_bytes(cache);
	if (fits)
		cache->used_bytes += bytes;
	if (!cache->cleaning && free_bytes(cache) < cache->low_bytes) {
		cache->cleaning = true;
		pthread_cond_signal(&cache->low);
	}
	pthread_mutex_unlock(&cache->lock);
	return fits;
}

void cache_return(struct cache *cache, size_t bytes)
{
	pthread_mutex_lock(&cache->lock);
	assert(bytes <= cache->used_bytes);
	cache->used_bytes -= bytes;
	pthread_mutex_unlock(&cache->lock);
}

void cache_push(struct cache *cache, uint32_t region, uint64_t pgno)
{
	pthread_mutex_lock(&cache->lock);
	assert(cache->count < cache->ring_size); /* one entry a resident page */
	cache->ring[(cache->head + cache->count++) & (cache->ring_size - 1)] =
		(uint64_t)region << PGNO_BITS | pgno;
	pthread_mutex_unlock(&cache->lock);
}

bool cache_pop(struct cache *cache, struct cache_entry *ret_entry)
{
	bool found;

	pthread_mutex_lock(&cache->lock);
	found = cache->count > 0;
	if (found) {
		uint64_t entry = cache->ring[cache->head];
		cache->head = (cache->head + 1) & (cache->ring_size - 1);
		cache->count--;
		ret_entry->region = (uint32_t)(entry >> PGNO_BITS);
		ret_entry->pgno = entry & ((1ull << PGNO_BITS) - 1);
	}
	pthread_mutex_unlock(&cache->lock);
	return found;
}

size_t cache_count(struct cache *cache)
{
	size_t count;

	pthread_mutex_lock(&cache->lock);
	count = cache->count;
	pthread_mutex_unlock(&cache->lock);
	return count;
}

void cache_forget(struct cache *cache, uint32_t region)
{
	size_t kept = 0;

	pthread_mutex_lock(&cache->lock);
	for (size_t i = 0; i < cache->count; i++) {
		uint64_t entry = cache->ring[(cache->head + i) & (cache->ring_size - 1)];
		if (entry >> PGNO_BITS != region)
			cache->ring[(cache->head + kept++) & (cache->ring_size - 1)] = entry;
	}
	cache->count = kept;
	pthread_mutex_unlock(&cache->lock);
}

size_t cache_used_bytes(struct cache *cache)
{
	size_t bytes;

	pthread_mutex_lock(&cache->lock);
	bytes = cache->used_bytes;
	pthread_mutex_unlock(&cache->lock);
	return bytes;
}
