/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the library knows of one stripe of an erasure-coded region: a word. The parity of a stripe is made of the ciphertext of its data pages as they were last written
 * ("included"); a page that never was, or that is lost, counts as zeros.
 *
 * A stripe in the hand of a worker (BUSY) belongs to it: only the owner writes its cells on the devices, reads more than one cell of it, changes what is included, or changes the tag
 * and the version under which a page of it was last written. Who owns a page (page.h) may then take its stripe, and takes one stripe at a time; whoever owns a stripe waits for nobody.
 * The handling of a loss clears bits of data_valid and parity_valid in any state; an owner sees that when it lets go (as with the copies of a page).
 * Threads: any; the word is atomic. The lanes of a region: pool.h.
 */
#ifndef SECPOOL_STRIPE_H
#define SECPOOL_STRIPE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/wire/msg.h"

struct stripe {
	_Atomic uint64_t word;
};

/* The word: bit 0 busy, 1 waiters, 4-7 parity_valid (bit i: the i-th lane of parity holds it), 16-31 included, 32-47 data_valid (the lane holds what is included). */
#define STRIPE_BUSY    1ull
#define STRIPE_WAITERS 2ull
enum { STRIPE_PARITY_SHIFT = 4, STRIPE_INCLUDED_SHIFT = 16, STRIPE_DATA_SHIFT = 32 };

_Static_assert(MSG_LANES_MAX <= 16 && MSG_PARITY_MAX <= 4, "masks of lanes fit the word");

static inline unsigned stripe_parity(uint64_t word)
{
	return (unsigned)(word >> STRIPE_PARITY_SHIFT) & 15;
}

static inline unsigned stripe_included(uint64_t word)
{
	return (unsigned)(word >> STRIPE_INCLUDED_SHIFT) & 0xffff;
}

static inline unsigned stripe_data(uint64_t word)
{
	return (unsigned)(word >> STRIPE_DATA_SHIFT) & 0xffff;
}

/* The bit of a lane in the word: data lanes first, as in the region. */
static inline uint64_t stripe_lane_bit(unsigned data, unsigned lane)
{
	return lane < data ? 1ull << (STRIPE_DATA_SHIFT + lane) : 1ull << (STRIPE_PARITY_SHIFT + lane - data);
}

/* Data lanes whose contents are included and not in their place. */
static inline unsigned stripe_missing(uint64_t word)
{
	return stripe_included(word) & ~stripe_data(word);
}

/* Whether all that is included can be had: any `data` lanes of a Cauchy code give the others. */
static inline bool stripe_decodable(uint64_t word)
{
	return __builtin_popcount(stripe_missing(word)) <= __builtin_popcount(stripe_parity(word));
}

/* Takes the stripe, waiting for its owner. */
void stripe_take(struct stripe *stripe);

/* Takes it if nobody has it. */
bool stripe_try(struct stripe *stripe);

/*
 * Lets go, and wakes who waits; refused (false) while the word is not decodable: then the owner has to give up what is missing first (stripe_give_up).
 */
bool stripe_release(struct stripe *stripe) MUST_USE;

/* The owner's changes. set and clear are made in one step; bits that the handling of a loss clears meanwhile stay cleared, unless they are set here. */
void stripe_note(struct stripe *stripe, uint64_t set, uint64_t clear);

/* Nothing that is missing is included any more, and no parity is valid, as it holds what is gone. Returns which data lanes were given up. */
unsigned stripe_give_up(struct stripe *stripe);

#endif
