/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/page.h"

/* entries hold next state + 1, so that a missing one is 0 and refused */
#define TO(state) ((state) + 1)

static const uint8_t table[PAGE_STATES][PAGE_EVENTS] = {
	[PAGE_FRESH] = {[PAGE_FILL_BEGIN] = TO(PAGE_FILLING)},
	[PAGE_ABSENT] = {[PAGE_FILL_BEGIN] = TO(PAGE_FILLING),
		[PAGE_COPY_GONE] = TO(PAGE_ABSENT),
		[PAGE_COPIES_GONE] = TO(PAGE_LOST)},
	[PAGE_FILLING] = {[PAGE_FILL_CLEAN] = TO(PAGE_CLEAN),
		[PAGE_FILL_DIRTY] = TO(PAGE_DIRTY),
		[PAGE_FILL_UNDO] = TO(PAGE_ABSENT),
		[PAGE_FILL_UNDO_FRESH] = TO(PAGE_FRESH),
		[PAGE_FILL_LOST] = TO(PAGE_LOST),
		[PAGE_FILL_WRITTEN] = TO(PAGE_FILLING),
		[PAGE_COPY_GONE] = TO(PAGE_FILLING),
		[PAGE_COPIES_GONE] = TO(PAGE_FILLING)},
	[PAGE_CLEAN] = {[PAGE_WRITE] = TO(PAGE_DIRTY),
		[PAGE_WRITE_BEGIN] = TO(PAGE_EVICTING),
		[PAGE_EVICT_BEGIN] = TO(PAGE_EVICTING),
		[PAGE_COPY_GONE] = TO(PAGE_CLEAN),
		[PAGE_COPIES_GONE] = TO(PAGE_DIRTY)},
	[PAGE_DIRTY] =
		{[PAGE_WRITE_BEGIN] = TO(PAGE_EVICTING), [PAGE_EVICT_BEGIN] = TO(PAGE_EVICTING)},
	[PAGE_LOST] = {[PAGE_REWRITE_BEGIN] = TO(PAGE_FILLING)},
	[PAGE_EVICTING] = {[PAGE_WRITE_END] = TO(PAGE_DIRTY),
		[PAGE_EVICT_DONE] = TO(PAGE_ABSENT),
		[PAGE_EVICT_FRESH] = TO(PAGE_FRESH),
		[PAGE_EVICT_CLEAN] = TO(PAGE_CLEAN),
		[PAGE_EVICT_UNDO] = TO(PAGE_DIRTY),
		[PAGE_EVICT_WRITTEN] = TO(PAGE_EVICTING),
		[PAGE_VANISHED] = TO(PAGE_LOST),
		[PAGE_COPY_GONE] = TO(PAGE_EVICTING),
		[PAGE_COPIES_GONE] = TO(PAGE_EVICTING)},
};

unsigned page_next(unsigned state, unsigned event)
{
	if (state >= PAGE_STATES || event >= PAGE_EVENTS || table[state][event] == 0)
		return PAGE_REFUSED;
	return table[state][event] - 1u;
}

const char *page_state_name(unsigned state)
{
	static const char *const names[PAGE_STATES] = {
		"fresh", "filling", "clean", "dirty", "evicting", "absent", "lost"};

	return state < PAGE_STATES ? names[state] : "?";
}

const char *page_event_name(unsigned event)
{
	static const char *const names[PAGE_EVENTS] = {"fill-begin", "fill-clean", "fill-dirty",
		"fill-undo", "fill-undo-fresh", "fill-lost", "write", "evict-begin", "evict-done",
		"evict-fresh", "evict-clean", "evict-undo", "evict-written", "copy-gone",
		"copies-gone", "vanished", "write-begin", "write-end", "fill-written",
		"rewrite-begin"};

	return event < PAGE_EVENTS ? names[event] : "?";
}

bool page_step(
	struct page *page, uint64_t *seen, enum page_event event, unsigned copies, uint64_t version)
{
	unsigned next = page_next(page_state(*seen), event);
	uint64_t word;

	if (next == PAGE_REFUSED || (event == PAGE_EVICT_BEGIN && (*seen & PAGE_PINNED)))
		return false;
	word = page_word((enum page_state)next, copies, version) |
	       (*seen & (PAGE_ERA_MASK | PAGE_PINNED));
	if (page_busy(word) && page_busy(*seen))
		word |= *seen & PAGE_WAITERS;
	/* release: the tag and the page's bytes before; acquire: those of the owner before us */
	return atomic_compare_exchange_strong_explicit(
		&page->word, seen, word, memory_order_acq_rel, memory_order_acquire);
}

void page_note_era(struct page *page, unsigned era)
{
	uint64_t seen = atomic_load_explicit(&page->word, memory_order_relaxed);
	uint64_t bits = ((uint64_t)era << PAGE_ERA_SHIFT) & PAGE_ERA_MASK;

	/* relaxed: the era is a hint, and publishes nothing */
	while (!atomic_compare_exchange_weak_explicit(&page->word, &seen,
		(seen & ~PAGE_ERA_MASK) | bits, memory_order_relaxed, memory_order_relaxed))
		;
}

bool page_pin(struct page *page)
{
	uint64_t seen = atomic_load(&page->word);

	while (page_state(seen) == PAGE_DIRTY)
		if (atomic_compare_exchange_weak(&page->word, &seen, seen | PAGE_PINNED))
			return true;
	return false;
}

bool page_unqueue(struct page *page)
{
	uint64_t seen = atomic_load(&page->word);

	while (seen & PAGE_PINNED)
		if (atomic_compare_exchange_weak(&page->word, &seen, seen | PAGE_UNQUEUED))
			return true;
	return false;
}

bool page_unpin(struct page *page)
{
	uint64_t before = atomic_fetch_and(&page->word, ~(PAGE_PINNED | PAGE_UNQUEUED));

	return (before & PAGE_PINNED) && (before & PAGE_UNQUEUED);
}

bool page_drop_copies(struct page *page, unsigned copies)
{
	uint64_t seen = atomic_load(&page->word);

	while (page_copies(seen) & copies) {
		unsigned left = page_copies(seen) & ~copies;
		enum page_state before = page_state(seen);
		if (page_step(page, &seen, left ? PAGE_COPY_GONE : PAGE_COPIES_GONE, left,
			    page_version(seen)))
			return page_next(before, left ? PAGE_COPY_GONE : PAGE_COPIES_GONE) ==
			       PAGE_LOST;
		if (page_next(page_state(seen), PAGE_COPY_GONE) == PAGE_REFUSED)
			return false; /* such a state has no copies */
	}
	return false;
}

enum page_event page_taking(enum page_state state)
{
	return state == PAGE_CLEAN || state == PAGE_DIRTY ? PAGE_WRITE_BEGIN
	       : state == PAGE_LOST			  ? PAGE_REWRITE_BEGIN
							  : PAGE_FILL_BEGIN;
}

enum page_event page_giving_back(enum page_state before, uint64_t version, unsigned copies)
{
	if (before == PAGE_CLEAN && (copies || version == 0))
		return PAGE_EVICT_CLEAN;
	if (before == PAGE_CLEAN || before == PAGE_DIRTY)
		return PAGE_EVICT_UNDO;
	return before == PAGE_LOST    ? PAGE_FILL_LOST
	       : before == PAGE_FRESH ? PAGE_FILL_UNDO_FRESH
				      : PAGE_FILL_UNDO;
}

bool page_wait(struct page *page, uint64_t seen)
{
	while (page_busy(seen)) {
		if (seen & PAGE_WAITERS)
			return true;
		if (atomic_compare_exchange_weak_explicit(&page->word, &seen, seen | PAGE_WAITERS,
			    memory_order_acq_rel, memory_order_acquire))
			return true;
	}
	return false;
}
