/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/cache.h"

#include <assert.h>
#include <string.h>

#include "lib/base/os.h"

enum { LEAST_PAGE_BYTES = 4096, ERA_MASK = (1 << CACHE_ERA_BITS) - 1 };

enum secpool_error cache_init(struct cache *cache, size_t limit_bytes)
{
	size_t pages = limit_bytes / LEAST_PAGE_BYTES;

	memset(cache, 0, sizeof *cache);
	cache->limit_bytes = limit_bytes;
	cache->low_bytes = limit_bytes / CACHE_LOW_PART;
	cache->high_bytes = limit_bytes / CACHE_HIGH_PART;
	cache->credit_bytes = limit_bytes / CACHE_CREDIT_PART;
	cache->era_pages = pages / CACHE_ERAS > 0 ? pages / CACHE_ERAS : 1;
	atomic_store(&cache->cleaning, 1); /* until it first finds nothing to do */
	return victimqueue_store_init(&cache->store, pages, CACHE_SHARDS * CACHE_QUEUES);
}

void cache_done(struct cache *cache)
{
	victimqueue_store_done(&cache->store);
}

static struct cache_shard *shard_of(struct cache *cache, unsigned worker)
{
	return &cache->shards[worker % CACHE_SHARDS];
}

/* ---- the budget ---- */

static size_t free_bytes(const struct cache *cache)
{
	size_t taken = atomic_load_explicit(&cache->taken_bytes, memory_order_relaxed);

	return taken < cache->limit_bytes ? cache->limit_bytes - taken : 0;
}

/* Takes bytes from the common count, if they fit; wakes the cleaner when little is left. */
static bool take(struct cache *cache, size_t bytes)
{
	size_t taken = atomic_load_explicit(&cache->taken_bytes, memory_order_relaxed);
	bool fits;

	do {
		fits = bytes <= cache->limit_bytes && taken <= cache->limit_bytes - bytes;
		/* relaxed: a count; who uses the room orders its own accesses */
	} while (fits && !atomic_compare_exchange_weak_explicit(&cache->taken_bytes, &taken,
				 taken + bytes, memory_order_relaxed, memory_order_relaxed));
	if (free_bytes(cache) < cache->low_bytes &&
		!atomic_load_explicit(&cache->cleaning, memory_order_relaxed) &&
		atomic_exchange(&cache->cleaning, 1) == 0)
		spinlock_futex_wake(&cache->cleaning, 1);
	return fits;
}

static void give(struct cache *cache, size_t bytes)
{
	size_t before = atomic_fetch_sub_explicit(&cache->taken_bytes, bytes, memory_order_relaxed);

	assert(before >= bytes);
	(void)before;
}

/* What shards have in advance comes back to the common count. */
static void collect_credit(struct cache *cache)
{
	for (unsigned i = 0; i < CACHE_SHARDS; i++) {
		struct cache_shard *shard = &cache->shards[i];
		size_t credit;
		if (atomic_load_explicit(&shard->credit, memory_order_relaxed) == 0)
			continue;
		spinlock_take(&shard->lock);
		credit = atomic_exchange_explicit(&shard->credit, 0, memory_order_relaxed);
		spinlock_give(&shard->lock);
		if (credit > 0)
			give(cache, credit);
	}
}

/* Changes a shard's credit; its lock is held. */
static void set_credit_locked(struct cache_shard *shard, size_t bytes)
{
	atomic_store_explicit(&shard->credit, bytes, memory_order_relaxed);
}

bool cache_reserve(struct cache *cache, unsigned worker, size_t bytes)
{
	struct cache_shard *shard = shard_of(cache, worker);
	size_t credit;
	bool fits = true;

	spinlock_take(&shard->lock);
	credit = atomic_load_explicit(&shard->credit, memory_order_relaxed);
	if (bytes > cache->limit_bytes)
		fits = false;
	else if (credit >= bytes)
		set_credit_locked(shard, credit - bytes);
	else if (take(cache, bytes + cache->credit_bytes))
		set_credit_locked(shard, credit + cache->credit_bytes);
	else
		fits = take(cache, bytes);
	spinlock_give(&shard->lock);
	if (fits)
		return true;
	collect_credit(cache);
	return take(cache, bytes);
}

void cache_return(struct cache *cache, unsigned worker, size_t bytes)
{
	struct cache_shard *shard = shard_of(cache, worker);
	size_t credit, over = 0;

	spinlock_take(&shard->lock);
	credit = atomic_load_explicit(&shard->credit, memory_order_relaxed) + bytes;
	if (credit > cache->credit_bytes)
		over = credit - cache->credit_bytes;
	set_credit_locked(shard, credit - over);
	spinlock_give(&shard->lock);
	if (over > 0)
		give(cache, over);
}

size_t cache_used_bytes(struct cache *cache)
{
	size_t credit = 0, taken = atomic_load(&cache->taken_bytes);

	for (unsigned i = 0; i < CACHE_SHARDS; i++)
		credit += atomic_load_explicit(&cache->shards[i].credit, memory_order_relaxed);
	return taken > credit ? taken - credit : 0;
}

bool cache_wait_low(struct cache *cache)
{
	while (!atomic_load(&cache->stopping)) {
		if (free_bytes(cache) >= cache->high_bytes)
			atomic_store(&cache->cleaning, 0);
		/* seq_cst: either we see what was taken, or the taker sees that we sleep */
		atomic_thread_fence(memory_order_seq_cst);
		if (free_bytes(cache) < cache->low_bytes || atomic_load(&cache->stopping))
			atomic_store(&cache->cleaning, 1);
		if (atomic_load(&cache->cleaning))
			break;
		spinlock_futex_wait(&cache->cleaning, 0);
	}
	return !atomic_load(&cache->stopping);
}

void cache_stop(struct cache *cache)
{
	atomic_store(&cache->stopping, true);
	atomic_store(&cache->cleaning, 1);
	spinlock_futex_wake(&cache->cleaning, INT32_MAX);
}

/* ---- the queues ---- */

uint16_t cache_era(const struct cache *cache)
{
	return (uint16_t)(atomic_load_explicit(&cache->popped, memory_order_relaxed) /
				  cache->era_pages &
			  ERA_MASK);
}

static unsigned eras_since(const struct cache *cache, unsigned era)
{
	return ((unsigned)cache_era(cache) - era) & ERA_MASK;
}

enum cache_queue cache_queue_for(const struct cache *cache, uint16_t era)
{
	return eras_since(cache, era) <= CACHE_HOT_ERAS ? CACHE_HOT : CACHE_NEW;
}

/* Brings the copies up to date that are read without the lock, which is held. */
static void note_locked(struct cache *cache, struct cache_shard *shard, enum cache_queue queue)
{
	const struct victimqueue *it = &shard->queues[queue];

	atomic_store_explicit(&shard->count[queue], it->count, memory_order_relaxed);
	if (it->count > 0)
		atomic_store_explicit(&shard->since[queue], victimqueue_since(&cache->store, it),
			memory_order_relaxed);
}

void cache_push(struct cache *cache, unsigned worker, struct cache_entry entry)
{
	struct cache_shard *shard = shard_of(cache, worker);
	bool pushed;

	spinlock_take(&shard->lock);
	pushed = victimqueue_push(&cache->store, &shard->queues[entry.queue],
		(struct victimqueue_entry){.region = entry.region, .pgno = entry.pgno},
		cache_era(cache));
	note_locked(cache, shard, entry.queue);
	spinlock_give(&shard->lock);
	assert(pushed); /* one entry a resident page */
	(void)pushed;
}

static size_t count_of(struct cache *cache, enum cache_queue queue)
{
	size_t count = 0;

	for (unsigned i = 0; i < CACHE_SHARDS; i++)
		count += atomic_load_explicit(&cache->shards[i].count[queue], memory_order_relaxed);
	return count;
}

/* The shard whose first entries in the queue are the oldest; NULL if all are empty. */
static struct cache_shard *oldest(struct cache *cache, enum cache_queue queue)
{
	struct cache_shard *found = NULL;
	unsigned age = 0;

	for (unsigned i = 0; i < CACHE_SHARDS; i++) {
		struct cache_shard *shard = &cache->shards[i];
		unsigned since = atomic_load_explicit(&shard->since[queue], memory_order_relaxed);
		if (atomic_load_explicit(&shard->count[queue], memory_order_relaxed) == 0)
			continue;
		if (!found || eras_since(cache, since) > age) {
			found = shard;
			age = eras_since(cache, since);
		}
	}
	return found;
}

/* Takes entries of one queue; 0 if it is empty, or was emptied by others meanwhile. */
static unsigned pop_queue(
	struct cache *cache, enum cache_queue queue, struct cache_entry *ret_entries, unsigned most)
{
	struct victimqueue_entry entries[VICTIMQUEUE_CHUNK_ENTRIES];
	struct cache_shard *shard = oldest(cache, queue);
	unsigned count;

	if (!shard)
		return 0;
	if (most > VICTIMQUEUE_CHUNK_ENTRIES)
		most = VICTIMQUEUE_CHUNK_ENTRIES;
	spinlock_take(&shard->lock);
	count = victimqueue_pop(&cache->store, &shard->queues[queue], entries, most);
	note_locked(cache, shard, queue);
	spinlock_give(&shard->lock);
	for (unsigned i = 0; i < count; i++)
		ret_entries[i] = (struct cache_entry){
			.region = entries[i].region, .pgno = entries[i].pgno, .queue = queue};
	return count;
}

unsigned cache_pop(struct cache *cache, struct cache_entry *ret_entries, unsigned most)
{
	unsigned taken = 0, got = 1;

	while (taken < most && got > 0) {
		size_t hot = count_of(cache, CACHE_HOT), new = count_of(cache, CACHE_NEW);
		enum cache_queue queue =
			new == 0 || 8 * hot > CACHE_HOT_SHARE *(hot + new) ? CACHE_HOT : CACHE_NEW;
		got = pop_queue(cache, queue, ret_entries + taken, most - taken);
		taken += got;
	}
	/* relaxed: a clock */
	atomic_fetch_add_explicit(&cache->popped, taken, memory_order_relaxed);
	return taken;
}

size_t cache_count(struct cache *cache)
{
	return count_of(cache, CACHE_NEW) + count_of(cache, CACHE_HOT);
}

void cache_forget(struct cache *cache, uint32_t region)
{
	for (unsigned i = 0; i < CACHE_SHARDS; i++) {
		struct cache_shard *shard = &cache->shards[i];
		spinlock_take(&shard->lock);
		for (unsigned queue = 0; queue < CACHE_QUEUES; queue++) {
			victimqueue_forget(&cache->store, &shard->queues[queue], region);
			note_locked(cache, shard, queue);
		}
		spinlock_give(&shard->lock);
	}
}

size_t cache_metadata_bytes(const struct cache *cache)
{
	return (size_t)cache->store.chunk_count * VICTIMQUEUE_CHUNK_BYTES;
}
