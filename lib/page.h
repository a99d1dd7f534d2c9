/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the library knows of one page: a word with state, valid copies and version, and the tag. 24 bytes a page.
 *
 * A page in FILLING or EVICTING belongs to the worker that brought it there; nobody else changes its contents, its tag or its version. Loss of a
 * device may clear bits of `copies` in any state; whoever ends a busy state looks at them in the same compare-and-swap.
 * A pinned page is not taken to be evicted (PAGE_EVICT_BEGIN is refused); it may change its protection.
 * The table of transitions is page_next: pure, and the only place that decides. Threads: any; the word is atomic.
 */
#ifndef SECPOOL_PAGE_H
#define SECPOOL_PAGE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "enclave/pagecipher.h"

enum page_state {
	PAGE_FRESH = 0,    /* never written: reads as zeros, version 0 */
	PAGE_FILLING = 1,  /* a worker is bringing it in */
	PAGE_CLEAN = 2,    /* resident, write-protected, same as in the pool */
	PAGE_DIRTY = 3,    /* resident, newer than the pool */
	PAGE_EVICTING = 4, /* a worker is writing it out, dropping it, or changing its protection */
	PAGE_ABSENT = 5,   /* only in the pool */
	PAGE_LOST = 6,     /* no copy is left */
	PAGE_STATES = 7,
};

enum page_event {
	PAGE_FILL_BEGIN = 0,   /* a worker takes an absent page to fill it */
	PAGE_FILL_CLEAN = 1,   /* it is mapped, write-protected */
	PAGE_FILL_DIRTY = 2,   /* it is mapped, writable */
	PAGE_FILL_UNDO = 3,    /* no room for it: back in the pool */
	PAGE_FILL_UNDO_FRESH = 4,
	PAGE_FILL_LOST = 5,    /* no copy of it is good */
	PAGE_WRITE = 6,        /* a clean page is to be written again, to all its places */
	PAGE_EVICT_BEGIN = 7,  /* a worker takes a resident page to write it out */
	PAGE_EVICT_DONE = 8,   /* it is in the pool and no longer mapped */
	PAGE_EVICT_FRESH = 9,  /* a page of zeros that nobody wrote to was dropped */
	PAGE_EVICT_CLEAN = 10, /* it is in the pool and mapped again (flush) */
	PAGE_EVICT_UNDO = 11,  /* it could not be written: resident and dirty */
	PAGE_EVICT_WRITTEN = 12, /* it was written to some copies; the worker still has it */
	PAGE_COPY_GONE = 13,   /* a copy went with its device, others are left */
	PAGE_COPIES_GONE = 14, /* the last copy in the pool went with its device */
	PAGE_VANISHED = 15,    /* a page that the worker took to look at is not mapped any more: somebody went round the library */
	PAGE_WRITE_BEGIN = 16, /* the program writes to a protected page: a worker ends the protection */
	PAGE_WRITE_END = 17,   /* it is writable */
	PAGE_FILL_WRITTEN = 18, /* the worker wrote a new version of it to the pool, without mapping it */
	PAGE_REWRITE_BEGIN = 19, /* a worker takes a lost page to write it anew, as a whole */
	PAGE_EVENTS = 20,
};

/* A transition that the table does not have. */
enum { PAGE_REFUSED = PAGE_STATES };

/* The next state, or PAGE_REFUSED. Pure. */
unsigned page_next(unsigned state, unsigned event);

const char *page_state_name(unsigned state);
const char *page_event_name(unsigned event);

struct page {
	_Atomic uint64_t word;
	uint8_t tag[PAGECIPHER_TAG_BYTES]; /* of the version in the word; changed by the owner of a busy page only */
};

/*
 * The word: bits 0-2 state, 3 waiters, 4-7 copies (bit c: copy c holds this version), 8-22 era (cache.h: when it was evicted; of a resident
 * page: PAGE_UNQUEUED), 23 pinned or barred,
 * 24-63 version: 39 bits of a number, and the bit that says under which of the region's two keys it was written (keyring.h). They are enough: a key seals 2^44 blocks at most, which are
 * 2^36 of the smallest pages.
 */
#define PAGE_WAITERS      8ull
#define PAGE_PINNED       (1ull << 23) /* of a resident page */
#define PAGE_BARRED       PAGE_PINNED  /* of one that is not: it is poisoned until there is room for it again (fill.h) */
#define PAGE_VERSION_MOST ((1ull << 40) - 1)
#define PAGE_KEY_BIT      (1ull << 39) /* of a version */

enum { PAGE_ERA_SHIFT = 8, PAGE_ERA_BITS = 15, PAGE_VERSION_SHIFT = 24 };
#define PAGE_ERA_MASK (((1ull << PAGE_ERA_BITS) - 1) << PAGE_ERA_SHIFT)

static inline enum page_state page_state(uint64_t word)
{
	return (enum page_state)(word & 7);
}

static inline unsigned page_copies(uint64_t word)
{
	return (unsigned)(word >> 4) & 15;
}

/* With the key's bit; 0: it was never written. */
static inline uint64_t page_version(uint64_t word)
{
	return word >> PAGE_VERSION_SHIFT;
}

static inline unsigned page_era(uint64_t word)
{
	return (unsigned)((word & PAGE_ERA_MASK) >> PAGE_ERA_SHIFT);
}

static inline uint64_t page_word(enum page_state state, unsigned copies, uint64_t version)
{
	return (uint64_t)state | (uint64_t)copies << 4 | version << PAGE_VERSION_SHIFT;
}

static inline bool page_busy(uint64_t word)
{
	return page_state(word) == PAGE_FILLING || page_state(word) == PAGE_EVICTING;
}

/*
 * One step of a page, if it is still as `seen` (the caller's last load; updated on failure, as by compare-exchange) and the table allows the
 * event. copies and version are the new ones. A step out of a busy state clears PAGE_WAITERS: *seen tells whether it was set, and then the
 * caller must wake the page's waiters. Returns whether the step was made; false also when the table refuses.
 */
bool page_step(struct page *page, uint64_t *seen, enum page_event event, unsigned copies, uint64_t version);

/* A bit of the era, while the page is resident: it is pinned and was taken out of the cache's queues. */
#define PAGE_UNQUEUED (1ull << PAGE_ERA_SHIFT)

/* Notes in a busy page, the caller's, when it was evicted; 0 in one that becomes resident. */
void page_note_era(struct page *page, unsigned era);

/* Pins a page. It must be DIRTY: false if it is not. A clean one would be made writable under the pin, and be dropped after it with what was stored there. */
bool page_pin(struct page *page);

/* If the page is pinned, notes that it is in no queue, and returns true. */
bool page_unqueue(struct page *page);

/* Ends the pin. Returns whether the page is in no queue: then the caller queues it. */
bool page_unpin(struct page *page) MUST_USE;

/*
 * Takes copies (a mask) away from the page in whatever state it is, because their device is gone. Returns whether the page thereby became
 * PAGE_LOST: then the caller poisons it.
 */
bool page_drop_copies(struct page *page, unsigned copies);

/* A page that is not busy is taken, to be given back in the state that it had: by which event, and by which with the copies and the version that it has then. Pure. */
enum page_event page_taking(enum page_state state);
enum page_event page_giving_back(enum page_state before, uint64_t version, unsigned copies);

/* Notes that somebody waits for the end of a busy state. Returns false if the page is not busy any more. */
bool page_wait(struct page *page, uint64_t seen);

/* The half of the word that state and waiters are in, for futex(2). */
static inline uint32_t *page_futex(struct page *page)
{
	_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the low half comes first");
	return (uint32_t *)(void *)&page->word;
}

#endif
