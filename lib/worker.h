/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who moves pages: a worker is a place with memory of its own, a slot of the page cipher and a shard of the cache. The handler threads, the service thread
 * and the cleaner have one each for their life. The others are for guests: threads of the program that serve their own fault (fault mode inline)
 * or move pages in a call (secpool_read, secpool_write, secpool_pin, secpool_prefetch). A guest borrows one and gives it back.
 *
 * A worker says when it is inside, so that a region that it may have found is not freed under it: nothing that workers share is written for that.
 * Threads: a worker belongs to one thread at a time.
 */
#ifndef SECPOOL_WORKER_H
#define SECPOOL_WORKER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

enum {
	WORKERS_MOST = 64,
	WORKER_CHUNK_PAGES = 16, /* pages of 4 KiB that are decrypted side by side, and mapped by one call: they fit the second-level cache */
	WORKER_CACHE_LINE = 64,
	WORKER_STAGES = 10, /* overhead.h */
};

/* What workers count, each for itself (pool_counter adds up). */
enum counter {
	COUNTER_FAULTS = 0,
	COUNTER_FILLS = 1,
	COUNTER_ZERO_FILLS = 2,
	COUNTER_EVICTIONS = 3,
	COUNTER_WRITE_BACKS = 4,
	COUNTER_INTEGRITY_FAILURES = 5,
	COUNTER_REPAIRS = 6,
	COUNTER_FAILOVERS = 7,
	COUNTERS = 8,
};

struct secpool;
struct evict_batch;

struct worker {
	struct secpool *pool;
	unsigned index;
	bool guest;
	const _Atomic uint32_t *gate; /* workers.gate */
	const struct uffd *uffd; /* the pool's, by the descriptor that this worker's threads have */
	uint8_t *ciphertext;     /* private copy of what goes to or came from a device */
	uint8_t *plain;          /* pages decrypted, before they are mapped; locked as far as it is used */
	uint8_t *coding;         /* private: the cells of a stripe (erasure.h); untouched where no region is erasure-coded */
	uint8_t *moved;          /* registered: where victims' frames are moved to; NULL for guests, and where too little can be locked */
	size_t staging_bytes;    /* of ciphertext and plain each */
	size_t locked_bytes;     /* of plain, from its start; the service's to know, 0 for guests, whose plain is locked whole */
	struct evict_batch *batch; /* evict.c's */
	pthread_t thread;
	bool started; /* thread runs; never for the service's worker, nor for guests */
	bool leads;   /* it reads faults (handlers.h) */
	uint64_t turn;
	uint64_t marked_ns; /* overhead.h */
	_Atomic uint64_t spent_ns[WORKER_STAGES];
	_Atomic uint64_t counters[COUNTERS];
	_Alignas(WORKER_CACHE_LINE) _Atomic uint64_t inside; /* 0: outside; else a number that no other stay has */
};

struct workers {
	unsigned count; /* all of them */
	unsigned first_guest;
	_Alignas(WORKER_CACHE_LINE) _Atomic uint32_t gate; /* a futex: 1 while the pool is stopped for a fork (snapshot.h) */
	_Atomic uint32_t gate_steps; /* a count: it is not stopped for nothing */
	_Atomic uint32_t fork_stage; /* a futex: enum stage (snapshot.c) */
	_Alignas(WORKER_CACHE_LINE) _Atomic uint64_t free; /* bit i: all[i] is a guest's place that nobody has */
	struct worker all[WORKERS_MOST];
};

/*
 * Makes the workers of a pool: threads' own places, then as many guests' as the machine and the local budget want. uffd: for the library's threads;
 * program_uffd: for guests. On error nothing is left. Errors: SECPOOL_E_NO_MEMORY, SECPOOL_E_NO_LOCKED_MEMORY.
 */
enum secpool_error workers_init(struct secpool *pool, unsigned own, const struct uffd *uffd, const struct uffd *program_uffd) MUST_USE;

/* No worker is in use. A pool that was never given workers is allowed. */
void workers_done(struct secpool *pool);

/* What all workers may hold of plaintext beside the mapped pages when pages have page_bytes: part of the local budget. */
size_t workers_plain_bytes(const struct secpool *pool, size_t page_bytes);

/*
 * Locks what the threads' own workers use of their memory for pages of page_bytes; to be called before there are such. Threads: the service.
 * Errors: SECPOOL_E_NO_LOCKED_MEMORY; what was locked stays.
 */
enum secpool_error workers_lock(struct secpool *pool, size_t page_bytes) MUST_USE;

/*
 * Makes every worker fit for pages of page_bytes; fewer guests' places may be left. Threads: the service, between faults.
 * Errors: SECPOOL_E_NO_MEMORY, SECPOOL_E_NO_LOCKED_MEMORY; what was grown stays.
 */
enum secpool_error workers_grow(struct secpool *pool, size_t page_bytes) MUST_USE;

/*
 * A guest's place for the calling thread, which has all signals but SIGBUS blocked until it gives the place back; waits until one is free. It is inside.
 */
struct worker *worker_borrow(struct secpool *pool);
void worker_give_back(struct worker *worker);

/* The other half of worker_enter: leaves, and enters when the gate is open. */
void worker_await_gate(struct worker *worker);

/* From enter to leave, regions that the worker finds are not freed. Waits while the pool is stopped. */
static inline void worker_enter(struct worker *worker)
{
	/* seq_cst: before the table is read; pool_remove_region changes the table before it looks here. So with the gate: who closes it looks here afterwards */
	atomic_store(&worker->inside, ++worker->turn);
	if (atomic_load(worker->gate) != 0)
		worker_await_gate(worker);
}

static inline void worker_leave(struct worker *worker)
{
	/* release: after all that was done with the region */
	atomic_store_explicit(&worker->inside, 0, memory_order_release);
}

static inline void counter_add(struct worker *worker, enum counter counter, uint64_t count)
{
	/* relaxed: counts order nothing */
	atomic_fetch_add_explicit(&worker->counters[counter], count, memory_order_relaxed);
}

/*
 * The gate: while it is closed no worker comes in, and the service does nothing (workers_await_open_gate). Whoever closes it opens it; false from there: it was open already, because nothing
 * was noted for SNAPSHOT_PATIENCE_NS, and so what was meant to stand still did not. close: false when it is closed by another. pass: this thread's guests come in all the same.
 * Threads: close: the service; the others: who had it closed.
 */
bool workers_close_gate(struct secpool *pool) MUST_USE;
bool workers_open_gate(struct secpool *pool);
bool workers_gate_closed(struct secpool *pool);
void workers_note_gate(struct secpool *pool);
void workers_pass_gate(bool passes);

/* Returns when the gate is open; opens it itself when nothing was noted for so long. Threads: the service, outside. */
void workers_await_open_gate(struct secpool *pool);

/* Returns when every stay that had begun before the call has ended. Threads: the service, outside. */
void workers_await(struct secpool *pool);

#endif
