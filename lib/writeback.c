/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/writeback.h"

#include "lib/fill.h"
#include "lib/loss.h"
#include "lib/overhead.h"
#include "lib/redundancy.h"

/* Pages are protected together when they lie in one piece of this size: one call walks one page table, half of it. */
enum { PIECE_BYTES = 1 << 20 };

static struct page *page_of(const struct victim *v)
{
	return &v->region->pages[v->pgno];
}

/* Steps a page out of EVICTING; notes whether who waits for it must be woken. */
static void leave(struct victim *v, enum page_event event, uint64_t version)
{
	uint64_t seen = atomic_load(&page_of(v)->word);

	while (!page_step(page_of(v), &seen, event,
		event == PAGE_EVICT_UNDO ? 0 : page_copies(seen), version))
		;
	v->wake = seen & PAGE_WAITERS;
}

/* Steps a written page out of EVICTING, unless its last copy went meanwhile. */
static bool leave_written(struct victim *v, enum page_event event)
{
	uint64_t seen = atomic_load(&page_of(v)->word);

	while (page_copies(seen) != 0) {
		if (!page_step(page_of(v), &seen, event, page_copies(seen), page_version(seen)))
			continue;
		v->wake = seen & PAGE_WAITERS;
		return true;
	}
	return false;
}

void writeback_undo(struct worker *worker, struct victim *v)
{
	size_t bytes = v->region->page_bytes;

	if (v->state != VICTIM_TAKEN && v->frame != v->at &&
		uffd_move(worker->uffd, v->at, v->frame, bytes) != SECPOOL_OK)
		/* the frame can't go back: a copy of it can */
		if (uffd_present(v->frame) &&
			uffd_copy(worker->uffd, v->at, v->frame, bytes, false) == SECPOOL_OK)
			(void)!uffd_drop(v->frame, bytes);
	/* under the version that the attempt may have taken */
	leave(v, PAGE_EVICT_UNDO, v->sent ? v->next : v->version);
	v->state = VICTIM_STAYED;
}

/* ---- hold ---- */

/* How many victims from the first on lie side by side, are to leave, and fit. */
static unsigned run_length(const struct victim *v, unsigned count, size_t room)
{
	unsigned length = 0;

	while (length < count && !v[length].clean && !v[length].stays &&
		(length + 1) * v[0].region->page_bytes <= room &&
		(length == 0 || (v[length].region == v[0].region &&
					v[length].pgno == v[length - 1].pgno + 1)))
		length++;
	return length;
}

/* Moves a run out, as a whole or else page by page. A page that does not go is pinned by the kernel: it stays. */
static void move_run(struct worker *worker, struct victim *v, unsigned length, size_t *moved_bytes)
{
	size_t bytes = v->region->page_bytes;
	uint8_t *to = worker->moved + *moved_bytes;
	bool whole = uffd_move(worker->uffd, to, v->at, length * bytes) == SECPOOL_OK;

	for (unsigned i = 0; i < length; i++, to += bytes) {
		if (whole || uffd_move(worker->uffd, to, v[i].at, bytes) == SECPOOL_OK) {
			v[i].frame = to;
			v[i].state = VICTIM_HELD;
		} else {
			writeback_undo(worker, &v[i]);
		}
	}
	*moved_bytes += length * bytes;
}

static bool to_be_protected(const struct victim *v)
{
	return v->state == VICTIM_TAKEN && !v->clean;
}

static uint64_t piece_of(const struct victim *v)
{
	return v->pgno * v->region->page_bytes / PIECE_BYTES;
}

/* Whether a pinned page lies between two victims: the kernel must be able to write to it (pin.c). */
static bool pinned_between(const struct victim *from, const struct victim *to)
{
	const struct secpool_region *region = from->region;

	if (atomic_load(&region->pool->pinned_bytes) == 0)
		return false;
	for (uint64_t pgno = from->pgno + 1; pgno < to->pgno; pgno++)
		if (atomic_load(&region->pages[pgno].word) & PAGE_PINNED)
			return true;
	return false;
}

/*
 * Protects the first victim and those after it in the same piece by one call, with what lies between them: a page of somebody else's that is protected too costs its
 * next writer a fault, and nothing else. Returns how many victims were gone through.
 */
static unsigned protect_piece(struct worker *worker, struct victim *v, unsigned count)
{
	uint8_t *end = v->at;
	unsigned length = 0;
	bool failed;

	for (; length < count && v[length].region == v->region &&
		piece_of(&v[length]) == piece_of(v) &&
		(length == 0 || !pinned_between(&v[length - 1], &v[length]));
		length++)
		if (to_be_protected(&v[length]))
			end = v[length].at + v->region->page_bytes;
	failed = uffd_protect(worker->uffd, v->at, (size_t)(end - v->at)) != SECPOOL_OK;
	for (unsigned i = 0; i < length; i++) {
		if (!to_be_protected(&v[i]))
			continue;
		v[i].frame = v[i].at;
		if (failed)
			writeback_undo(worker, &v[i]);
		else
			v[i].state = VICTIM_HELD;
	}
	return length;
}

void writeback_hold(
	struct worker *worker, struct victim *victims, unsigned count, size_t *ret_moved_bytes)
{
	bool can_move = worker->moved && worker->uffd->has_move;
	size_t moved = 0;
	unsigned i = 0;

	while (can_move && i < count) {
		unsigned length =
			run_length(&victims[i], count - i, PAGECIPHER_PAGE_BYTES_MOST - moved);
		if (length * victims[i].region->page_bytes >=
			(size_t)WRITEBACK_RUN_PAGES * PAGECIPHER_PAGE_BYTES_LEAST)
			move_run(worker, &victims[i], length, &moved);
		i += length > 0 ? length : 1;
	}
	for (i = 0; i < count;)
		i += to_be_protected(&victims[i]) ? protect_piece(worker, &victims[i], count - i)
						  : 1;
	*ret_moved_bytes = moved;
}

/* ---- write and end ---- */

static void give_up(struct worker *worker, struct victim *v)
{
	v->failed = true;
	writeback_undo(worker, v);
}

/* After a page was sent to its places. */
static void end_written(struct worker *worker, struct victim *v)
{
	bool moved = v->frame != v->at;
	bool written = page_copies(atomic_load(&page_of(v)->word)) != 0;

	if (written && moved)
		page_note_era(page_of(v), cache_era(&worker->pool->cache));
	if (written && (v->stays || moved))
		written = leave_written(v, v->stays ? PAGE_EVICT_CLEAN : PAGE_EVICT_DONE);
	if (!written) {
		give_up(worker, v);
		return;
	}
	v->state = v->stays ? VICTIM_STAYED : moved ? VICTIM_LEFT : VICTIM_WRITTEN;
	counter_add(worker, COUNTER_WRITE_BACKS, 1);
}

static bool goes_with(const struct victim *first, const struct victim *v)
{
	unsigned together = redundancy_together(first->region);

	return v->region == first->region && v->pgno / together == first->pgno / together;
}

/* Writes the first victim, and those behind it that belong together with it. Returns how many victims were gone through. */
static unsigned write_together(struct worker *worker, struct victim *victims, unsigned count)
{
	struct secpool_region *region = victims[0].region;
	struct redundancy_page pages[MSG_LANES_MAX];
	struct victim *sent[MSG_LANES_MAX];
	unsigned length = 0, sealed = 0;

	for (; length < count && goes_with(&victims[0], &victims[length]); length++) {
		struct victim *v = &victims[length];
		uint8_t *ciphertext = redundancy_ciphertext(worker, region, sealed);
		struct redundancy_page *page = &pages[sealed];
		if (v->state != VICTIM_HELD)
			continue;
		v->next = keyring_next(&region->keys, v->version);
		*page = (struct redundancy_page){
			.pgno = v->pgno, .version = v->next, .ciphertext = ciphertext};
		if (keyring_seal(&region->keys, worker->index, v->pgno, page->version, v->frame,
			    ciphertext, page->tag) == SECPOOL_OK)
			sent[sealed++] = v;
		else
			give_up(worker, v);
	}
	overhead_mark(worker, OVERHEAD_SEAL);
	if (sealed > 0)
		redundancy_write(worker, region, pages, sealed, PAGE_EVICT_WRITTEN);
	overhead_mark(worker, OVERHEAD_STORE);
	for (unsigned i = 0; i < sealed; i++) {
		sent[i]->sent = true;
		end_written(worker, sent[i]);
	}
	return length;
}

void writeback_write(struct worker *worker, struct victim *victims, unsigned count)
{
	for (unsigned i = 0; i < count;)
		i += victims[i].state == VICTIM_HELD
			     ? write_together(worker, &victims[i], count - i)
			     : 1;
}

void writeback_dropped(struct worker *worker, struct victim *v)
{
	uint64_t version = v->sent ? v->next : v->version;

	page_note_era(page_of(v), cache_era(&worker->pool->cache));
	leave(v, version > 0 ? PAGE_EVICT_DONE : PAGE_EVICT_FRESH, version);
	loss_orphan(worker, v->region, v->pgno); /* its copies may have gone in this very moment */
	v->state = VICTIM_LEFT;
	if (v->clean && v->version > 0)
		fill_note_outcome(v->region, false);
}
