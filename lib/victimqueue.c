/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/victimqueue.h"

#include <assert.h>
#include <stdlib.h>

#include "lib/base/os.h"

enum { ENTRY_BYTES = (VICTIMQUEUE_REGION_BITS + VICTIMQUEUE_PGNO_BITS) / 8 };

struct victimqueue_chunk {
	uint32_t next; /* number + 1, 0 none */
	uint16_t since;
	uint8_t begin, end; /* entries begin to end - 1 are queued */
	uint8_t entries[VICTIMQUEUE_CHUNK_ENTRIES][ENTRY_BYTES];
	uint8_t unused;
};

_Static_assert(sizeof(struct victimqueue_chunk) == VICTIMQUEUE_CHUNK_BYTES, "two cache lines");

enum secpool_error victimqueue_store_init(
	struct victimqueue_store *store, size_t pages, unsigned queues)
{
	size_t count = pages / (VICTIMQUEUE_CHUNK_BYTES / 8);
	size_t least = pages / VICTIMQUEUE_CHUNK_ENTRIES + 1 + 2 * (size_t)queues;

	if (count < least)
		count = least;
	if (count >= UINT32_MAX)
		return err_set(SECPOOL_E_LIMIT, "%zu pages are too many to queue", pages);
	*store = (struct victimqueue_store){.chunk_count = (uint32_t)count};
	store->chunks = aligned_alloc(VICTIMQUEUE_CHUNK_BYTES, count * VICTIMQUEUE_CHUNK_BYTES);
	if (!store->chunks)
		return os_error("queues of %zu pages", pages);
	return SECPOOL_OK;
}

void victimqueue_store_done(struct victimqueue_store *store)
{
	free(store->chunks);
	store->chunks = NULL;
}

static struct victimqueue_chunk *chunk_at(const struct victimqueue_store *store, uint32_t number)
{
	return &store->chunks[number - 1];
}

static uint32_t take_chunk(struct victimqueue_store *store)
{
	uint32_t number;

	spinlock_take(&store->lock);
	number = store->free;
	if (number)
		store->free = chunk_at(store, number)->next;
	else if (store->fresh < store->chunk_count)
		number = ++store->fresh;
	spinlock_give(&store->lock);
	return number;
}

static void give_chunk(struct victimqueue_store *store, uint32_t number)
{
	spinlock_take(&store->lock);
	chunk_at(store, number)->next = store->free;
	store->free = number;
	spinlock_give(&store->lock);
}

static void put_entry(uint8_t *at, struct victimqueue_entry entry)
{
	uint64_t packed = entry.pgno << VICTIMQUEUE_REGION_BITS | entry.region;

	for (unsigned i = 0; i < ENTRY_BYTES; i++)
		at[i] = (uint8_t)(packed >> 8 * i);
}

static struct victimqueue_entry get_entry(const uint8_t *at)
{
	uint64_t packed = 0;

	for (unsigned i = 0; i < ENTRY_BYTES; i++)
		packed |= (uint64_t)at[i] << 8 * i;
	return (struct victimqueue_entry){
		.region = (uint32_t)(packed & ((1u << VICTIMQUEUE_REGION_BITS) - 1)),
		.pgno = packed >> VICTIMQUEUE_REGION_BITS,
	};
}

/* As victimqueue_push; a chunk that is needed is *spare, if there is one, else from the store. */
static bool push(struct victimqueue_store *store, struct victimqueue *queue,
	struct victimqueue_entry entry, uint16_t since, uint32_t *spare)
{
	struct victimqueue_chunk *chunk = queue->last ? chunk_at(store, queue->last) : NULL;

	assert(entry.region >> VICTIMQUEUE_REGION_BITS == 0 &&
		entry.pgno >> VICTIMQUEUE_PGNO_BITS == 0);
	if (!chunk || chunk->end == VICTIMQUEUE_CHUNK_ENTRIES) {
		uint32_t number = *spare ? *spare : take_chunk(store);
		*spare = 0;
		if (!number)
			return false;
		if (chunk)
			chunk->next = number;
		else
			queue->first = number;
		queue->last = number;
		chunk = chunk_at(store, number);
		chunk->next = 0;
		chunk->since = since;
		chunk->begin = chunk->end = 0;
	}
	put_entry(chunk->entries[chunk->end++], entry);
	queue->count++;
	return true;
}

bool victimqueue_push(struct victimqueue_store *store, struct victimqueue *queue,
	struct victimqueue_entry entry, uint16_t since)
{
	uint32_t none = 0;

	return push(store, queue, entry, since, &none);
}

/* Takes the first chunk out of the queue; it is the caller's to give back. */
static uint32_t unlink_first(struct victimqueue_store *store, struct victimqueue *queue)
{
	uint32_t number = queue->first;

	queue->first = chunk_at(store, number)->next;
	if (!queue->first)
		queue->last = 0;
	return number;
}

unsigned victimqueue_pop(struct victimqueue_store *store, struct victimqueue *queue,
	struct victimqueue_entry *ret_entries, unsigned most)
{
	struct victimqueue_chunk *chunk;
	unsigned taken = 0;

	if (!queue->first)
		return 0;
	chunk = chunk_at(store, queue->first);
	while (taken < most && chunk->begin < chunk->end)
		ret_entries[taken++] = get_entry(chunk->entries[chunk->begin++]);
	queue->count -= taken;
	if (chunk->begin == chunk->end)
		give_chunk(store, unlink_first(store, queue));
	return taken;
}

uint16_t victimqueue_since(const struct victimqueue_store *store, const struct victimqueue *queue)
{
	assert(queue->first);
	return chunk_at(store, queue->first)->since;
}

size_t victimqueue_forget(
	struct victimqueue_store *store, struct victimqueue *queue, uint32_t region)
{
	struct victimqueue kept = {0};
	size_t before = queue->count;

	while (queue->first) {
		/* copied, and used again for what stays: at most one chunk is needed for each, and others may empty the store meanwhile */
		uint32_t spare = unlink_first(store, queue);
		struct victimqueue_chunk chunk = *chunk_at(store, spare);

		for (unsigned i = chunk.begin; i < chunk.end; i++) {
			struct victimqueue_entry entry = get_entry(chunk.entries[i]);
			if (entry.region != region)
				(void)!push(store, &kept, entry, chunk.since, &spare);
		}
		if (spare)
			give_chunk(store, spare);
	}
	*queue = kept;
	return before - kept.count;
}
