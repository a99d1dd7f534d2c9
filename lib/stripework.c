/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/stripework.h"

#include <isa-l/erasure_code.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/os.h"
#include "lib/fill.h"
#include "lib/loss.h"
#include "lib/places.h"
#include "lib/redundancy.h"

/* ISA-L: bytes of its table for one coefficient. */
enum { TABLE_BYTES = 32 };

struct erasure_code {
	uint8_t matrix[MSG_LANES_MAX * MSG_LANES_MAX]; /* row: lane, column: data lane */
	uint8_t tables[MSG_PARITY_MAX * MSG_LANES_MAX * TABLE_BYTES]; /* of the rows of parity */
};

enum secpool_error stripework_new_code(
	unsigned data, unsigned lanes, struct erasure_code **ret_code)
{
	struct erasure_code *code = calloc(1, sizeof *code);

	if (!code)
		return os_error("an erasure code");
	gf_gen_cauchy1_matrix(code->matrix, (int)lanes, (int)data);
	ec_init_tables(
		(int)data, (int)(lanes - data), code->matrix + (size_t)data * data, code->tables);
	*ret_code = code;
	return SECPOOL_OK;
}

void stripework_free_code(struct erasure_code *code)
{
	free(code);
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
uint8_t *stripework_cell(const struct hand *hand, unsigned lane)
{
	return hand->worker->coding + (MSG_LANES_MAX + lane) * hand->region->page_bytes;
}

static uint64_t word_of(const struct hand *hand)
{
	return atomic_load(&hand->stripe->word);
}

bool stripework_place(
	const struct hand *hand, unsigned lane, struct device **ret_device, uint64_t *ret_at)
{
	return places_find(
		hand->placement, lane, hand->number * hand->region->page_bytes, ret_device, ret_at);
}

/* The placement after the stripe is ours: what its word says of lanes is true of that placement, or was cleared. */
void stripework_begin(
	struct hand *hand, struct worker *worker, struct secpool_region *region, uint64_t number)
{
	*hand = (struct hand){.worker = worker,
		.region = region,
		.number = number,
		.stripe = &region->stripes[number]};
}

void stripework_take(
	struct hand *hand, struct worker *worker, struct secpool_region *region, uint64_t number)
{
	stripework_begin(hand, worker, region, number);
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

void stripework_release(struct hand *hand)
{
	while (!stripe_release(hand->stripe))
		give_up(hand);
}

static void tell_bad(const struct hand *hand, unsigned lane)
{
	struct device *device;
	uint64_t at;

	if (stripework_place(hand, lane, &device, &at))
		loss_tell_bad(hand->worker, hand->region,
			pgno_of(hand, lane < hand->region->data ? lane : 0), device, at);
}

/* Lets go of the stripe, then tells what was met. */
void stripework_end(struct hand *hand)
{
	stripework_release(hand);
	for (unsigned lane = 0; lane < hand->region->lanes; lane++) {
		if (hand->bad & 1u << lane)
			tell_bad(hand, lane);
		if (hand->lost & 1u << lane)
			fill_lost(hand->worker, hand->region, pgno_of(hand, lane),
				hand->bad ? SECPOOL_CAUSE_INTEGRITY : SECPOOL_CAUSE_REMOVED,
				hand->bad_device);
	}
	if (hand->lost) /* its parity is to be made anew */
		loss_check(hand->worker, hand->region);
}

/* ---- reading ---- */

static void clear_lane(const struct hand *hand, unsigned lane)
{
	stripe_note(hand->stripe, 0, stripe_lane_bit(hand->region->data, lane));
}

/* Reads a lane's bytes to its cell; a lane that can't be read is not valid any more. */
bool stripework_load(struct hand *hand, unsigned lane)
{
	struct device *device;
	uint64_t at;

	if (stripework_place(hand, lane, &device, &at) &&
		device_read(device, at, stripework_cell(hand, lane), hand->region->page_bytes) ==
			SECPOOL_OK)
		return true;
	loss_noticed(hand->worker);
	clear_lane(hand, lane);
	return false;
}

/* Whether a cell is the page's contents as they were last written. */
static bool is_right(const struct hand *hand, unsigned lane)
{
	const struct page *page = page_of(hand, lane);

	return keyring_check(&hand->region->keys, hand->worker->index, pgno_of(hand, lane),
		       page_version(atomic_load(&page->word)), stripework_cell(hand, lane),
		       page->tag) == SECPOOL_OK;
}

void stripework_note_bad(struct hand *hand, unsigned lane)
{
	struct device *device = NULL;
	uint64_t at;

	clear_lane(hand, lane);
	if (!stripework_place(hand, lane, &device, &at) || !device_seen_alive(device)) {
		loss_noticed(hand->worker);
		return; /* it is gone: that is no fault of its bytes */
	}
	hand->bad |= 1u << lane;
	hand->bad_device = device;
	counter_add(hand->worker, COUNTER_INTEGRITY_FAILURES, 1);
}

/* Brings what is included of a data lane to its cell, from its place. */
void stripework_load_data(struct hand *hand, unsigned lane)
{
	uint64_t word = word_of(hand);

	if (hand->known & 1u << lane)
		return;
	if (!(stripe_included(word) & 1u << lane)) {
		memset(stripework_cell(hand, lane), 0, hand->region->page_bytes);
		hand->known |= 1u << lane;
	} else if ((stripe_data(word) & ~hand->avoid & 1u << lane) && stripework_load(hand, lane)) {
		if (is_right(hand, lane))
			hand->known |= 1u << lane;
		else
			stripework_note_bad(hand, lane);
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
		from[count++] = stripework_cell(hand, lane);
	}
	if (count != data || gf_invert_matrix(rows, inverse, (int)data) != 0)
		return false;
	count = 0;
	for (unsigned lane = 0; lane < data; lane++) {
		if (!(missing & 1u << lane))
			continue;
		memcpy(wanted + count * data, inverse + lane * data, data);
		to[count++] = stripework_cell(hand, lane);
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
	unsigned data = hand->region->data, loaded = 0;
	unsigned parity = stripe_parity(word_of(hand)) & ~(hand->avoid >> data);
	int missing = __builtin_popcount(all_data(hand) & ~hand->known);

	for (unsigned i = 0; i < MSG_PARITY_MAX; i++)
		if ((parity & 1u << i) && stripework_load(hand, data + i))
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
bool stripework_gather(struct hand *hand, unsigned lanes)
{
	unsigned missing;

	for (unsigned lane = 0; lane < hand->region->data; lane++)
		if (lanes & 1u << lane)
			stripework_load_data(hand, lane);
	if (!(lanes & ~hand->known))
		return true;
	for (unsigned lane = 0; lane < hand->region->data; lane++)
		stripework_load_data(hand, lane);
	if (decode_by_any(hand))
		return true;
	/* the parity is of contents that nobody knows any more */
	missing = all_data(hand) & ~hand->known;
	stripe_note(hand->stripe, 0,
		(uint64_t)missing << STRIPE_DATA_SHIFT | 15ull << STRIPE_PARITY_SHIFT);
	give_up(hand);
	for (unsigned lane = 0; lane < hand->region->data; lane++)
		if (missing & 1u << lane)
			memset(stripework_cell(hand, lane), 0, hand->region->page_bytes);
	hand->known = all_data(hand);
	return !(lanes & missing);
}

/* Lanes on devices that are under suspicion. */
static unsigned doubtful_lanes(const struct hand *hand)
{
	unsigned doubtful = 0;

	for (unsigned lane = 0; lane < hand->region->lanes; lane++) {
		struct device *device;
		uint64_t at;
		if (stripework_place(hand, lane, &device, &at) && device_doubtful(device))
			doubtful |= 1u << lane;
	}
	return doubtful;
}

bool stripework_gather_without_doubt(struct hand *hand, unsigned lanes)
{
	bool done;

	hand->avoid = doubtful_lanes(hand);
	for (unsigned lane = 0; lane < hand->region->data && hand->avoid; lane++)
		stripework_load_data(hand, lane);
	done = hand->avoid && (!(lanes & ~hand->known) || decode_by_any(hand));
	hand->avoid = 0;
	return done;
}

/* ---- writing ---- */

void stripework_encode(const struct hand *hand, uint8_t *const from[])
{
	const struct secpool_region *region = hand->region;
	uint8_t *to[MSG_PARITY_MAX], *sources[MSG_LANES_MAX];

	memcpy(sources, from, region->data * sizeof *sources);
	for (unsigned i = 0; i < region->lanes - region->data; i++)
		to[i] = stripework_cell(hand, region->data + i);
	ec_encode_data((int)region->page_bytes, (int)region->data,
		(int)(region->lanes - region->data), region->code->tables, sources, to);
}

void stripework_encode_difference(const struct hand *hand, unsigned lane, const uint8_t *difference)
{
	const struct secpool_region *region = hand->region;
	uint8_t *to[MSG_PARITY_MAX];

	for (unsigned i = 0; i < region->lanes - region->data; i++)
		to[i] = stripework_cell(hand, region->data + i);
	ec_encode_data_update((int)region->page_bytes, (int)region->data,
		(int)(region->lanes - region->data), (int)lane, region->code->tables,
		(uint8_t *)(uintptr_t)difference, to); /* only read */
}

/* Lanes whose place is on a device that is there. */
unsigned stripework_usable(const struct hand *hand)
{
	unsigned usable = 0;

	for (unsigned lane = 0; lane < hand->region->lanes; lane++) {
		struct device *device;
		uint64_t at;
		if (stripework_place(hand, lane, &device, &at) && device_usable(device))
			usable |= 1u << lane;
	}
	return usable;
}

bool stripework_store(const struct hand *hand, unsigned lane, const uint8_t *bytes)
{
	struct device *device;
	uint64_t at;

	if (!stripework_place(hand, lane, &device, &at))
		return false;
	if (device_write(device, at, bytes, hand->region->page_bytes) == SECPOOL_OK)
		return true;
	loss_noticed(hand->worker);
	return false;
}

/* Notes lanes as valid that were written (and `included` with them), then looks again whether their devices are there: who handles a loss may have done so before the note. */
void stripework_note_written(
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
			(stripework_place(hand, lane, &device, &at) && device_seen_alive(device)))
			continue;
		loss_noticed(hand->worker);
		clear_lane(hand, lane);
	}
}
