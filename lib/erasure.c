/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/erasure.h"

#include <isa-l/erasure_code.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/base/os.h"
#include "lib/fill.h"
#include "lib/loss.h"
#include "lib/places.h"

/* ISA-L: bytes of its table for one coefficient. */
enum { TABLE_BYTES = 32 };

struct erasure_code {
	uint8_t matrix[MSG_LANES_MAX * MSG_LANES_MAX]; /* row: lane, column: data lane */
	uint8_t tables[MSG_PARITY_MAX * MSG_LANES_MAX * TABLE_BYTES]; /* of the rows of parity */
};

/* A stripe in a worker's hand. */
struct hand {
	struct worker *worker;
	struct secpool_region *region;
	const struct placement *placement;
	struct stripe *stripe;
	uint64_t number;
	unsigned known; /* data lanes whose included contents are in their cells, checked */
	unsigned bad;	/* lanes whose bytes failed their check */
	unsigned lost;	/* data lanes whose pages became lost */
	struct device *bad_device;
};

enum secpool_error erasure_init(struct secpool_region *region)
{
	unsigned data = region->data, parity = region->lanes - data;
	void *stripes;

	region->stripe_count = (region->page_count + data - 1) / data;
	stripes = mmap(NULL, region->stripe_count * sizeof *region->stripes, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (stripes == MAP_FAILED)
		return os_error("table of %llu stripes", (unsigned long long)region->stripe_count);
	region->stripes = stripes; /* zero: nothing is included */
	region->code = calloc(1, sizeof *region->code);
	if (!region->code)
		return os_error("an erasure code");
	gf_gen_cauchy1_matrix(region->code->matrix, (int)region->lanes, (int)data);
	ec_init_tables((int)data, (int)parity, region->code->matrix + (size_t)data * data,
		region->code->tables);
	return SECPOOL_OK;
}

void erasure_done(struct secpool_region *region)
{
	if (region->stripes)
		syscall(SYS_munmap, region->stripes,
			region->stripe_count * sizeof *region->stripes);
	free(region->code);
}

/* ---- a stripe in the hand ---- */

static unsigned all_data(const struct hand *hand)
{
	return (1u << hand->region->data) - 1;
}

static uint64_t pgno_of(const struct hand *hand, unsigned lane)
{
	return hand->number * hand->region->data + lane;
}

static struct page *page_of(const struct hand *hand, unsigned lane)
{
	return &hand->region->pages[pgno_of(hand, lane)];
}

/* Behind the sealed pages (redundancy_ciphertext). */
static uint8_t *cell_of(const struct hand *hand, unsigned lane)
{
	return hand->worker->coding + (MSG_LANES_MAX + lane) * hand->region->page_bytes;
}

static uint64_t word_of(const struct hand *hand)
{
	return atomic_load(&hand->stripe->word);
}

static bool place_of(
	const struct hand *hand, unsigned lane, struct device **ret_device, uint64_t *ret_at)
{
	return places_find(
		hand->placement, lane, hand->number * hand->region->page_bytes, ret_device, ret_at);
}

/* The placement after the stripe is ours: what its word says of lanes is true of that placement, or was cleared. */
static void begin(
	struct hand *hand, struct worker *worker, struct secpool_region *region, uint64_t number)
{
	*hand = (struct hand){.worker = worker,
		.region = region,
		.number = number,
		.stripe = &region->stripes[number]};
}

static void take(
	struct hand *hand, struct worker *worker, struct secpool_region *region, uint64_t number)
{
	begin(hand, worker, region, number);
	stripe_take(hand->stripe);
	hand->placement = redundancy_placement(region);
}

/* What is missing is lost: it is not part of the stripe any more. */
static void give_up(struct hand *hand)
{
	unsigned missing = stripe_give_up(hand->stripe);

	for (unsigned lane = 0; lane < hand->region->data; lane++)
		if ((missing & 1u << lane) && page_drop_copies(page_of(hand, lane), 1))
			hand->lost |= 1u << lane;
}

static void release(struct hand *hand)
{
	while (!stripe_release(hand->stripe))
		give_up(hand);
}

static void tell_bad(const struct hand *hand, unsigned lane)
{
	size_t bytes = hand->region->page_bytes;
	struct secpool_event event = {
		.type = SECPOOL_EVENT_BAD_COPY,
		.cause = SECPOOL_CAUSE_INTEGRITY,
		.region = hand->region,
		.range = {.offset = pgno_of(hand, lane < hand->region->data ? lane : 0) * bytes,
			.bytes = bytes},
	};

	if (hand->bad_device)
		memcpy(event.device, hand->bad_device->id, sizeof event.device);
	loss_tell(hand->worker, &event);
}

/* Lets go of the stripe, then tells what was met. */
static void end(struct hand *hand)
{
	release(hand);
	for (unsigned lane = 0; lane < hand->region->lanes; lane++) {
		if (hand->bad & 1u << lane)
			tell_bad(hand, lane);
		if (hand->lost & 1u << lane)
			fill_lost(hand->worker, hand->region, pgno_of(hand, lane),
				hand->bad ? SECPOOL_CAUSE_INTEGRITY : SECPOOL_CAUSE_REMOVED,
				hand->bad_device);
	}
	if (hand->bad || hand->lost)
		loss_rebuild(hand->worker, hand->region);
}

/* ---- reading ---- */

static void clear_lane(const struct hand *hand, unsigned lane)
{
	stripe_note(hand->stripe, 0, stripe_lane_bit(hand->region->data, lane));
}

/* Reads a lane's bytes to its cell; a lane that can't be read is not valid any more. */
static bool load_lane(struct hand *hand, unsigned lane)
{
	struct device *device;
	uint64_t at;

	if (place_of(hand, lane, &device, &at) && device_read(device, at, cell_of(hand, lane),
							  hand->region->page_bytes) == SECPOOL_OK)
		return true;
	loss_noticed(hand->worker);
	clear_lane(hand, lane);
	return false;
}

/* Whether a cell is the page's contents as they were last written. */
static bool is_right(const struct hand *hand, unsigned lane)
{
	const struct page *page = page_of(hand, lane);

	return pagecipher_check(hand->region->cipher, hand->worker->index, PAGECIPHER_DATA,
		       pgno_of(hand, lane), page_version(atomic_load(&page->word)),
		       cell_of(hand, lane), page->tag) == SECPOOL_OK;
}

static void note_bad(struct hand *hand, unsigned lane)
{
	struct device *device = NULL;
	uint64_t at;

	clear_lane(hand, lane);
	if (!place_of(hand, lane, &device, &at) || !device_usable(device))
		return; /* it is gone: that is no fault of its bytes */
	hand->bad |= 1u << lane;
	hand->bad_device = device;
	counter_add(hand->worker, COUNTER_INTEGRITY_FAILURES, 1);
}

/* Brings what is included of a data lane to its cell, from its place. */
static void load_data(struct hand *hand, unsigned lane)
{
	uint64_t word = word_of(hand);

	if (hand->known & 1u << lane)
		return;
	if (!(stripe_included(word) & 1u << lane)) {
		memset(cell_of(hand, lane), 0, hand->region->page_bytes);
		hand->known |= 1u << lane;
	} else if ((stripe_data(word) & 1u << lane) && load_lane(hand, lane)) {
		if (is_right(hand, lane))
			hand->known |= 1u << lane;
		else
			note_bad(hand, lane);
	}
}

/* The data lanes that are not known from the others and these lanes of parity, whose number is the same. Whether all of them are right. */
static bool decode(struct hand *hand, unsigned parity)
{
	const struct secpool_region *region = hand->region;
	unsigned data = region->data, missing = all_data(hand) & ~hand->known, count = 0;
	uint8_t rows[MSG_LANES_MAX * MSG_LANES_MAX], inverse[MSG_LANES_MAX * MSG_LANES_MAX];
	uint8_t wanted[MSG_PARITY_MAX * MSG_LANES_MAX], tables[sizeof wanted * TABLE_BYTES];
	uint8_t *from[MSG_LANES_MAX], *to[MSG_PARITY_MAX];
	unsigned sources = hand->known | parity << data;
	bool right = true;

	for (unsigned lane = 0; lane < region->lanes; lane++) {
		if (!(sources & 1u << lane))
			continue;
		memcpy(rows + count * data, region->code->matrix + (size_t)lane * data, data);
		from[count++] = cell_of(hand, lane);
	}
	if (count != data || gf_invert_matrix(rows, inverse, (int)data) != 0)
		return false;
	count = 0;
	for (unsigned lane = 0; lane < data; lane++) {
		if (!(missing & 1u << lane))
			continue;
		memcpy(wanted + count * data, inverse + lane * data, data);
		to[count++] = cell_of(hand, lane);
	}
	ec_init_tables((int)data, (int)count, wanted, tables);
	ec_encode_data((int)region->page_bytes, (int)data, (int)count, tables, from, to);
	for (unsigned lane = 0; lane < data; lane++)
		if (missing & 1u << lane)
			right = right && is_right(hand, lane);
	return right;
}

/* By each choice of as many lanes of parity as data lanes are missing: one of them may hold bad bytes. */
static bool decode_by_any(struct hand *hand)
{
	unsigned data = hand->region->data, parity = stripe_parity(word_of(hand)), loaded = 0;
	int missing = __builtin_popcount(all_data(hand) & ~hand->known);

	for (unsigned i = 0; i < MSG_PARITY_MAX; i++)
		if ((parity & 1u << i) && load_lane(hand, data + i))
			loaded |= 1u << i;
	for (unsigned choice = 1; choice < 1u << MSG_PARITY_MAX; choice++) {
		if ((choice & ~loaded) || __builtin_popcount(choice) != missing ||
			!decode(hand, choice))
			continue;
		hand->known = all_data(hand);
		return true;
	}
	return false;
}

/* Brings the data lanes of a mask to their cells, by decoding where it must be. False: what could not be had of them is given up, and lost; their cells are zeros. */
static bool gather(struct hand *hand, unsigned lanes)
{
	unsigned missing;

	for (unsigned lane = 0; lane < hand->region->data; lane++)
		if (lanes & 1u << lane)
			load_data(hand, lane);
	if (!(lanes & ~hand->known))
		return true;
	for (unsigned lane = 0; lane < hand->region->data; lane++)
		load_data(hand, lane);
	if (decode_by_any(hand))
		return true;
	/* the parity is of contents that nobody knows any more */
	missing = all_data(hand) & ~hand->known;
	stripe_note(hand->stripe, 0,
		(uint64_t)missing << STRIPE_DATA_SHIFT | 15ull << STRIPE_PARITY_SHIFT);
	give_up(hand);
	for (unsigned lane = 0; lane < hand->region->data; lane++)
		if (missing & 1u << lane)
			memset(cell_of(hand, lane), 0, hand->region->page_bytes);
	hand->known = all_data(hand);
	return !(lanes & missing);
}

/* ---- writing ---- */

/* Lanes whose place is on a device that is there. */
static unsigned usable_lanes(const struct hand *hand)
{
	unsigned usable = 0;

	for (unsigned lane = 0; lane < hand->region->lanes; lane++) {
		struct device *device;
		uint64_t at;
		if (place_of(hand, lane, &device, &at) && device_usable(device))
			usable |= 1u << lane;
	}
	return usable;
}

static bool store_lane(const struct hand *hand, unsigned lane, const uint8_t *bytes)
{
	struct device *device;
	uint64_t at;

	if (!place_of(hand, lane, &device, &at))
		return false;
	if (device_write(device, at, bytes, hand->region->page_bytes) == SECPOOL_OK)
		return true;
	loss_noticed(hand->worker);
	return false;
}

/* Notes lanes as valid that were written (and `included` with them), then looks again whether their devices are there: who handles a loss may have done so before the note. */
static void note_written(
	const struct hand *hand, unsigned written, unsigned included, uint64_t clear)
{
	unsigned data = hand->region->data;
	uint64_t set = (uint64_t)included << STRIPE_INCLUDED_SHIFT;

	for (unsigned lane = 0; lane < hand->region->lanes; lane++)
		if (written & 1u << lane)
			set |= stripe_lane_bit(data, lane);
	stripe_note(hand->stripe, set, clear);
	for (unsigned lane = 0; lane < hand->region->lanes; lane++) {
		struct device *device;
		uint64_t at;
		if (!(written & 1u << lane) ||
			(place_of(hand, lane, &device, &at) && device_usable(device)))
			continue;
		loss_noticed(hand->worker);
		clear_lane(hand, lane);
	}
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
	uint8_t *to[MSG_PARITY_MAX];

	for (unsigned i = 0; i < rows; i++) {
		to[i] = cell_of(hand, data + i);
		if ((parity & 1u << i) && !load_lane(hand, data + i))
			return false;
	}
	for (unsigned i = 0; i < count; i++) {
		unsigned lane = lane_of(hand, &pages[i]);
		/* checked against its tag: a difference to bytes that are not what the parity holds would spoil it */
		load_data(hand, lane);
		if (!(hand->known & 1u << lane))
			return false;
		exclusive_or(cell_of(hand, lane), pages[i].ciphertext, region->page_bytes);
		ec_encode_data_update((int)region->page_bytes, (int)data, (int)rows, (int)lane,
			region->code->tables, cell_of(hand, lane), to);
	}
	return true;
}

/* The parity in its cells is made of all data: the new pages, the others from their places. */
static void make_parity(struct hand *hand, const struct redundancy_page *pages, unsigned count)
{
	const struct secpool_region *region = hand->region;
	unsigned data = region->data, fresh = 0;
	uint8_t *from[MSG_LANES_MAX], *to[MSG_PARITY_MAX];

	for (unsigned i = 0; i < count; i++)
		fresh |= 1u << lane_of(hand, &pages[i]);
	(void)gather(hand, all_data(hand) & ~fresh);
	for (unsigned lane = 0; lane < data; lane++)
		from[lane] = cell_of(hand, lane);
	for (unsigned i = 0; i < count; i++)
		from[lane_of(hand, &pages[i])] =
			(uint8_t *)(uintptr_t)pages[i].ciphertext; /* only read */
	for (unsigned i = 0; i < region->lanes - data; i++)
		to[i] = cell_of(hand, data + i);
	ec_encode_data((int)region->page_bytes, (int)data, (int)(region->lanes - data),
		region->code->tables, from, to);
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

	take(&hand, worker, region, pages[0].pgno / data);
	for (unsigned i = 0; i < count; i++)
		fresh |= 1u << lane_of(&hand, &pages[i]);
	parity = usable_lanes(&hand) >> data;
	if (!difference_pays(&hand, fresh, parity) || !update_parity(&hand, pages, count, parity)) {
		hand.known = 0;
		make_parity(&hand, pages, count);
	}
	for (unsigned i = 0; i < count; i++)
		if (store_lane(&hand, lane_of(&hand, &pages[i]), pages[i].ciphertext))
			written |= 1u << lane_of(&hand, &pages[i]);
	for (unsigned i = 0; i < region->lanes - data; i++)
		if ((parity & 1u << i) && store_lane(&hand, data + i, cell_of(&hand, data + i)))
			written |= 1u << (data + i);
	publish(&hand, pages, count, event);
	note_written(&hand, written, fresh,
		(uint64_t)(fresh & ~written) << STRIPE_DATA_SHIFT |
			(uint64_t)(15 & ~(written >> data)) << STRIPE_PARITY_SHIFT);
	end(&hand);
}

bool erasure_writable(const struct secpool_region *region, uint64_t pgno)
{
	struct hand hand = {.region = (struct secpool_region *)(uintptr_t)region, /* only read */
		.number = pgno / region->data,
		.placement = redundancy_placement(region)};

	return __builtin_popcount(usable_lanes(&hand)) >= (int)region->data;
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
	error = device_read(device, at, worker->ciphertext, region->page_bytes);
	if (error) {
		loss_noticed(worker);
		return error;
	}
	error = pagecipher_open(region->cipher, worker->index, PAGECIPHER_DATA, pgno,
		page_version(atomic_load(&page->word)), worker->ciphertext, page->tag, plain);
	if (error == SECPOOL_E_INTEGRITY) {
		result->bad = true;
		result->bad_device = device;
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
	take(&hand, worker, region, pgno / region->data);
	error = SECPOOL_E_LOST;
	if (gather(&hand, 1u << lane))
		error = pagecipher_open(region->cipher, worker->index, PAGECIPHER_DATA, pgno,
			page_version(atomic_load(&region->pages[pgno].word)), cell_of(&hand, lane),
			region->pages[pgno].tag, plain);
	if (!error) {
		result.other = true;
		counter_add(worker, COUNTER_FAILOVERS, 1);
		/* where it has a place, it is there again */
		if (!(stripe_data(word_of(&hand)) & 1u << lane) &&
			store_lane(&hand, lane, cell_of(&hand, lane))) {
			note_written(&hand, 1u << lane, 0, 0);
			counter_add(worker, COUNTER_REPAIRS, 1);
		}
	}
	hand.bad &= ~(1u << lane); /* the caller tells of its own page */
	end(&hand);
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
	return missing ? missing & usable_lanes(hand) : 0;
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
	uint8_t *made = cell_of(hand, MSG_LANES_MAX);
	unsigned bad = 0;

	for (unsigned i = 0; i < region->lanes - region->data; i++) {
		unsigned lane = region->data + i;
		if (!(stripe_parity(word_of(hand)) & 1u << i))
			continue;
		memcpy(made, cell_of(hand, lane), region->page_bytes);
		if (load_lane(hand, lane) &&
			memcmp(made, cell_of(hand, lane), region->page_bytes) != 0) {
			note_bad(hand, lane);
			bad |= 1u << lane;
		}
		memcpy(cell_of(hand, lane), made, region->page_bytes);
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
	take(&hand, worker, region, number);
	make_parity(&hand, NULL, 0);
	if (check)
		find_bad_parity(&hand);
	write = lacking(&hand);
	for (unsigned lane = 0; lane < region->lanes; lane++)
		if ((write & 1u << lane) && store_lane(&hand, lane, cell_of(&hand, lane)))
			written |= 1u << lane;
	note_written(&hand, written, 0, 0);
	if (hand.bad)
		counter_add(
			worker, COUNTER_REPAIRS, (uint64_t)__builtin_popcount(hand.bad & written));
	end(&hand);
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
		begin(&hand, worker, region, number);
		release(&hand);
		for (unsigned data_lane = 0; data_lane < region->data; data_lane++)
			if (hand.lost & 1u << data_lane)
				lost(arg, pgno_of(&hand, data_lane));
	}
}
