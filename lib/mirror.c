/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/mirror.h"

#include <string.h>

#include "lib/fault.h"
#include "lib/fill.h"
#include "lib/loss.h"
#include "lib/places.h"

/* Puts the good ciphertext over the copies that failed their check. */
static void repair(struct worker *worker, struct secpool_region *region,
	const struct placement *placement, uint64_t pgno, unsigned bad_copies)
{
	for (unsigned copy = 0; copy < region->lanes; copy++) {
		struct device *device;
		uint64_t at;
		if (!(bad_copies & 1u << copy))
			continue;
		if (!places_find(placement, copy, pgno * region->page_bytes, &device, &at))
			continue;
		if (device_write(device, at, worker->ciphertext, region->page_bytes) == SECPOOL_OK)
			counter_add(worker, COUNTER_REPAIRS, 1);
	}
}

/* The order in which copies are read: those on devices that are under suspicion come last. */
static void order_copies(const struct placement *placement, const struct secpool_region *region,
	uint64_t pgno, unsigned order[MSG_COPIES_MAX])
{
	unsigned count = 0;

	for (int doubtful = 0; doubtful < 2; doubtful++) {
		for (unsigned copy = 0; copy < region->lanes; copy++) {
			struct device *device;
			uint64_t at;
			bool last = places_find(placement, copy, pgno * region->page_bytes, &device,
					    &at) &&
				    device_doubtful(device);
			if (last == (doubtful == 1) && count < MSG_COPIES_MAX)
				order[count++] = copy;
		}
	}
}

static enum secpool_error read_good(struct worker *worker, struct secpool_region *region,
	uint64_t pgno, uint8_t *plain, struct redundancy_result *ret_result, unsigned *ret_copy)
{
	struct redundancy_result result = {.other = false};
	/* the placement before the word: loss.h */
	const struct placement *placement = redundancy_placement(region);
	uint64_t word = atomic_load_explicit(&region->pages[pgno].word, memory_order_acquire);
	unsigned order[MSG_COPIES_MAX] = {0};
	unsigned bad_copies = 0;
	bool found = false;

	order_copies(placement, region, pgno, order);
	for (unsigned i = 0; i < region->lanes; i++) {
		unsigned copy = order[i];
		struct device *device;
		enum secpool_error error = SECPOOL_E_DEVICE_GONE;
		uint64_t at;
		if (page_copies(word) & 1u << copy &&
			places_find(placement, copy, pgno * region->page_bytes, &device, &at))
			error = redundancy_open_live(
				worker, region, pgno, page_version(word), device, at, plain);
		found = !error;
		if (found) {
			*ret_copy = copy;
			break;
		}
		result.other = true;
		/* a device that went silent answers zeros: gone, not bad */
		if (error == SECPOOL_E_INTEGRITY && !device_seen_alive(device))
			error = SECPOOL_E_DEVICE_GONE;
		if (error != SECPOOL_E_INTEGRITY) {
			if (page_copies(word) & 1u << copy)
				loss_noticed(worker);
			continue;
		}
		counter_add(worker, COUNTER_INTEGRITY_FAILURES, 1);
		bad_copies |= 1u << copy;
		result.bad = true;
		result.bad_device = device;
		result.bad_at = at;
	}
	if (found && result.other)
		counter_add(worker, COUNTER_FAILOVERS, 1);
	if (found && bad_copies && region_still(region))
		(void)page_drop_copies(&region->pages[pgno],
			bad_copies); /* nobody writes there: it is not read again */
	else if (found && bad_copies)
		repair(worker, region, placement, pgno, bad_copies);
	*ret_result = result;
	return found ? SECPOOL_OK : SECPOOL_E_LOST;
}

enum secpool_error mirror_read(struct worker *worker, struct secpool_region *region, uint64_t pgno,
	uint8_t *plain, struct redundancy_result *ret_result)
{
	unsigned copy;

	return read_good(worker, region, pgno, plain, ret_result, &copy);
}

void mirror_prefetch(const struct secpool_region *region, uint64_t pgno)
{
	const struct placement *placement = redundancy_placement(region);
	uint64_t word = atomic_load_explicit(&region->pages[pgno].word, memory_order_relaxed);
	struct device *device;
	uint64_t at;

	for (unsigned copy = 0; copy < region->lanes; copy++) {
		if (!(page_copies(word) & 1u << copy) ||
			!places_find(placement, copy, pgno * region->page_bytes, &device, &at))
			continue;
		device_prefetch(device, at, region->page_bytes);
		return;
	}
}

static unsigned missing_at(const struct placement *placement, const struct secpool_region *region,
	uint64_t pgno, unsigned copies)
{
	unsigned missing = 0;

	for (unsigned copy = 0; copy < region->lanes; copy++) {
		struct device *device;
		uint64_t at;
		if (!(copies & 1u << copy) &&
			places_find(placement, copy, pgno * region->page_bytes, &device, &at) &&
			device_usable(device))
			missing |= 1u << copy;
	}
	return missing;
}

unsigned mirror_missing(const struct secpool_region *region, uint64_t pgno, unsigned copies)
{
	return missing_at(redundancy_placement(region), region, pgno, copies);
}

/* Writes ciphertext to the copies `missing`. Returns those that were written: a bit may be noted only for the very place that was written. */
static unsigned write_copies(const struct placement *placement, struct worker *worker,
	const struct secpool_region *region, uint64_t pgno, const uint8_t *ciphertext,
	unsigned missing)
{
	unsigned written = 0;

	for (unsigned copy = 0; copy < region->lanes; copy++) {
		struct device *device;
		uint64_t at;
		if (!(missing & 1u << copy) ||
			!places_find(placement, copy, pgno * region->page_bytes, &device, &at))
			continue;
		if (device_write(device, at, ciphertext, region->page_bytes) == SECPOOL_OK)
			written |= 1u << copy;
		else
			loss_noticed(worker);
	}
	return written;
}

/*
 * Strikes copies whose device is gone from the page's word, after they were noted there: who handled the loss may have done so before the note.
 * Returns whether the page thereby became lost.
 */
static bool strike_gone(const struct placement *placement, struct worker *worker,
	struct secpool_region *region, uint64_t pgno)
{
	bool lost = false;

	for (unsigned copy = 0; copy < region->lanes; copy++) {
		struct device *device;
		uint64_t at;
		if (!places_find(placement, copy, pgno * region->page_bytes, &device, &at) ||
			device_seen_alive(device))
			continue;
		loss_noticed(worker);
		lost = page_drop_copies(&region->pages[pgno], 1u << copy) || lost;
	}
	return lost;
}

void mirror_write(struct worker *worker, struct secpool_region *region,
	const struct redundancy_page *sealed, enum page_event event)
{
	struct page *page = &region->pages[sealed->pgno];
	const struct placement *placement = redundancy_placement(region);
	unsigned written = write_copies(placement, worker, region, sealed->pgno, sealed->ciphertext,
		(1u << MSG_COPIES_MAX) - 1);
	uint64_t seen = atomic_load(&page->word);

	memcpy(page->tag, sealed->tag, sizeof page->tag);
	while (!page_step(page, &seen, event, written, sealed->version))
		;
	strike_gone(placement, worker, region, sealed->pgno);
}

/* Ends the rebuilder's ownership of a page: it is absent as before, with the copies that it has now. */
static void give_back(
	struct worker *worker, struct secpool_region *region, uint64_t pgno, unsigned written)
{
	struct page *page = &region->pages[pgno];
	uint64_t seen = atomic_load(&page->word);

	while (!page_step(
		page, &seen, PAGE_FILL_UNDO, page_copies(seen) | written, page_version(seen)))
		;
	if (seen & PAGE_WAITERS)
		fault_wake_page(worker, region, pgno);
}

/* Reads and checks the copies that were not looked at to find a good one, from `first` on. Returns those that are bad; they were told of. */
static unsigned find_bad(const struct placement *placement, struct worker *worker,
	struct secpool_region *region, uint64_t pgno, unsigned first)
{
	struct page *page = &region->pages[pgno];
	uint64_t word = atomic_load(&page->word);
	uint8_t *bytes = worker->coding; /* the good copy is in worker->ciphertext */
	unsigned bad = 0;

	for (unsigned copy = first; copy < region->lanes; copy++) {
		struct device *device;
		enum secpool_error error;
		uint64_t at;
		if (!(page_copies(word) & 1u << copy) ||
			!places_find(placement, copy, pgno * region->page_bytes, &device, &at))
			continue;
		error = device_read(device, at, bytes, region->page_bytes);
		if (error == SECPOOL_E_DEVICE_GONE) {
			loss_noticed(worker);
			continue;
		}
		if (!error && keyring_check(&region->keys, worker->index, pgno, page_version(word),
				      bytes, page->tag) == SECPOOL_OK)
			continue;
		if (!device_seen_alive(device)) {
			loss_noticed(worker);
			continue;
		}
		bad |= 1u << copy;
		counter_add(worker, COUNTER_INTEGRITY_FAILURES, 1);
		loss_tell_bad(worker, region, pgno, device, at);
	}
	return bad;
}

bool mirror_rebuild(struct worker *worker, struct secpool_region *region, uint64_t pgno,
	uint64_t seen, bool checks)
{
	struct page *page = &region->pages[pgno];
	const struct placement *placement = redundancy_placement(region);
	unsigned missing = missing_at(placement, region, pgno, page_copies(seen));
	struct redundancy_result result;
	unsigned good;

	if ((!missing && !checks) ||
		!page_step(page, &seen, PAGE_FILL_BEGIN, page_copies(seen), page_version(seen)))
		return false;
	if (read_good(worker, region, pgno, worker->plain, &result, &good) != SECPOOL_OK) {
		fill_end_as_lost(worker, region, pgno,
			result.bad ? SECPOOL_CAUSE_INTEGRITY : SECPOOL_CAUSE_REMOVED,
			result.bad_device);
		return true;
	}
	if (result.bad)
		loss_tell_bad(worker, region, pgno, result.bad_device, result.bad_at);
	if (checks)
		repair(worker, region, placement, pgno,
			find_bad(placement, worker, region, pgno, good + 1));
	give_back(worker, region, pgno,
		write_copies(placement, worker, region, pgno, worker->ciphertext, missing));
	if (strike_gone(placement, worker, region, pgno))
		fill_lost(worker, region, pgno, SECPOOL_CAUSE_REMOVED, NULL);
	return true;
}

unsigned mirror_resident_bad(
	struct worker *worker, struct secpool_region *region, uint64_t pgno, uint64_t seen)
{
	struct page *page = &region->pages[pgno];
	unsigned bad;

	if (!page_step(page, &seen, PAGE_EVICT_BEGIN, page_copies(seen), page_version(seen)))
		return 0;
	bad = find_bad(redundancy_placement(region), worker, region, pgno, 0);
	seen = atomic_load(&page->word);
	/* its copies may have gone meanwhile: then what is resident is all that there is */
	while (!page_step(page, &seen, page_copies(seen) ? PAGE_EVICT_CLEAN : PAGE_EVICT_UNDO,
		page_copies(seen), page_version(seen)))
		;
	if (seen & PAGE_WAITERS)
		fault_wake_page(worker, region, pgno);
	return (unsigned)__builtin_popcount(bad);
}

/* Reads the copy that is to be moved to worker->ciphertext; any other that is good, if it is not. */
static bool read_to_move(
	struct worker *worker, struct secpool_region *region, uint64_t pgno, unsigned lane)
{
	const struct placement *placement = redundancy_placement(region);
	struct page *page = &region->pages[pgno];
	struct redundancy_result result;
	struct device *device;
	unsigned good;
	uint64_t at;

	if (places_find(placement, lane, pgno * region->page_bytes, &device, &at) &&
		device_read(device, at, worker->ciphertext, region->page_bytes) == SECPOOL_OK &&
		keyring_check(&region->keys, worker->index, pgno,
			page_version(atomic_load(&page->word)), worker->ciphertext,
			page->tag) == SECPOOL_OK)
		return true;
	if (read_good(worker, region, pgno, worker->plain, &result, &good) != SECPOOL_OK)
		return false;
	if (result.bad)
		loss_tell_bad(worker, region, pgno, result.bad_device, result.bad_at);
	return true;
}

static bool copy_to_target(struct worker *worker, struct secpool_region *region, uint64_t pgno,
	const struct target *target)
{
	uint64_t at = target->offset + (pgno * region->page_bytes - target->region_offset);

	if (read_to_move(worker, region, pgno, target->lane) &&
		device_write(target->device, at, worker->ciphertext, region->page_bytes) ==
			SECPOOL_OK &&
		device_seen_alive(target->device))
		return true;
	loss_noticed(worker);
	return false;
}

bool mirror_move(
	struct worker *worker, struct secpool_region *region, uint64_t pgno, struct target *target)
{
	struct page *page = &region->pages[pgno];
	uint64_t seen = atomic_load(&page->word);
	enum page_state before = page_state(seen);
	unsigned bit = 1u << target->lane, dropped = 0, copies;

	if (page_busy(seen) ||
		!page_step(page, &seen, page_taking(before), page_copies(seen), page_version(seen)))
		return false;
	if ((page_copies(seen) & bit) && !copy_to_target(worker, region, pgno, target))
		dropped = bit;
	/* release: what was copied */
	atomic_fetch_add_explicit(&target->moved, region->page_bytes, memory_order_release);
	seen = atomic_load(&page->word);
	do
		copies = page_copies(seen) & ~dropped;
	while (!page_step(page, &seen, page_giving_back(before, page_version(seen), copies), copies,
		page_version(seen)));
	if (seen & PAGE_WAITERS)
		fault_wake_page(worker, region, pgno);
	loss_orphan(worker, region, pgno); /* if that was the last */
	return true;
}
