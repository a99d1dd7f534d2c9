/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a heap is given back, checked: an object that it does not have, or has already, would spoil it silently. Misuse ends the program (misuse.h).
 *
 * Known without touching the pool: which 2 MiB of addresses are the heap's, and where objects above HEAPCHECK_SMALL_MOST begin (at most one in a page of 4 KiB: 2 bytes for each). A smaller object that is freed gets a mark in its
 * first bytes, a secret of the heap's mixed with its address; when it is handed out that is cleared. Only objects whose page is in local memory are marked and looked at: freeing what is elsewhere does not bring it in. So a double free of
 * those is found where the page stayed; one of an object that was handed out again meanwhile can't be told from a free.
 * Threads: any.
 */
#ifndef SECPOOL_HEAPCHECK_H
#define SECPOOL_HEAPCHECK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"
#include "lib/base/guarded_copy.h"
#include "lib/page.h"

enum {
	HEAPCHECK_SMALL_MOST = 4096, /* bytes */
	HEAPCHECK_SMALL_LEAST = 16, /* no smaller object is made: jemalloc says 8 bytes of what it does not know */
	HEAPCHECK_PAGE_BYTES = 4096,
	HEAPCHECK_CHUNK_SHIFT = 21, /* regions are aligned so */
	HEAPCHECK_LEAF_SHIFT = 33,
	HEAPCHECK_LEAVES = 1 << (47 - HEAPCHECK_LEAF_SHIFT), /* addresses of programs have 47 bits (x86-64, four levels) */
	HEAPCHECK_CHUNKS = 1 << (HEAPCHECK_LEAF_SHIFT - HEAPCHECK_CHUNK_SHIFT),
};

struct secpool_region;

/* 2 MiB of a region of the heap; pages are not larger. */
struct heapcheck_chunk {
	const struct page *pages; /* the region's, of the chunk's first */
	unsigned page_shift;
	_Atomic uint16_t begins[(1 << HEAPCHECK_CHUNK_SHIFT) / HEAPCHECK_PAGE_BYTES]; /* 0: no large object; else 1 more than where in the page it begins */
};

struct heapcheck_leaf {
	_Atomic(struct heapcheck_chunk *) chunks[HEAPCHECK_CHUNKS];
};

/* The chunks of one region. */
struct heapcheck_part {
	struct heapcheck_part *next;
	struct heapcheck_chunk chunks[];
};

struct heapcheck {
	uint64_t secret;
	const char *tenant;
	struct heapcheck_part *parts;
	_Atomic(struct heapcheck_leaf *) leaves[HEAPCHECK_LEAVES];
};

/* tenant: for the sentence; borrowed. Everything else of *check is zero. */
void heapcheck_init(struct heapcheck *check, const char *tenant);
void heapcheck_done(struct heapcheck *check);

/* The region is the heap's until heapcheck_done. Errors: SECPOOL_E_NO_MEMORY. */
enum secpool_error heapcheck_add(struct heapcheck *check, struct secpool_region *region) MUST_USE;

/* Ends the program: what was done with the object. */
_Noreturn void heapcheck_misuse(const struct heapcheck *check, const void *memory, const char *what);

/* The chunk that an address lies in; NULL: it is not the heap's. */
static inline struct heapcheck_chunk *heapcheck_find(struct heapcheck *check, const void *memory)
{
	uintptr_t at = (uintptr_t)memory;
	struct heapcheck_leaf *leaf;

	if (at >> HEAPCHECK_LEAF_SHIFT >= HEAPCHECK_LEAVES)
		return NULL;
	leaf = atomic_load_explicit(&check->leaves[at >> HEAPCHECK_LEAF_SHIFT], memory_order_acquire);
	return leaf ? atomic_load_explicit(&leaf->chunks[(at >> HEAPCHECK_CHUNK_SHIFT) % HEAPCHECK_CHUNKS], memory_order_acquire) : NULL;
}

static inline _Atomic uint16_t *heapcheck_begin(struct heapcheck_chunk *chunk, const void *memory)
{
	return &chunk->begins[(uintptr_t)memory % (1u << HEAPCHECK_CHUNK_SHIFT) / HEAPCHECK_PAGE_BYTES];
}

/* Whether a live large object begins there. */
static inline bool heapcheck_is_large(struct heapcheck_chunk *chunk, const void *memory)
{
	return atomic_load_explicit(heapcheck_begin(chunk, memory), memory_order_relaxed) == (uintptr_t)memory % HEAPCHECK_PAGE_BYTES + 1;
}

/* A large object is handed out. */
static inline void heapcheck_give_large(struct heapcheck *check, const void *memory)
{
	struct heapcheck_chunk *chunk = heapcheck_find(check, memory);

	atomic_store_explicit(heapcheck_begin(chunk, memory), (uint16_t)((uintptr_t)memory % HEAPCHECK_PAGE_BYTES + 1), memory_order_relaxed);
}

static inline void heapcheck_take_large(struct heapcheck_chunk *chunk, const void *memory)
{
	atomic_store_explicit(heapcheck_begin(chunk, memory), 0, memory_order_relaxed);
}

/* A small object is handed out. Where its page is lost there is no mark to clear, and nothing is raised: the program's own touch tells. */
static inline void heapcheck_give_small(void *memory)
{
	uint64_t before;

	(void)!guarded_swap(memory, 0, &before);
}

/* A small object comes back. */
static inline void heapcheck_take_small(struct heapcheck *check, struct heapcheck_chunk *chunk, void *memory)
{
	const struct page *page = &chunk->pages[(uintptr_t)memory % (1u << HEAPCHECK_CHUNK_SHIFT) >> chunk->page_shift];
	/* relaxed: a hint; a page that goes meanwhile comes back, and one that comes is waited for (its first touch may be over before its state says so) */
	enum page_state state = page_state(atomic_load_explicit(&page->word, memory_order_relaxed));
	uint64_t mark = check->secret ^ (uintptr_t)memory, before;

	if (state == PAGE_ABSENT || state == PAGE_FRESH || state == PAGE_LOST)
		return;
	if (guarded_swap(memory, mark, &before) == SECPOOL_OK && before == mark)
		heapcheck_misuse(check, memory, "it was freed already (double free)");
}

#endif
