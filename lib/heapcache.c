/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/heapcache.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

_Thread_local struct heapcache *heapcache_last;

static _Thread_local struct heapcache *own; /* all of this thread's */
static _Thread_local bool ends;		    /* its destructor ran: nothing is kept any more */
static pthread_mutex_t lock =
	PTHREAD_MUTEX_INITIALIZER; /* Protects: heapcaches.first, heapcache.next_of_heap, changes of heapcache.heap */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static bool works; /* set once; false in a child made by fork */

/* Holds: lock. */
static void unlink_locked(struct heapcache *cache, struct heapcaches *heap)
{
	struct heapcache **at = &heap->first;

	while (*at != cache)
		at = &(*at)->next_of_heap;
	*at = cache->next_of_heap;
}

/* The lock keeps the heap from being done meanwhile; jemalloc's are taken inside it. */
static void end_thread(void *unused)
{
	struct heapcache *next;

	(void)unused;
	ends = true;
	heapcache_last = NULL;
	for (; own; own = next) {
		struct heapcaches *heap;
		pthread_mutex_lock(&lock);
		heap = atomic_load(&own->heap);
		if (heap)
			unlink_locked(own, heap);
		for (unsigned class = 0; heap && class < HEAPCACHE_CLASSES; class ++)
			for (unsigned i = 0; i < own->classes[class].count; i++)
				heap->give_back(heap->arg, own->classes[class].objects[i]);
		pthread_mutex_unlock(&lock);
		next = own->next;
		free(own);
	}
}

/* The child has no part of the heap. The lock may be held by a thread that it does not have: it never takes it. */
static void forget_in_child(void)
{
	own = heapcache_last = NULL;
	works = false;
}

static void prepare(void)
{
	works = pthread_key_create(&key, end_thread) == 0 &&
		pthread_atfork(NULL, NULL, forget_in_child) == 0;
}

/* One for the heap: a new one, or one whose heap was done. */
static struct heapcache *new_cache(struct heapcaches *heap)
{
	struct heapcache *cache = own;

	while (cache && atomic_load(&cache->heap))
		cache = cache->next;
	if (!cache) {
		cache = calloc(1, sizeof *cache);
		if (!cache || pthread_setspecific(key, cache) != 0) {
			free(cache);
			return NULL;
		}
		cache->next = own;
		own = cache;
	}
	for (unsigned class = 0; class < HEAPCACHE_CLASSES; class ++)
		cache->classes[class].count = 0;
	pthread_mutex_lock(&lock);
	cache->next_of_heap = heap->first;
	heap->first = cache;
	atomic_store(&cache->heap, heap);
	pthread_mutex_unlock(&lock);
	return cache;
}

void heapcaches_prepare(void)
{
	pthread_once(&once, prepare);
}

static struct heapcache *find(struct heapcaches *heap)
{
	struct heapcache *cache = own;

	if (ends || !works)
		return NULL;
	while (cache && atomic_load(&cache->heap) != heap)
		cache = cache->next;
	if (!cache)
		cache = new_cache(heap);
	heapcache_last = cache;
	return cache;
}

/* Half as many as may be kept, so that neither frees nor further calls meet the end soon. */
void *heapcache_make(struct heapcaches *heap, unsigned class)
{
	struct heapcache *cache = find(heap);
	struct heapcache_class *kept = cache ? &cache->classes[class] : NULL;
	unsigned wanted = heap->most[class] / 2, made = 0;
	void *objects[HEAPCACHE_OBJECTS_MOST];

	if (!kept)
		return NULL;
	while (kept->count == 0 && made < wanted) {
		objects[made] = heap->make(heap->arg, class);
		if (!objects[made])
			break;
		made++;
	}
	/* the first made is the first out: as without a cache, addresses rise */
	while (made > 0)
		kept->objects[kept->count++] = objects[--made];
	return kept->count > 0 ? kept->objects[--kept->count] : NULL;
}

/* The older half goes. */
bool heapcache_spill(struct heapcaches *heap, unsigned class, void *object)
{
	struct heapcache *cache = find(heap);
	struct heapcache_class *kept = cache ? &cache->classes[class] : NULL;
	unsigned going = heap->most[class] / 2;

	if (!kept)
		return false;
	if (kept->count >= heap->most[class]) {
		for (unsigned i = 0; i < going; i++)
			heap->give_back(heap->arg, kept->objects[i]);
		kept->count -= going;
		memmove(kept->objects, kept->objects + going, kept->count * sizeof(void *));
	}
	kept->objects[kept->count++] = object;
	return true;
}

void heapcaches_done(struct heapcaches *heap)
{
	pthread_mutex_lock(&lock);
	for (; heap->first; heap->first = heap->first->next_of_heap)
		atomic_store(&heap->first->heap, NULL);
	pthread_mutex_unlock(&lock);
}
