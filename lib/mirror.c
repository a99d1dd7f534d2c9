/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/mirror.h"

#include "lib/loss.h"
#include "lib/overhead.h"

bool mirror_find(const struct placement *placement, unsigned copy, uint64_t offset,
	struct device **ret_device, uint64_t *ret_offset)
{
	const struct place *places = placement->places[copy];
	unsigned low = 0, high = placement->count[copy];

	while (low < high) {
		unsigned middle = low + (high - low) / 2;
		const struct place *place = &places[middle];
		if (offset < place->region_offset) {
			high = middle;
		} else if (offset >= place->region_offset + place->bytes) {
			low = middle + 1;
		} else {
			*ret_device = place->device;
			*ret_offset = place->offset + (offset - place->region_offset);
			return true;
		}
	}
	return false;
}

/* Reads, checks and decrypts one copy. */
static enum secpool_error read_copy(struct worker *worker, struct secpool_region *region,
	uint64_t pgno, uint64_t version, uint8_t *plain, struct device *device, uint64_t at)
{
	enum secpool_error error = device_read(device, at, worker->ciphertext, region->page_bytes);

	overhead_mark(worker, OVERHEAD_READ);
	if (error)
		return error;
	error = pagecipher_open(region->cipher, worker->index, PAGECIPHER_DATA, pgno, version,
		worker->ciphertext, region->pages[pgno].tag, plain);
	overhead_mark(worker, OVERHEAD_OPEN);
	return error;
}

/* Puts the good ciphertext over the copies that failed their check. */
static void repair(struct worker *worker, struct secpool_region *region,
	const struct placement *placement, uint64_t pgno, const struct mirror_result *result)
{
	for (unsigned copy = 0; copy < region->copies; copy++) {
		struct device *device;
		uint64_t at;
		if (!(result->bad_copies & 1u << copy))
			continue;
		if (!mirror_find(placement, copy, pgno * region->page_bytes, &device, &at))
			continue;
		if (device_write(device, at, worker->ciphertext, region->page_bytes) == SECPOOL_OK)
			counter_add(worker, COUNTER_REPAIRS, 1);
	}
}

enum secpool_error mirror_read(struct worker *worker, struct secpool_region *region, uint64_t pgno,
	uint8_t *plain, struct mirror_result *ret_result)
{
	struct mirror_result result = {.good_copy = MSG_COPIES_MAX};
	/* the placement before the word: loss.h */
	const struct placement *placement = mirror_placement(region);
	uint64_t word = atomic_load_explicit(&region->pages[pgno].word, memory_order_acquire);
	bool first = true;

	for (unsigned copy = 0; copy < region->copies; copy++) {
		struct device *device;
		enum secpool_error error = SECPOOL_E_DEVICE_GONE;
		uint64_t at;
		if (page_copies(word) & 1u << copy &&
			mirror_find(placement, copy, pgno * region->page_bytes, &device, &at))
			error = read_copy(
				worker, region, pgno, page_version(word), plain, device, at);
		if (!error) {
			result.good_copy = copy;
			break;
		}
		first = false;
		if (error != SECPOOL_E_INTEGRITY) {
			result.gone_copies |= 1u << copy;
			if (page_copies(word) & 1u << copy)
				loss_noticed(worker);
			continue;
		}
		counter_add(worker, COUNTER_INTEGRITY_FAILURES, 1);
		result.bad_copies |= 1u << copy;
		result.bad_device = device;
	}
	if (result.good_copy != MSG_COPIES_MAX) {
		if (!first)
			counter_add(worker, COUNTER_FAILOVERS, 1);
		if (result.bad_copies)
			repair(worker, region, placement, pgno, &result);
	}
	*ret_result = result;
	return result.good_copy == MSG_COPIES_MAX ? SECPOOL_E_LOST : SECPOOL_OK;
}

void mirror_prefetch(const struct secpool_region *region, uint64_t pgno)
{
	const struct placement *placement = mirror_placement(region);
	uint64_t word = atomic_load_explicit(&region->pages[pgno].word, memory_order_relaxed);
	struct device *device;
	uint64_t at;

	for (unsigned copy = 0; copy < region->copies; copy++) {
		if (!(page_copies(word) & 1u << copy) ||
			!mirror_find(placement, copy, pgno * region->page_bytes, &device, &at))
			continue;
		device_prefetch(device, at, region->page_bytes);
		return;
	}
}

unsigned mirror_missing(const struct placement *placement, const struct secpool_region *region,
	uint64_t pgno, unsigned copies)
{
	unsigned missing = 0;

	for (unsigned copy = 0; copy < region->copies; copy++) {
		struct device *device;
		uint64_t at;
		if (!(copies & 1u << copy) &&
			mirror_find(placement, copy, pgno * region->page_bytes, &device, &at) &&
			device_usable(device))
			missing |= 1u << copy;
	}
	return missing;
}

unsigned mirror_add(const struct placement *placement, struct worker *worker,
	struct secpool_region *region, uint64_t pgno, unsigned missing)
{
	unsigned written = 0;

	for (unsigned copy = 0; copy < region->copies; copy++) {
		struct device *device;
		uint64_t at;
		if (!(missing & 1u << copy) ||
			!mirror_find(placement, copy, pgno * region->page_bytes, &device, &at))
			continue;
		if (device_write(device, at, worker->ciphertext, region->page_bytes) == SECPOOL_OK)
			written |= 1u << copy;
		else
			loss_noticed(worker);
	}
	return written;
}

bool mirror_strike_gone(const struct placement *placement, struct worker *worker,
	struct secpool_region *region, uint64_t pgno)
{
	bool lost = false;

	for (unsigned copy = 0; copy < region->copies; copy++) {
		struct device *device;
		uint64_t at;
		if (!mirror_find(placement, copy, pgno * region->page_bytes, &device, &at) ||
			device_usable(device))
			continue;
		loss_noticed(worker);
		lost = page_drop_copies(&region->pages[pgno], 1u << copy) || lost;
	}
	return lost;
}

enum secpool_error mirror_write(struct worker *worker, struct secpool_region *region, uint64_t pgno,
	uint64_t version, enum page_event event)
{
	struct page *page = &region->pages[pgno];
	const struct placement *placement = mirror_placement(region);
	unsigned written = mirror_add(placement, worker, region, pgno, (1u << MSG_COPIES_MAX) - 1);
	uint64_t seen = atomic_load(&page->word);

	while (!page_step(page, &seen, event, written, version))
		;
	mirror_strike_gone(placement, worker, region, pgno);
	return page_copies(atomic_load(&page->word)) ? SECPOOL_OK : SECPOOL_E_NO_SPACE;
}
