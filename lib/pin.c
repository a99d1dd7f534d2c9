/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/pin.h"

#include <stdlib.h>

#include "lib/base/os.h"
#include "lib/evict.h"
#include "lib/fault.h"
#include "lib/fill.h"
#include "lib/range.h"
#include "lib/refill.h"
#include "lib/seal.h"
#include "lib/signals.h"

/* At most this part of the local budget may be pinned: the rest must do for everything else. */
enum { PINNED_PART = 2 };

struct pin {
	uint64_t first, end; /* pages */
	struct pin *next;
};

struct pins {
	pthread_mutex_t lock; /* Protects: list */
	struct pin *list;
};

enum secpool_error pins_new(struct pins **ret_pins)
{
	struct pins *pins = calloc(1, sizeof *pins);

	if (!pins)
		return os_error("pins of a region");
	pthread_mutex_init(&pins->lock, NULL);
	*ret_pins = pins;
	return SECPOOL_OK;
}

void pins_free(struct pins *pins)
{
	if (!pins)
		return;
	while (pins->list) {
		struct pin *pin = pins->list;
		pins->list = pin->next;
		free(pin);
	}
	pthread_mutex_destroy(&pins->lock);
	free(pins);
}

/* The pages that a range of bytes touches. */
static void pages_of(const struct secpool_region *region, size_t offset, size_t bytes,
	uint64_t *ret_first, uint64_t *ret_end)
{
	*ret_first = offset / region->page_bytes;
	*ret_end = (offset + bytes + region->page_bytes - 1) / region->page_bytes;
	if (bytes == 0)
		*ret_end = *ret_first;
}

static enum secpool_error broken(void)
{
	return err_set(SECPOOL_E_CLOSED, "the program closed the library's userfaultfd descriptor: "
					 "pages are brought in when they are touched only");
}

/* Makes room for some of the pages and brings in as many as come without waiting. Returns how far that went. */
static uint64_t bring_some(struct worker *worker, struct secpool_region *region, uint64_t pgno,
	uint64_t end, bool writable, enum secpool_error *ret_error)
{
	uint64_t count = end - pgno;
	size_t most = region->pool->local_bytes / 16 / region->page_bytes;

	if (count > most)
		count = most > 0 ? most : 1;
	if (count > READAHEAD_WINDOW_MOST)
		count = READAHEAD_WINDOW_MOST;
	*ret_error = evict_make_room(worker, count * region->page_bytes);
	if (*ret_error)
		return pgno;
	cache_return(&region->pool->cache, worker->index, count * region->page_bytes);
	return fill_range(worker, region, pgno, pgno + count, writable);
}

/* Brings one page in, as far as a single step goes, and pins it if it is there, and writable. */
static enum secpool_error pin_step(struct worker *worker, struct secpool_region *region,
	uint64_t pgno, uint64_t end, bool *ret_pinned)
{
	struct page *page = &region->pages[pgno];
	uint64_t seen = atomic_load_explicit(&page->word, memory_order_acquire);
	enum secpool_error error = SECPOOL_OK;

	*ret_pinned = false;
	switch (page_state(seen)) {
	case PAGE_FRESH:
	case PAGE_ABSENT:
		if (seen & PAGE_BARRED)
			return err_set(SECPOOL_E_NO_SPACE, "there is no room for page %llu",
				(unsigned long long)pgno);
		(void)bring_some(worker, region, pgno, end, true, &error);
		return error;
	case PAGE_FILLING:
	case PAGE_EVICTING:
		fault_await_page(worker, page, seen);
		return SECPOOL_OK;
	case PAGE_CLEAN:
		if (page_step(page, &seen, PAGE_WRITE_BEGIN, page_copies(seen), page_version(seen)))
			fill_end_protection(worker, region, pgno);
		return SECPOOL_OK;
	case PAGE_DIRTY:
		*ret_pinned = page_pin(page);
		return SECPOOL_OK;
	case PAGE_LOST:
		if (!refill_possible(region, seen))
			break;
		refill_ask(worker, region, pgno, seen);
		return SECPOOL_OK;
	case PAGE_STATES:
		break;
	}
	return err_set(SECPOOL_E_LOST, "page %llu is lost", (unsigned long long)pgno);
}

/* As a guest: pins the pages from first up to end. */
static enum secpool_error pin_pages(struct secpool_region *region, uint64_t first, uint64_t end)
{
	struct secpool *pool = region->pool;
	enum secpool_error error = SECPOOL_OK;
	struct worker *worker;
	sigset_t before;

	signals_block(&before);
	worker = worker_borrow(pool);
	for (uint64_t pgno = first; !error && pgno < end;) {
		bool pinned = false;
		if (atomic_load(&pool->program_broken))
			error = broken();
		else
			error = pin_step(worker, region, pgno, end, &pinned);
		if (!error && pinned)
			pgno++;
	}
	worker_give_back(worker);
	/* whoever saw the pages before they were pinned may still protect them with others: then it is undone */
	if (!error) {
		workers_await(pool);
		error = uffd_unprotect(&pool->program_uffd,
			region->address + first * region->page_bytes,
			(size_t)((end - first) * region->page_bytes));
	}
	signals_restore(&before);
	return error;
}

static bool covered(const struct pins *pins, uint64_t pgno)
{
	for (const struct pin *pin = pins->list; pin; pin = pin->next)
		if (pgno >= pin->first && pgno < pin->end)
			return true;
	return false;
}

/* Takes an entry out of the list, and the pin from pages that no other entry covers. */
static void drop_pin(struct secpool_region *region, struct pin *pin)
{
	struct pins *pins = region->pins;
	struct pin **at = &pins->list;
	sigset_t before;

	signals_block(&before); /* for the cache's locks, and ours */
	pthread_mutex_lock(&pins->lock);
	while (*at != pin)
		at = &(*at)->next;
	*at = pin->next;
	for (uint64_t pgno = pin->first; pgno < pin->end; pgno++)
		if (!covered(pins, pgno) && page_unpin(&region->pages[pgno]))
			cache_push(&region->pool->cache, (unsigned)pgno,
				(struct cache_entry){
					.region = region->slot, .pgno = pgno, .queue = CACHE_NEW});
	pthread_mutex_unlock(&pins->lock);
	signals_restore(&before);
	atomic_fetch_sub(
		&region->pool->pinned_bytes, (size_t)(pin->end - pin->first) * region->page_bytes);
	free(pin);
}

bool pins_any(struct pins *pins)
{
	sigset_t before;
	bool any;

	signals_block(&before);
	pthread_mutex_lock(&pins->lock);
	any = pins->list != NULL;
	pthread_mutex_unlock(&pins->lock);
	signals_restore(&before);
	return any;
}

static enum secpool_error add_pin(
	struct secpool_region *region, uint64_t first, uint64_t end, struct pin **ret_pin)
{
	size_t bytes = (size_t)(end - first) * region->page_bytes;
	size_t most = region->pool->local_bytes / PINNED_PART;
	struct pin *pin = malloc(sizeof *pin);

	if (!pin)
		return os_error("a pin");
	if (atomic_fetch_add(&region->pool->pinned_bytes, bytes) + bytes > most) {
		atomic_fetch_sub(&region->pool->pinned_bytes, bytes);
		free(pin);
		return err_set(SECPOOL_E_LIMIT,
			"%zu bytes more can't be pinned: at most half of local_bytes (%zu) may be",
			bytes, most);
	}
	*pin = (struct pin){.first = first, .end = end};
	pthread_mutex_lock(&region->pins->lock);
	pin->next = region->pins->list;
	region->pins->list = pin;
	pthread_mutex_unlock(&region->pins->lock);
	*ret_pin = pin;
	return SECPOOL_OK;
}

enum secpool_error secpool_pin(struct secpool_region *region, size_t offset, size_t bytes)
{
	enum secpool_error error = range_check(region, offset, bytes);
	uint64_t first, end;
	struct pin *pin = NULL;

	if (error)
		return error;
	pages_of(region, offset, bytes, &first, &end);
	error = add_pin(region, first, end, &pin);
	if (error)
		return error;
	/* after it is in the list, where who seals looks after having changed the stage */
	if (region_still(region))
		error = seal_refuse_write();
	if (!error && first != end)
		error = pin_pages(region, first, end);
	if (error)
		drop_pin(region, pin);
	return error;
}

enum secpool_error secpool_unpin(struct secpool_region *region, size_t offset, size_t bytes)
{
	enum secpool_error error = range_check(region, offset, bytes);
	uint64_t first, end;
	struct pin *found = NULL;

	if (error)
		return error;
	pages_of(region, offset, bytes, &first, &end);
	pthread_mutex_lock(&region->pins->lock);
	for (struct pin *pin = region->pins->list; pin && !found; pin = pin->next)
		if (pin->first == first && pin->end == end)
			found = pin;
	pthread_mutex_unlock(&region->pins->lock);
	if (!found)
		return err_set(SECPOOL_E_NOT_FOUND, "%zu bytes at %zu were not pinned as such",
			bytes, offset);
	drop_pin(region, found);
	return SECPOOL_OK;
}

/* As a guest: brings in what is out. */
static enum secpool_error prefetch_pages(
	struct worker *worker, struct secpool_region *region, uint64_t first, uint64_t end)
{
	enum secpool_error error = SECPOOL_OK;

	for (uint64_t pgno = first; !error && pgno < end;) {
		uint64_t next = pgno;
		enum page_state state = page_state(atomic_load(&region->pages[pgno].word));
		if (atomic_load(&region->pool->program_broken))
			error = broken();
		else if (state == PAGE_ABSENT || state == PAGE_FRESH)
			next = bring_some(worker, region, pgno, end, false, &error);
		pgno = next > pgno ? next
				   : pgno + 1; /* resident, lost, or in somebody's hand: the next */
	}
	return error;
}

enum secpool_error secpool_prefetch(struct secpool_region *region, size_t offset, size_t bytes)
{
	enum secpool_error error = range_check(region, offset, bytes);
	struct worker *worker;
	uint64_t first, end, most;
	sigset_t before;

	if (error)
		return error;
	pages_of(region, offset, bytes, &first, &end);
	/* more would push out what came first */
	most = region->pool->local_bytes / PINNED_PART / region->page_bytes;
	if (end - first > most)
		end = first + most;
	signals_block(&before);
	worker = worker_borrow(region->pool);
	error = prefetch_pages(worker, region, first, end);
	/* pages that were resident, but old, may have made room for the others */
	if (!error)
		error = prefetch_pages(worker, region, first, end);
	worker_give_back(worker);
	signals_restore(&before);
	return error;
}
