/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stripe in a worker's hand: reading its cells, decoding what is missing, writing them, and letting go. erasure.c is made of these steps.
 *
 * Cells are in the worker's private memory (worker->coding), one for each lane. Nothing that comes from a device is believed before it was checked: data against the tag of their page,
 * what was decoded too.
 * Threads: workers, each with one stripe at a time.
 */
#ifndef SECPOOL_STRIPEWORK_H
#define SECPOOL_STRIPEWORK_H

#include "lib/pool.h"
#include "lib/stripe.h"

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
	unsigned avoid; /* lanes that are not to be read now */
	struct device *bad_device; /* of the last of them */
};

/* The code of a region. Errors: SECPOOL_E_NO_MEMORY. */
enum secpool_error stripework_new_code(unsigned data, unsigned lanes, struct erasure_code **ret_code) MUST_USE;
void stripework_free_code(struct erasure_code *code);

/* Takes a stripe, waiting for its owner; or, begin, describes one that the caller has taken (stripe_try), or only looks at. */
void stripework_take(struct hand *hand, struct worker *worker, struct secpool_region *region, uint64_t number);
void stripework_begin(struct hand *hand, struct worker *worker, struct secpool_region *region, uint64_t number);

/* Lets go; what is missing and can't be decoded is given up: its pages are lost (hand->lost). end: also tells what was met. */
void stripework_release(struct hand *hand);
void stripework_end(struct hand *hand);

/* The place of the stripe's cell in a lane; false where it has none. */
bool stripework_place(const struct hand *hand, unsigned lane, struct device **ret_device, uint64_t *ret_at);

/* Where the cell of a lane is kept; lane MSG_LANES_MAX: a spare one. */
uint8_t *stripework_cell(const struct hand *hand, unsigned lane);

/* Lanes whose place is on a device that is there. */
unsigned stripework_usable(const struct hand *hand);

/* Reads a lane's bytes to its cell; a lane that can't be read is not valid any more. */
bool stripework_load(struct hand *hand, unsigned lane);

/* Brings what is included of a data lane to its cell, from its place, if it is there and right (hand->known). */
void stripework_load_data(struct hand *hand, unsigned lane);

/* A lane holds other bytes than it should: it is not valid any more, and, if its device is there, told of at the end. */
void stripework_note_bad(struct hand *hand, unsigned lane);

/* Brings the data lanes of a mask to their cells, by decoding where it must be. False: what could not be had of them is given up, and lost; their cells are zeros. */
bool stripework_gather(struct hand *hand, unsigned lanes);

/*
 * The same from the devices that are not under suspicion alone, where there is one that is. False: it can't be, or there is none; nothing was given up.
 */
bool stripework_gather_without_doubt(struct hand *hand, unsigned lanes);

/* Makes the parity, in its cells, of the data cells in `from`. */
void stripework_encode(const struct hand *hand, uint8_t *const from[]);

/* Adds to the parity in its cells what a difference in a data lane makes of it. */
void stripework_encode_difference(const struct hand *hand, unsigned lane, const uint8_t *difference);

bool stripework_store(const struct hand *hand, unsigned lane, const uint8_t *bytes);

/* Notes lanes as valid that were written (and `included` with them), then looks again whether their devices are there: who handles a loss may have done so before the note. */
void stripework_note_written(const struct hand *hand, unsigned written, unsigned included, uint64_t clear);

#endif
