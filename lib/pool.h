/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The open pool and its regions as the library's files share them. Who changes what:
 * - the service thread (service.c): session, devices, placements, the table of regions, loss;
 * - workers (worker.h; fault.c, fill.c, evict.c): pages, each through its word (page.h);
 * - the program's threads: calls that are passed to the service, the event queue, and plain loads and stores. As guests, with a worker's
 *   place borrowed, they are workers for a moment: in fault mode inline, and in calls that move pages.
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
#include "lib/handlers.h"
#include "lib/keyring.h"
#include "lib/page.h"
#include "lib/readahead.h"
#include "lib/secpool.h"
#include "lib/uffd.h"
#include "lib/wire/msg.h"
#include "lib/worker.h"

enum {
	POOL_FAULT_THREADS_MOST = 16,
	POOL_WORKERS_MOST = 64,   /* the page cipher's most: handlers, the service, the cleaner, guests */
	POOL_REGIONS_MOST = 1024, /* of one session */
};

/* Where a part of a lane lies. */
struct place {
	uint64_t region_offset, bytes; /* in the lane */
	struct device *device;
	uint64_t offset; /* on the device */
};

/*
 * Where a part of a lane is copied to, off a draining device (move.h): what lies below `moved` is there, and not in its place any more. It is raised under the ownership of the page or stripe
 * that was copied, and lives as long as the region.
 */
struct target {
	unsigned lane;
	uint64_t region_offset, bytes; /* in the lane */
	struct device *device;
	uint64_t offset; /* on the device */
	_Atomic uint64_t moved; /* bytes from region_offset on */
	bool ended; /* it became a place, or was given up: one that is named again is another. The service's */
	struct target *next; /* of the region's */
};

/* A walk over all units of a region, at a rate (rebuild.h). */
struct walk {
	bool active;
	bool checks; /* also reads and checks what is there */
	uint64_t next, began_ns, bytes;
};

/* A region's move off a device (move.h): one that is draining, or one that keymgrd finds too full. */
struct move {
	const struct device *from; /* NULL: none is under way */
	bool lacks_room; /* the program was told so */
	uint64_t began_ns, bytes, due_ns;
	uint64_t bytes_per_second;
};

/* What keymgrd wants moved (move_want). slot 0: nothing. */
struct shift {
	uint64_t slot, bytes_per_second;
};

/* What a region's rotation is at (rotate.h has the table). */
enum rotation_state {
	ROTATION_NONE = 0,
	ROTATION_WANTED = 1,  /* keymgrd is to be asked for a new key */
	ROTATION_MOVING = 2,  /* pages move to it */
	ROTATION_TELLING = 3, /* all are there, the old key is wiped, and keymgrd is to be told */
	ROTATION_STATES = 4,
};

/* A region's rotation (rotate.h). */
struct rotation {
	enum rotation_state state;
	uint64_t next, met; /* the page that is looked at next; pages that were under the old key in this round */
	bool again;         /* not the first round */
	uint64_t began_ns, bytes;
	uint64_t due_ns;    /* when keymgrd is asked or told again */
	uint64_t wait_ns;   /* how long it was waited for that */
};

/* All places of a region; immutable once published. Older ones live as long as the region, for workers that still read them. */
struct placement {
	unsigned count[MSG_LANES_MAX];
	struct place *places[MSG_LANES_MAX]; /* sorted by region_offset */
	unsigned target_count[MSG_LANES_MAX];
	struct target **targets[MSG_LANES_MAX]; /* sorted by region_offset */
	struct placement *older;
};

/* Whether a region may change (seal.h). */
enum region_stage {
	REGION_OPEN = 0,
	REGION_FROZEN = 1, /* it is being sealed, or nobody knows whether it is: nothing is written, in memory or on devices */
	REGION_SEALED = 2, /* for ever */
};

struct secpool_region {
	struct secpool *pool; /* NULL: released (misuse.h) */
	uint32_t slot; /* in pool.regions */
	uint64_t id, epoch;
	uint8_t *address;
	size_t bytes, page_bytes;
	uint64_t page_count;
	unsigned data, lanes; /* data is 1: every lane is a copy; else page p is in lane p % data, and lanes - data lanes hold parity (erasure.h) */
	struct keyring keys;
	struct page *pages;
	struct stripe *stripes; /* of an erasure-coded region */
	uint64_t stripe_count;
	struct erasure_code *code;
	_Atomic(struct placement *) placement;
	int (*refill)(void *arg, size_t offset, void *buffer, size_t bytes); /* refill.h; NULL: no such mode */
	void *refill_arg;
	uint64_t refill_ns;
	_Atomic uint64_t lost_pages;
	_Atomic uint64_t barred_pages; /* fill.h */
	_Atomic bool ended; /* giveup.h */
	_Atomic uint64_t vanished; /* pages that somebody dropped round the library: charged until their entry leaves the cache's queues */
	struct readahead readahead;
	/* what became of pages that were filled clean (fill.h): written to after all, or evicted as they were; relaxed hints */
	_Atomic uint32_t rewritten, stayed_clean;
	_Atomic bool fills_writable;
	_Atomic bool check_wanted; /* a worker met bytes that are bad: there may be more */
	/* the service's: */
	bool lacks_places; /* parts of lanes have no place: keymgrd is asked for some again */
	struct walk rebuild, patrol;
	uint64_t told_ns[MSG_PROGRESSES]; /* when keymgrd was told of each kind of walk */
	struct target *all_targets;
	struct move move;
	struct shift shift;
	struct rotation rotation;
	struct pins *pins;     /* pin.c's */
	_Atomic unsigned stage; /* enum region_stage; changed by the service */
	_Atomic(const uint8_t *) digests; /* of a sealed region: SHA-256 of each page's ciphertext, zeros of one that was never written; NULL before */
	bool sealing;          /* a thread is between seal.c's run_begin and run_end */
	bool owner;            /* it is sealed, and its release ends it for all */
	bool heap; /* made by the pool's own heap */
};

/* Nothing of it may be written any more, by anybody. */
static inline bool region_still(const struct secpool_region *region)
{
	/* acquire: who sees it sees the digests */
	return atomic_load_explicit(&region->stage, memory_order_acquire) != REGION_OPEN;
}

/* The regions of a pool in the order of their addresses; immutable once published. */
struct region_table {
	unsigned count;
	struct secpool_region *regions[];
};

struct service;
struct heap;
struct refiller;

struct secpool {
	char tenant[MSG_NAME_BYTES];
	int pid; /* of the process that opened it; a child made by fork has neither threads nor regions. 0: closed (misuse.h) */
	struct uffd uffd;         /* by the library's descriptor */
	struct uffd program_uffd; /* by the program's own, which it may close */
	_Atomic bool program_broken; /* it did: guests leave it to the handlers */
	struct cache cache;
	struct events events;
	struct service *service;

	pthread_mutex_t regions_lock; /* Held by who changes regions, and by who looks at them and is neither a worker that is inside nor the service */
	_Atomic(struct secpool_region *) regions[POOL_REGIONS_MOST]; /* by slot; changed by the service thread only */
	_Atomic(struct region_table *) table;                       /* changed by the service thread only */
	unsigned region_slots; /* slots above are empty; the service thread's */
	unsigned next_slot;    /* the service thread's */

	struct workers workers;
	struct handlers handlers;
	unsigned fault_threads;
	enum secpool_fault_mode fault_mode;
	bool read_only; /* it only attaches */
	_Atomic bool stopping;
	_Atomic bool measuring; /* overhead.h */

	_Atomic(struct device *) devices; /* all incarnations, newest first */

	_Atomic(struct refiller *) refiller;

	struct secpool_region_options heap_options; /* of the heap's regions; immutable */
	pthread_mutex_t heap_lock; /* Protects: the making of heap */
	_Atomic(struct heap *) heap; /* NULL until the first allocation; then the same until the pool is closed */
	_Atomic uint32_t heap_held; /* a futex: 1 while the heap is not to grow (heap_hold) */
	_Atomic uint32_t heap_growing; /* threads that are in the heap's hook: they hold jemalloc's locks and wait for the service */

	size_t local_bytes;
	_Atomic size_t pinned_bytes; /* pin.c's; parts that overlap count twice */
	bool allow_unlocked;
	const uint8_t *zeros; /* a page of zeros of the largest size, read-only */
};

/*
 * The region of an address or slot; NULL if there is none. It lives until the calling worker leaves (worker_leave): no lock and no count that workers share.
 * Threads: workers that are inside; the service.
 */
struct secpool_region *pool_find_address(struct secpool *pool, uintptr_t address);
struct secpool_region *pool_find_slot(struct secpool *pool, uint32_t slot);

/* The region is found from then on. Errors: SECPOOL_E_LIMIT when the session has too many, SECPOOL_E_NO_MEMORY. Threads: the service. */
enum secpool_error pool_add_region(struct secpool *pool, struct secpool_region *region) MUST_USE;

/* No new use begins; returns when no worker uses the region any more. Threads: the service. */
void pool_remove_region(struct secpool *pool, struct secpool_region *region);

/* Plaintext memory of the library itself: anonymous, locked, not dumped, not inherited. Errors: SECPOOL_E_NO_LOCKED_MEMORY. */
enum secpool_error pool_new_locked(const struct secpool *pool, size_t bytes, uint8_t **ret_memory) MUST_USE;
enum secpool_error pool_lock_range(const struct secpool *pool, void *start, size_t bytes) MUST_USE;

static inline struct worker *pool_service_worker(struct secpool *pool)
{
	return &pool->workers.all[pool->fault_threads];
}

/* Whether the program may use the pool. Errors: SECPOOL_E_CLOSED (it was closed; a child made by fork). */
enum secpool_error pool_check(const struct secpool *pool) MUST_USE;

/* What all workers counted. Threads: any. */
uint64_t pool_counter(const struct secpool *pool, enum counter counter);

#endif
