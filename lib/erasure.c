/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/erasure.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/base/os.h"
#include "lib/loss.h"
#include "lib/places.h"
#include "lib/stripework.h"

enum secpool_error erasure_init(struct secpool_region *region)
{
	void *stripes;

	region->stripe_count = (region->page_count + region->data - 1) / region->data;
	stripes = mmap(NULL, region->stripe_count * sizeof *region->stripes, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (stripes == MAP_FAILED)
		return os_error("table of %llu stripes", (unsigned long long)region->stripe_count);
	region->stripes = stripes; /* zero: nothing is included */
	return stripework_new_code(region->data, region->lanes, &region->code);
}

void erasure_done(struct secpool_region *region)
{
	if (region->stripes)
		syscall(SYS_munmap, region->stripes,
			region->stripe_count * sizeof *region->stripes);
	stripework_free_code(region->code);
}

static unsigned all_data(const struct secpool_region *region)
{
	return (1u << region->data) - 1;
}

static uint64_t word_of(const struct hand *hand)
{
	return atomic_load(&hand->stripe->word);
}

static void exclusive_or(uint8_t *to, const uint8_t *with, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		to[i] ^= with[i];
}

static unsigned lane_of(const struct hand *hand, const struct redundancy_page *page)
{
	return (unsigned)(page->pgno % hand->region->data);
}

/* The parity in its cells becomes that of the new pages, by the difference to the old ones. False when what it needs can't be had: nothing was written. */
static bool update_parity(
	struct hand *hand, const struct redundancy_page *pages, unsigned count, unsigned parity)
{
	const struct secpool_region *region = hand->region;
	unsigned data = region->data, rows = region->lanes - data;

	for (unsigned i = 0; i < rows; i++)
		if ((parity & 1u << i) && !stripework_load(hand, data + i))
			return false;
	for (unsigned i = 0; i < count; i++) {
		unsigned lane = lane_of(hand, &pages[i]);
		/* checked against its tag: a difference to bytes that are not what the parity holds would spoil it */
		stripework_load_data(hand, lane);
		if (!(hand->known & 1u << lane))
			return false;
		exclusive_or(stripework_cell(hand, lane), pages[i].ciphertext, region->page_bytes);
		stripework_encode_difference(hand, lane, stripework_cell(hand, lane));
	}
	return true;
}

/* The parity in its cells is made of all data: the new pages, the others from their places. */
static void make_parity(struct hand *hand, const struct redundancy_page *pages, unsigned count)
{
	const struct secpool_region *region = hand->region;
	unsigned data = region->data, fresh = 0;
	uint8_t *from[MSG_LANES_MAX];

	for (unsigned i = 0; i < count; i++)
		fresh |= 1u << lane_of(hand, &pages[i]);
	(void)stripework_gather(hand, all_data(region) & ~fresh);
	for (unsigned lane = 0; lane < data; lane++)
		from[lane] = stripework_cell(hand, lane);
	for (unsigned i = 0; i < count; i++)
		from[lane_of(hand, &pages[i])] =
			(uint8_t *)(uintptr_t)pages[i].ciphertext; /* only read */
	stripework_encode(hand, from);
}

/* Whether the difference costs no more reads than making the parity anew, and leaves none of it behind. */
static bool difference_pays(const struct hand *hand, unsigned fresh, unsigned parity)
{
	uint64_t word = word_of(hand);
	unsigned included = stripe_included(word);

	return parity != 0 && stripe_parity(word) == parity &&
	       __builtin_popcount(included & fresh) + __builtin_popcount(parity) <=
		       __builtin_popcount(included & ~fresh);
}

/* The pages' tags and words, once their cells and the parity are written. */
static void publish(const struct hand *hand, const struct redundancy_page *pages, unsigned count,
	enum page_event event)
{
	for (unsigned i = 0; i < count; i++) {
		struct page *page = &hand->region->pages[pages[i].pgno];
		uint64_t seen = atomic_load(&page->word);
		memcpy(page->tag, pages[i].tag, sizeof page->tag);
		while (!page_step(page, &seen, event, 1, pages[i].version))
			;
	}
}

void erasure_write(struct worker *worker, struct secpool_region *region,
	const struct redundancy_page *pages, unsigned count, enum page_event event)
{
	unsigned data = region->data, fresh = 0, written = 0, parity;
	struct hand hand;

	stripework_take(&hand, worker, region, pages[0].pgno / data);
	for (unsigned i = 0; i < count; i++)
		fresh |= 1u << lane_of(&hand, &pages[i]);
	parity = stripework_usable(&hand) >> data;
	if (!difference_pays(&hand, fresh, parity) || !update_parity(&hand, pages, count, parity)) {
		hand.known = 0;
		make_parity(&hand, pages, count);
	}
	for (unsigned i = 0; i < count; i++)
		if (stripework_store(&hand, lane_of(&hand, &pages[i]), pages[i].ciphertext))
			written |= 1u << lane_of(&hand, &pages[i]);
	for (unsigned i = 0; i < region->lanes - data; i++)
		if ((parity & 1u << i) &&
			stripework_store(&hand, data + i, stripework_cell(&hand, data + i)))
			written |= 1u << (data + i);
	publish(&hand, pages, count, event);
	stripework_note_written(&hand, written, fresh,
		(uint64_t)(fresh & ~written) << STRIPE_DATA_SHIFT |
			(uint64_t)(15 & ~(written >> data)) << STRIPE_PARITY_SHIFT);
	stripework_end(&hand);
}

bool erasure_holds(const struct secpool_region *region, uint64_t pgno)
{
	return stripe_included(atomic_load(&region->stripes[pgno / region->data].word)) &
	       1u << pgno % region->data;
}

bool erasure_writable(const struct secpool_region *region, uint64_t pgno)
{
	struct hand hand = {.region = (struct secpool_region *)(uintptr_t)region, /* only read */
		.number = pgno / region->data,
		.placement = redundancy_placement(region)};

	return __builtin_popcount(stripework_usable(&hand)) >= (int)region->data;
}

/* ---- the page that was asked for ---- */

/* From its own cell, as nearly always. */
static enum secpool_error read_cell(struct worker *worker, struct secpool_region *region,
	uint64_t pgno, uint8_t *plain, struct redundancy_result *result)
{
	/* the placement before the word: loss.h */
	const struct placement *placement = redundancy_placement(region);
	uint64_t number = pgno / region->data;
	unsigned lane = (unsigned)(pgno % region->data);
	struct page *page = &region->pages[pgno];
	enum secpool_error error;
	struct device *device;
	uint64_t at;

	if (!(stripe_data(atomic_load(&region->stripes[number].word)) & 1u << lane) ||
		!places_find(placement, lane, number * region->page_bytes, &device, &at))
		return SECPOOL_E_DEVICE_GONE;
	if (device_doubtful(device))
		return SECPOOL_E_TIMEOUT; /* from the others, if that can be */
	error = redundancy_open_live(
		worker, region, pgno, page_version(atomic_load(&page->word)), device, at, plain);
	if (error == SECPOOL_E_DEVICE_GONE) {
		loss_noticed(worker);
		return error;
	}
	/* a device that went silent answers zeros: gone, not bad */
	if (error == SECPOOL_E_INTEGRITY && device_seen_alive(device)) {
		result->bad = true;
		result->bad_device = device;
		result->bad_at = at;
	}
	return error;
}

enum secpool_error erasure_read(struct worker *worker, struct secpool_region *region, uint64_t pgno,
	uint8_t *plain, struct redundancy_result *ret_result)
{
	struct redundancy_result result = {.other = false};
	unsigned lane = (unsigned)(pgno % region->data);
	enum secpool_error error = read_cell(worker, region, pgno, plain, &result);
	struct hand hand;

	if (!error) {
		*ret_result = result;
		return SECPOOL_OK;
	}
	stripework_take(&hand, worker, region, pgno / region->data);
	error = SECPOOL_E_LOST;
	if (stripework_gather_without_doubt(&hand, 1u << lane) ||
		stripework_gather(&hand, 1u << lane))
		error = redundancy_open(worker, region, pgno,
			page_version(atomic_load(&region->pages[pgno].word)),
			stripework_cell(&hand, lane), plain);
	if (!error) {
		result.other = true;
		counter_add(worker, COUNTER_FAILOVERS, 1);
		/* where it has a place, it is there again */
		if (!(stripe_data(word_of(&hand)) & 1u << lane) &&
			stripework_store(&hand, lane, stripework_cell(&hand, lane))) {
			stripework_note_written(&hand, 1u << lane, 0, 0);
			counter_add(worker, COUNTER_REPAIRS, 1);
		}
	}
	hand.bad &= ~(1u << lane); /* the caller tells of its own page */
	stripework_end(&hand);
	*ret_result = result;
	return error ? SECPOOL_E_LOST : SECPOOL_OK;
}

void erasure_prefetch(const struct secpool_region *region, uint64_t pgno)
{
	const struct placement *placement = redundancy_placement(region);
	uint64_t number = pgno / region->data;
	unsigned lane = (unsigned)(pgno % region->data);
	struct device *device;
	uint64_t at;

	if ((stripe_data(
		     atomic_load_explicit(&region->stripes[number].word, memory_order_relaxed)) &
		    1u << lane) &&
		places_find(placement, lane, number * region->page_bytes, &device, &at))
		device_prefetch(device, at, region->page_bytes);
}

/* ---- rebuild, patrol, loss ---- */

/* Lanes that lack what they should hold, and can be written. */
static unsigned lacking(const struct hand *hand)
{
	uint64_t word = word_of(hand);
	unsigned data = hand->region->data, missing = stripe_missing(word);

	if (stripe_included(word) != 0)
		missing |= (~stripe_parity(word) & ((1u << (hand->region->lanes - data)) - 1))
			   << data;
	return missing ? missing & stripework_usable(hand) : 0;
}

bool erasure_lacking(const struct secpool_region *region, uint64_t number)
{
	struct hand hand = {.region = (struct secpool_region *)(uintptr_t)region, /* only read */
		.number = number,
		.stripe = &region->stripes[number],
		.placement = redundancy_placement(region)};

	return lacking(&hand) != 0;
}

/* Which lanes of parity are valid by their word and hold something else than what was made of the data. */
static unsigned find_bad_parity(struct hand *hand)
{
	const struct secpool_region *region = hand->region;
	uint8_t *made = stripework_cell(hand, MSG_LANES_MAX);
	unsigned bad = 0;

	for (unsigned i = 0; i < region->lanes - region->data; i++) {
		unsigned lane = region->data + i;
		if (!(stripe_parity(word_of(hand)) & 1u << i))
			continue;
		memcpy(made, stripework_cell(hand, lane), region->page_bytes);
		if (stripework_load(hand, lane) &&
			memcmp(made, stripework_cell(hand, lane), region->page_bytes) != 0) {
			stripework_note_bad(hand, lane);
			bad |= 1u << lane;
		}
		memcpy(stripework_cell(hand, lane), made, region->page_bytes);
	}
	return bad;
}

bool erasure_rebuild(
	struct worker *worker, struct secpool_region *region, uint64_t number, bool check)
{
	unsigned written = 0, write;
	struct hand hand;

	if (!erasure_lacking(region, number) &&
		!(check && stripe_included(atomic_load(&region->stripes[number].word))))
		return false;
	stripework_take(&hand, worker, region, number);
	make_parity(&hand, NULL, 0);
	if (check)
		find_bad_parity(&hand);
	write = lacking(&hand);
	for (unsigned lane = 0; lane < region->lanes; lane++)
		if ((write & 1u << lane) &&
			stripework_store(&hand, lane, stripework_cell(&hand, lane)))
			written |= 1u << lane;
	stripework_note_written(&hand, written, 0, 0);
	if (hand.bad)
		counter_add(
			worker, COUNTER_REPAIRS, (uint64_t)__builtin_popcount(hand.bad & written));
	stripework_end(&hand);
	return true;
}

/* Brings what the lane should hold to its cell. */
static bool load_to_move(struct hand *hand, unsigned lane)
{
	if (lane >= hand->region->data)
		return stripework_load(hand, lane);
	stripework_load_data(hand, lane);
	return (hand->known & 1u << lane) || stripework_gather(hand, 1u << lane);
}

bool erasure_move(struct worker *worker, struct secpool_region *region, uint64_t number,
	struct target *target)
{
	uint64_t bit = stripe_lane_bit(region->data, target->lane);
	uint64_t at = target->offset + (number * region->page_bytes - target->region_offset);
	bool copied = false;
	struct hand hand;

	stripework_take(&hand, worker, region, number);
	if (word_of(&hand) & bit)
		copied = load_to_move(&hand, target->lane) &&
			 device_write(target->device, at, stripework_cell(&hand, target->lane),
				 region->page_bytes) == SECPOOL_OK &&
			 device_seen_alive(target->device);
	/* release: what was copied */
	atomic_fetch_add_explicit(&target->moved, region->page_bytes, memory_order_release);
	if (!copied)
		stripe_note(hand.stripe, 0, bit);
	stripework_end(&hand);
	return true;
}

void erasure_strike(struct worker *worker, struct secpool_region *region, unsigned lane,
	uint64_t first, uint64_t end_number, void (*lost)(void *arg, uint64_t pgno), void *arg)
{
	uint64_t bit = stripe_lane_bit(region->data, lane);

	for (uint64_t number = first; number < end_number && number < region->stripe_count;
		number++) {
		struct hand hand;
		uint64_t before = atomic_fetch_and(&region->stripes[number].word, ~bit);
		/* one that is in a worker's hand is looked at when it lets go */
		if (stripe_decodable(before & ~bit) || !stripe_try(&region->stripes[number]))
			continue;
		stripework_begin(&hand, worker, region, number);
		stripework_release(&hand);
		for (unsigned data_lane = 0; data_lane < region->data; data_lane++)
			if (hand.lost & 1u << data_lane)
				lost(arg, number * region->data + data_lane);
	}
}
