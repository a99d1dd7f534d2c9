/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The open pool and its regions as the library's files share them. Who changes what:
 * - the service thread (service.c): session, devices, placements, the table of regions, loss;
 * - workers (fault.c, fill.c, evict.c; the service thread is one too): pages, each through its word (page.h);
 * - the program's threads: only calls that are passed to the service, the event queue, and plain loads and stores.
 * docs/locking.md has the order of the locks.
 */
#ifndef SECPOOL_POOL_H
#define SECPOOL_POOL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "enclave/pagecipher.h"
#include "lib/cache.h"
#include "lib/device.h"
#include "lib/events.h"
#include "lib/page.h"
#include "lib/readahead.h"
#include "lib/secpool.h"
#include "lib/uffd.h"
#include "lib/wire/msg.h"

enum {
	POOL_FAULT_THREADS_MOST = 16,
	POOL_WORKERS_MOST = POOL_FAULT_THREADS_MOST + 2, /* and the service thread, and the cleaner */
	POOL_REGIONS_MOST = 1024,                        /* of one session */
};

/* Where a part of a copy lies. */
struct place {
	uint64_t region_offset, bytes;
	struct device *device;
	uint64_t offset; /* on the device */
};

/* All places of a region; immutable once published. Older ones live as long as the region, for workers that still read them. */
struct placement {
	unsigned count[MSG_COPIES_MAX];
	struct place *places[MSG_COPIES_MAX]; /* sorted by region_offset */
	struct placement *older;
};

struct secpool_region {
	struct secpool *pool;
	uint32_t slot; /* in pool.regions */
	uint64_t id, epoch;
	uint8_t *address;
	size_t bytes, page_bytes;
	uint64_t page_count;
	unsigned copies;
	enum secpool_on_loss on_loss;
	struct pagecipher *cipher;
	struct page *pages;
	_Atomic(struct placement *) placement;
	_Atomic unsigned users; /* workers at work on it: a release waits for none */
	_Atomic uint64_t lost_pages;
	struct readahead readahead;
	bool rebuilding;       /* pages from rebuild_next on may lack copies; the service's */
	uint64_t rebuild_next;
	bool heap; /* made by the pool's own heap */
};

/* What a worker has for itself, made once. */
struct worker {
	struct secpool *pool;
	unsigned index;
	uint8_t *ciphertext; /* private copy of what goes to or came from a device */
	uint8_t *plain;      /* locked: a page decrypted, before it is mapped */
	uint8_t *moved;      /* registered: where a victim's frame is moved to */
	pthread_t thread;
	bool started; /* thread runs; never for the service's worker */
};

struct counters {
	_Atomic uint64_t faults, fills, zero_fills, evictions, write_backs, integrity_failures, repairs, failovers;
};

struct service;
struct heap;

struct secpool {
	char tenant[MSG_NAME_BYTES];
	int pid; /* of the process that opened it; a child made by fork has neither threads nor regions */
	struct uffd uffd;
	struct cache cache;
	struct events events;
	struct counters counters;
	struct service *service;

	pthread_rwlock_t regions_lock; /* Protects: regions, region_slots (held to find one and count oneself in, never longer) */
	struct secpool_region *regions[POOL_REGIONS_MOST]; /* changed by the service thread only */
	unsigned region_slots; /* slots above are empty */
	unsigned next_slot;    /* the service thread's */

	struct worker workers[POOL_WORKERS_MOST]; /* the handlers', then the service's, then the cleaner's */
	unsigned fault_threads;
	_Atomic bool stopping;

	_Atomic(struct device *) devices; /* all incarnations, newest first */

	pthread_mutex_t heap_lock; /* Protects: heap */
	struct heap *heap;

	size_t local_bytes;
	bool allow_unlocked;
	const uint8_t *zeros; /* a page of zeros of the largest size, read-only */
};

/* The region of an address or slot, with its `users` raised; NULL if there is none. pool_leave ends the use. */
struct secpool_region *pool_enter_address(struct secpool *pool, uintptr_t address);
struct secpool_region *pool_enter_slot(struct secpool *pool, uint32_t slot);
void pool_leave(struct secpool_region *region);

/* Errors: SECPOOL_E_LIMIT when the session has too many regions. Then the region is found by faults. */
enum secpool_error pool_add_region(struct secpool *pool, struct secpool_region *region) MUST_USE;

/* No new use begins; returns when no worker uses the region any more. */
void pool_remove_region(struct secpool *pool, struct secpool_region *region);

/* Plaintext memory of the library itself: anonymous, locked, not dumped, not inherited. Errors: SECPOOL_E_NO_LOCKED_MEMORY. */
enum secpool_error pool_new_locked(const struct secpool *pool, size_t bytes, uint8_t **ret_memory) MUST_USE;
enum secpool_error pool_lock_range(const struct secpool *pool, void *start, size_t bytes) MUST_USE;

static inline struct worker *pool_service_worker(struct secpool *pool)
{
	return &pool->workers[pool->fault_threads];
}

/* How many workers a pool has. */
static inline unsigned pool_workers(const struct secpool *pool)
{
	return pool->fault_threads + 2;
}

static inline void counter_add(_Atomic uint64_t *counter, uint64_t count)
{
	atomic_fetch_add_explicit(counter, count, memory_order_relaxed);
}

#endif
