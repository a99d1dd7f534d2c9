/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/heap.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Debian's jemalloc under the names that lib/jemalloc.syms gives it. */
#define mallocx secpool_je_mallocx
#define xallocx secpool_je_xallocx
#define dallocx secpool_je_dallocx
#define sallocx secpool_je_sallocx
#define nallocx secpool_je_nallocx
#define mallctl secpool_je_mallctl
#include <jemalloc/jemalloc.h>

#include "lib/base/clock.h"
#include "lib/base/os.h"
#include "lib/heapcache.h"
#include "lib/heapcheck.h"
#include "lib/misuse.h"
#include "lib/region.h"
#include "lib/signals.h"
#include "lib/spinlock.h"

/* What jemalloc's "experimental.arenas_create_ext" takes (jemalloc 5.3, include/jemalloc/internal/arena_types.h): its own records stay outside the pool. */
struct arena_config {
	extent_hooks_t *hooks;
	bool metadata_use_hooks;
};

/* Regions are aligned so; an extent that must be aligned more is not to be had. */
enum { REGION_ALIGNMENT = 2 << 20 };

struct heap {
	extent_hooks_t hooks; /* first: jemalloc gives its address back */
	struct secpool *pool;
	unsigned arena;
	struct heapcaches caches; /* of objects up to KEPT_BYTES_MOST */
	struct heapcheck check;
};

/*
 * jemalloc's size classes up to KEPT_BYTES_MOST; a thread keeps so many objects of a class as have KEPT_CLASS_BYTES, but KEPT_LEAST at the least: under 1 MiB in all.
 * Immutable once made.
 */
enum {
	KEPT_BYTES_MOST = HEAPCHECK_SMALL_MOST,
	KEPT_CLASS_BYTES = 32 << 10,
	KEPT_LEAST = 16,
	CLASS_STEP = 8
};

static pthread_once_t classes_once = PTHREAD_ONCE_INIT;
static uint8_t
	class_of_step[KEPT_BYTES_MOST / CLASS_STEP + 1]; /* by size / CLASS_STEP, rounded up */
static size_t class_bytes[HEAPCACHE_CLASSES];

/* How often heap_hold looks whether somebody is in the hook. */
#define HOLD_LOOK_NS (100ull * 1000)

/* Of a thread: its last growth was refused because the heap is held; it holds the heap itself. */
static _Thread_local bool put_off __attribute__((tls_model("initial-exec")));
static _Thread_local bool holds __attribute__((tls_model("initial-exec")));

static size_t at_least(size_t bytes)
{
	return bytes < HEAPCHECK_SMALL_LEAST ? HEAPCHECK_SMALL_LEAST : bytes;
}

static void make_classes(void)
{
	unsigned count = 0;

	for (size_t step = 1; step <= KEPT_BYTES_MOST / CLASS_STEP; step++) {
		size_t wanted = step * CLASS_STEP;
		size_t bytes = nallocx(at_least(wanted), 0);
		if (count == 0 || class_bytes[count - 1] != bytes) {
			assert(count < HEAPCACHE_CLASSES);
			class_bytes[count++] = bytes;
		}
		class_of_step[step] = (uint8_t)(count - 1);
	}
}

static unsigned class_of(size_t bytes)
{
	return class_of_step[(bytes + CLASS_STEP - 1) / CLASS_STEP];
}

static void *new_region(struct heap *heap, size_t size)
{
	struct secpool_region *region;

	if (region_create_heap(heap->pool, size, &region) != SECPOOL_OK)
		return NULL;
	if (heapcheck_add(&heap->check, region) != SECPOOL_OK) {
		(void)!secpool_region_release(region, NULL);
		return NULL;
	}
	return secpool_region_address(region);
}

static void *extent_alloc(extent_hooks_t *hooks, void *wanted, size_t size, size_t alignment,
	bool *zero, bool *commit, unsigned arena)
{
	struct heap *heap = (struct heap *)(void *)hooks;
	struct secpool *pool = heap->pool;
	void *extent = NULL;

	(void)arena;
	if (wanted)
		return NULL;
	if (alignment > REGION_ALIGNMENT) {
		err_set(SECPOOL_E_INVALID, "the heap aligns to at most 2 MiB");
		return NULL;
	}
	/* first the count, then the look: heap_hold does it the other way round */
	atomic_fetch_add(&pool->heap_growing, 1);
	put_off = atomic_load(&pool->heap_held) != 0;
	if (!put_off)
		extent = new_region(heap, size);
	atomic_fetch_sub(&pool->heap_growing, 1);
	if (extent)
		*zero = *commit = true;
	return extent;
}

/* Extents stay regions until the pool is closed, are not split off, and are never given back page by page. */
static bool keep_extent(
	extent_hooks_t *hooks, void *at, size_t size, bool committed, unsigned arena)
{
	(void)hooks, (void)at, (void)size, (void)committed, (void)arena;
	return true;
}

static bool keep_part(
	extent_hooks_t *hooks, void *at, size_t size, size_t offset, size_t length, unsigned arena)
{
	(void)hooks, (void)at, (void)size, (void)offset, (void)length, (void)arena;
	return true;
}

static bool allow_split(extent_hooks_t *hooks, void *at, size_t size, size_t first, size_t second,
	bool committed, unsigned arena)
{
	(void)hooks, (void)at, (void)size, (void)first, (void)second, (void)committed, (void)arena;
	return false; /* false is success */
}

/* Parts of one extent may be merged again; two regions never touch, for the directory leaves a gap between them. */
static bool allow_merge(extent_hooks_t *hooks, void *at, size_t size, void *other,
	size_t other_size, bool committed, unsigned arena)
{
	(void)hooks, (void)at, (void)size, (void)other, (void)other_size, (void)committed,
		(void)arena;
	return false;
}

static int flags_of(const struct heap *heap)
{
	return MALLOCX_ARENA(heap->arena) | MALLOCX_TCACHE_NONE;
}

void heap_hold(struct secpool *pool)
{
	holds = true;
	atomic_store(&pool->heap_held, 1);
	while (atomic_load(&pool->heap_growing) != 0)
		clock_sleep_ns(HOLD_LOOK_NS);
}

void heap_let_go(struct secpool *pool)
{
	holds = false;
	atomic_store(&pool->heap_held, 0);
	spinlock_futex_wake(&pool->heap_held, INT32_MAX);
}

/* mallocx; what was refused because the heap is held is asked for again when it is not. */
static void *ask(struct heap *heap, size_t bytes, int flags)
{
	for (;;) {
		void *memory;

		put_off = false;
		memory = mallocx(bytes, flags);
		if (memory || !put_off || holds)
			return memory;
		while (atomic_load(&heap->pool->heap_held) != 0)
			spinlock_futex_wait(&heap->pool->heap_held, 1);
	}
}

/* A call of ask that another thread makes. */
struct late {
	struct heap *heap;
	size_t bytes;
	int flags;
	void *memory;
};

static void *allocate_late(void *arg)
{
	struct late *late = arg;

	late->memory = ask(late->heap, late->bytes, late->flags);
	return NULL;
}

/*
 * Memory from the arena that was asked for and no other: in a thread that ends, once its own destructor ran, jemalloc 5.3 takes memory from its arena 0 (imalloc_body, "reentrancy_level"), which is
 * ordinary memory. Then a thread that does not end asks.
 */
static void *allocate(struct heap *heap, size_t bytes, int more_flags)
{
	struct late late = {.heap = heap, .bytes = bytes, .flags = flags_of(heap) | more_flags};
	void *memory = ask(heap, late.bytes, late.flags);
	pthread_t thread;

	if (!memory || signals_in_window(memory, 1))
		return memory;
	dallocx(memory, MALLOCX_TCACHE_NONE);
	if (signals_start_thread(&thread, allocate_late, &late) != SECPOOL_OK)
		return NULL;
	pthread_join(thread, NULL);
	return late.memory;
}

static void *make_object(void *arg, unsigned class)
{
	return allocate(arg, class_bytes[class], 0);
}

static void give_back_object(void *arg, void *object)
{
	dallocx(object, flags_of(arg));
}

static void set_caches(struct heap *heap)
{
	heapcaches_prepare();
	heap->caches = (struct heapcaches){
		.arg = heap, .make = make_object, .give_back = give_back_object};
	for (unsigned i = 0; i < HEAPCACHE_CLASSES && class_bytes[i] > 0; i++) {
		size_t most = KEPT_CLASS_BYTES / class_bytes[i];
		if (most < KEPT_LEAST)
			most = KEPT_LEAST;
		if (most > HEAPCACHE_OBJECTS_MOST)
			most = HEAPCACHE_OBJECTS_MOST;
		heap->caches.most[i] = (unsigned)most;
	}
}

static enum secpool_error new_heap(struct secpool *pool, struct heap **ret_heap)
{
	struct heap *heap = calloc(1, sizeof *heap);
	struct arena_config config = {.metadata_use_hooks = false};
	size_t bytes = sizeof heap->arena;

	if (!heap)
		return os_error("heap");
	heap->pool = pool;
	heap->hooks = (extent_hooks_t){
		.alloc = extent_alloc,
		.dalloc = keep_extent,
		.destroy = NULL,
		.commit = keep_part,
		.decommit = keep_part,
		.purge_lazy = keep_part,
		.purge_forced = keep_part,
		.split = allow_split,
		.merge = allow_merge,
	};
	config.hooks = &heap->hooks;
	if (mallctl("experimental.arenas_create_ext", &heap->arena, &bytes, &config,
		    sizeof config) != 0) {
		free(heap);
		return err_set(SECPOOL_E_NO_MEMORY, "jemalloc made no arena for the pool's heap");
	}
	heapcheck_init(&heap->check, pool->tenant);
	pthread_once(&classes_once, make_classes);
	set_caches(heap);
	*ret_heap = heap;
	return SECPOOL_OK;
}

static struct heap *make_heap(struct secpool *pool)
{
	struct heap *heap;

	if (pool_check(pool) != SECPOOL_OK)
		return NULL;
	pthread_mutex_lock(&pool->heap_lock);
	heap = atomic_load(&pool->heap);
	if (!heap && new_heap(pool, &heap) == SECPOOL_OK)
		atomic_store(&pool->heap, heap);
	pthread_mutex_unlock(&pool->heap_lock);
	return heap;
}

static struct heap *get_heap(struct secpool *pool)
{
	struct heap *heap;

	if (!pool) {
		err_set(SECPOOL_E_INVALID, "a heap needs a pool");
		return NULL;
	}
	heap = atomic_load_explicit(&pool->heap, memory_order_acquire);
	return heap ? heap : make_heap(pool);
}

void heap_free(struct secpool *pool)
{
	struct heap *heap = atomic_exchange(&pool->heap, NULL);
	char name[64];

	if (!heap)
		return;
	heapcaches_done(&heap->caches);
	snprintf(name, sizeof name, "arena.%u.reset", heap->arena);
	mallctl(name, NULL, NULL, NULL, 0);
	/* the arena's number can't be used again by jemalloc before it is destroyed; its hooks must stay */
	heap->hooks.alloc = NULL;
	snprintf(name, sizeof name, "arena.%u.destroy", heap->arena);
	mallctl(name, NULL, NULL, NULL, 0);
	heapcheck_done(&heap->check);
	free(heap);
}

/* Sets the reason when jemalloc gave none of its own accord: a hook that failed has set one. */
static void *told(void *memory, size_t bytes)
{
	if (!memory && *err_detail() == '\0')
		err_set(SECPOOL_E_NO_SPACE, "the pool's heap has no %zu bytes", bytes);
	return memory;
}

/* A child's arena has objects left to give, but no memory under them. */
static bool is_child(const struct heap *heap)
{
	if (heap->pool->pid == getpid())
		return false;
	err_set(SECPOOL_E_CLOSED, "a child made by fork has no pool");
	return true;
}

/* From the heap itself: what no thread keeps. */
static void *allocate_large(struct heap *heap, size_t bytes, int more_flags)
{
	size_t wanted = at_least(bytes);
	void *memory;

	if (is_child(heap))
		return NULL;
	err_clear();
	memory = allocate(heap, wanted, more_flags);
	if (memory && nallocx(wanted, flags_of(heap) | more_flags) > HEAPCHECK_SMALL_MOST)
		heapcheck_give_large(&heap->check, memory);
	else if (memory)
		heapcheck_give_small(memory);
	return told(memory, bytes);
}

static void *allocate_small(struct heap *heap, size_t bytes)
{
	void *memory = bytes <= KEPT_BYTES_MOST
			       ? heapcache_take(&heap->caches, class_of(bytes ? bytes : 1))
			       : NULL;

	if (memory)
		heapcheck_give_small(memory);
	return memory;
}

void *secpool_malloc(struct secpool *pool, size_t bytes)
{
	struct heap *heap = get_heap(pool);
	void *memory = heap ? allocate_small(heap, bytes) : NULL;

	if (memory || !heap)
		return memory;
	return allocate_large(heap, bytes, 0);
}

void *secpool_calloc(struct secpool *pool, size_t count, size_t bytes)
{
	struct heap *heap = get_heap(pool);
	size_t total;
	void *memory;

	if (!heap)
		return NULL;
	if (__builtin_mul_overflow(count, bytes, &total)) {
		err_set(SECPOOL_E_NO_SPACE, "%zu times %zu bytes", count, bytes);
		return NULL;
	}
	memory = allocate_small(heap, total);
	return memory ? memset(memory, 0, total) : allocate_large(heap, total, MALLOCX_ZERO);
}

void *secpool_aligned_alloc(struct secpool *pool, size_t alignment, size_t bytes)
{
	struct heap *heap = get_heap(pool);

	if (!heap)
		return NULL;
	if (alignment == 0 || (alignment & (alignment - 1)) || alignment > REGION_ALIGNMENT) {
		err_set(SECPOOL_E_INVALID, "alignment %zu: a power of two up to 2 MiB", alignment);
		return NULL;
	}
	return allocate_large(heap, bytes, MALLOCX_ALIGN(alignment));
}

#define UNLIKELY(condition) __builtin_expect(!!(condition), 0)

/* The chunk of a live object, and its size. Ends the program where there is none. */
static inline struct heapcheck_chunk *find_object(
	struct heap *heap, const void *memory, size_t *ret_bytes)
{
	struct heapcheck_chunk *chunk = heapcheck_find(&heap->check, memory);
	size_t bytes;

	if (UNLIKELY(!chunk))
		heapcheck_misuse(&heap->check, memory,
			"it is not of this heap (another pool's, a region's, or ordinary memory)");
	/* of what is in the middle of a large object jemalloc says 8 bytes, of what was one, a very large number */
	*ret_bytes = bytes = sallocx(memory, 0);
	if (UNLIKELY(bytes < HEAPCHECK_SMALL_LEAST ||
		     (bytes <= HEAPCHECK_SMALL_MOST ? (uintptr_t)memory & ((bytes & -bytes) - 1)
						    : !heapcheck_is_large(chunk, memory))))
		heapcheck_misuse(&heap->check, memory,
			"no object begins there (it was freed already, or it is the middle of "
			"one)");
	return chunk;
}

void *secpool_realloc(struct secpool *pool, void *memory, size_t bytes)
{
	struct heap *heap = get_heap(pool);
	size_t has, wanted;
	void *moved;

	if (!memory)
		return secpool_malloc(pool, bytes);
	if (!heap || is_child(heap))
		return NULL;
	find_object(heap, memory, &has);
	wanted = nallocx(at_least(bytes), flags_of(heap));
	if (wanted == has || (has > HEAPCHECK_SMALL_MOST && wanted > HEAPCHECK_SMALL_MOST &&
				     xallocx(memory, wanted, 0, flags_of(heap)) == wanted))
		return memory;
	moved = secpool_malloc(pool, bytes);
	if (moved) {
		memcpy(moved, memory, has < bytes ? has : bytes);
		secpool_free(pool, memory);
	}
	return moved;
}

void secpool_free(struct secpool *pool, void *memory)
{
	struct heap *heap = memory ? get_heap(pool) : NULL;
	struct heapcheck_chunk *chunk;
	size_t bytes;

	if (UNLIKELY(!heap || signals_in_child())) {
		if (memory && pool && pool->pid == 0)
			misuse_end("secpool_free of object %p in a pool that was closed", memory);
		return;
	}
	chunk = find_object(heap, memory, &bytes);
	if (UNLIKELY(bytes > HEAPCHECK_SMALL_MOST)) {
		heapcheck_take_large(chunk, memory);
		dallocx(memory, flags_of(heap));
		return;
	}
	heapcheck_take_small(&heap->check, chunk, memory);
	if (!heapcache_keep(&heap->caches, class_of(bytes), memory))
		dallocx(memory, flags_of(heap));
}

size_t secpool_usable_size(struct secpool *pool, const void *memory)
{
	struct heap *heap = memory ? get_heap(pool) : NULL;
	size_t bytes;

	if (!heap)
		return 0;
	find_object(heap, memory, &bytes);
	return bytes;
}
