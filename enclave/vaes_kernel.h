/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AES-256-XTS and GHASH on VAES and VPCLMULQDQ, written once for both widths: VAES_BITS says which (vaes_engine.h).
 *
 * A group of VAES_VECTORS vectors is in flight at a time. The next group's tweaks and the hash of ciphertext do not depend on its rounds, and are
 * written between them, a vector at a time: a CPU looks too few instructions ahead to run one behind the other at once. They are written so as to take what
 * the rounds leave: on AMD's Zen 4, where this was measured, AES has two of four vector ports, and some shuffles and a part of each product need these, too.
 * Sealing hashes what it just made; opening hashes and decrypts at once, and wipes what it made when the tag is not right.
 * Threads: as engine.h.
 */
#ifndef SECPOOL_ENCLAVE_VAES_KERNEL_H
#define SECPOOL_ENCLAVE_VAES_KERNEL_H

#ifdef __x86_64__

#include <immintrin.h>

#include "enclave/engine.h"
#include "enclave/vaes_key.h"
#include "enclave/vaes_vector.h"

enum {
	GROUP_BLOCKS = VAES_VECTORS * LANES,
	GROUP_BYTES = VAES_VECTORS * VECTOR_BYTES,
	RUN_GROUPS = VAES_POWERS / GROUP_BLOCKS, /* hashed with one reduction */
	/* The first round with a vector of the hash beside it: in round 1 the output that is hashed is still on its way to the cache. */
	HASH_FROM = 2,
};

_Static_assert(ENGINE_PAGE_UNIT_BYTES % (int)GROUP_BYTES == 0, "a page is whole groups");
_Static_assert((int)VAES_POWERS % (int)GROUP_BLOCKS == 0, "a run is whole groups");
_Static_assert((int)LANES <= (int)VAES_LANES, "a round key for each lane");
_Static_assert(HASH_FROM + VAES_VECTORS < (int)VAES_ROUNDS, "rounds are left for the tweaks");
_Static_assert(VAES_VECTORS % 2 == 0, "products are added in pairs");

/* What is hashed beside the cipher. */
enum hashed { HASH_NOTHING, HASH_OUTPUT, HASH_INPUT, HASH_KEPT /* the input, as it was kept (load_live) */ };

/* A pass over whole groups, and what it leaves for the next bytes. */
struct pass {
	__m128i tweak, sum;
};

/* ---- tweaks: IEEE 1619-2018 5.2 ---- */

/* The tweaks of a group: the first one times x to the power of each block's number; what leaves a lane at the top comes back times x^7 + x^2 + x + 1. */
VAES_WIDE void start_tweaks(__m128i tweak, VAES_vector *tweaks)
{
	const VAES_vector start = every(tweak);

	VAES_EACH(i)
	{
		VAES_vector counts = lane_numbers((long long)i * LANES);
		VAES_vector carry =
			VAES_V(srlv_epi64)(start, VAES_V(sub_epi64)(numbers(64), counts));

		tweaks[i] = sum3(VAES_V(sllv_epi64)(start, counts), VAES_V(bslli_epi128)(carry, 8),
			VAES_V(clmulepi64_epi128)(carry, numbers(0x87), 0x01));
	}
}

/*
 * The same place in the next group: times x^GROUP_BLOCKS. All bits are rotated; those that came round count times x^7 + x^2 + x + 1 at the bottom, and
 * once they are there already. One shuffle, one shift and one product.
 */
VAES_WIDE VAES_vector next_tweaks(VAES_vector tweaks)
{
	VAES_vector carry = VAES_V(srli_epi64)(tweaks, 64 - GROUP_BLOCKS);
#if VAES_BITS == 512
	VAES_vector turned = VAES_SHUFFLE32(tweaks, 0x93);
#else
	VAES_vector turned =
		VAES_V(alignr_epi8)(tweaks, tweaks, VAES_BLOCK_BYTES - GROUP_BLOCKS / 8);
#endif
	_Static_assert(
		(int)GROUP_BLOCKS == (VAES_BITS == 512 ? 32 : 16), "a word of 32 bits, or of 16");
	return VAES_SI(xor)(turned, VAES_V(clmulepi64_epi128)(carry, numbers(0x86), 0x01));
}

/* The same without a product, where nothing is hashed: three shifts cost more in all, but nothing of what the rounds need. */
VAES_WIDE VAES_vector next_tweaks_alone(VAES_vector tweaks)
{
#if VAES_BITS == 512
	const __mmask16 bottoms = 0x1111;
	VAES_vector turned = VAES_SHUFFLE32(tweaks, 0x93);
	VAES_vector carry = _mm512_maskz_shuffle_epi32(bottoms, tweaks, (_MM_PERM_ENUM)0x93);

	return VAES_SI(xor)(
		sum3(turned, VAES_V(slli_epi64)(carry, 1), VAES_V(slli_epi64)(carry, 2)),
		VAES_V(slli_epi64)(carry, 7));
#else
	return next_tweaks(tweaks); /* no masks */
#endif
}

/* ---- the hash: NIST SP 800-38D 6.4 ---- */

/* Products of blocks with powers of the hash key, not reduced yet. */
struct products {
	VAES_vector low, middle, high;
};

/* A hash of whole groups on its way. */
struct hash {
	struct products products; /* of this run */
	__m128i sum;		  /* of the runs before, until this run's first block takes it up */
	int group;		  /* the next one's number in its run */
};

VAES_WIDE void start_run(struct hash *hash, __m128i sum, int group)
{
	hash->products = (struct products){numbers(0), numbers(0), numbers(0)};
	hash->sum = sum;
	hash->group = group;
}

/* The first run is the one that may be shorter: so the last block of all always meets the first power. */
VAES_WIDE void start_hash(struct hash *hash, size_t groups)
{
	start_run(hash, _mm_setzero_si128(), (int)(-groups % RUN_GROUPS));
}

/* With three operands in one instruction it is cheaper to wait for the second of two products. */
VAES_WIDE void add_product(
	struct products *all, struct products *waiting, struct products one, bool second)
{
	if (!second && VAES_BITS == 512) {
		*waiting = one;
		VAES_HOLD(waiting->low);
		VAES_HOLD(waiting->middle);
		VAES_HOLD(waiting->high);
		return;
	}
#if VAES_BITS == 512
	all->low = sum3(all->low, waiting->low, one.low);
	all->middle = sum3(all->middle, waiting->middle, one.middle);
	all->high = sum3(all->high, waiting->high, one.high);
#else
	all->low = VAES_SI(xor)(all->low, one.low);
	all->middle = VAES_SI(xor)(all->middle, one.middle);
	all->high = VAES_SI(xor)(all->high, one.high);
#endif
	VAES_HOLD(all->low);
	VAES_HOLD(all->middle);
	VAES_HOLD(all->high);
}

/* Loads a vector from memory that others may change, once: the compiler can't know it again, and keeps a copy. */
VAES_WIDE VAES_vector load_live(const uint8_t *from, uint8_t *kept)
{
	VAES_vector v = load(from);

	VAES_HOLD(v);
	VAES_SI(storeu)((void *)kept, v);
	return v;
}

/* Vector i of a group: each block times the power that it meets. waiting: what an even i leaves for the next one. live: from memory that others may change, and kept in kept. */
VAES_WIDE void multiply(const struct vaes_key *key, struct hash *hash, const uint8_t *group,
	bool live, uint8_t *kept, int i, struct products *waiting)
{
	const VAES_vector order =
		every(_mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
	const int at = hash->group * GROUP_BLOCKS + i * LANES;
	VAES_vector h = load(key->power + at), h_sum = load(key->power_sum + at);
	const uint8_t *from = group + i * VECTOR_BYTES;
	VAES_vector a = live ? load_live(from, kept + i * VECTOR_BYTES) : load(from), a_sum;
	struct products one;

	a = VAES_V(shuffle_epi8)(a, order);
	if (i == 0)
		a = VAES_SI(xor)(a, first(hash->sum));
	a_sum = VAES_SI(xor)(a, VAES_SHUFFLE32(a, 0x4e));
	one.low = VAES_V(clmulepi64_epi128)(a, h, 0x00);
	one.high = VAES_V(clmulepi64_epi128)(a, h, 0x11);
	one.middle = VAES_V(clmulepi64_epi128)(a_sum, h_sum, 0x00);
	add_product(&hash->products, waiting, one, i % 2 == 1);
}

/* One reduction for all products. */
VAES_WIDE __m128i reduce(const struct products *products)
{
	VAES_vector middle = sum3(products->middle, products->low, products->high);

	return vaes_reduce(fold(VAES_SI(xor)(products->low, VAES_V(bslli_epi128)(middle, 8))),
		fold(VAES_SI(xor)(products->high, VAES_V(bsrli_epi128)(middle, 8))));
}

/* Behind a group's last vector. */
VAES_WIDE void end_group(struct hash *hash)
{
	hash->group++;
	if (hash->group == RUN_GROUPS)
		start_run(hash, reduce(&hash->products), 0);
	else
		hash->sum = _mm_setzero_si128();
}

VAES_WIDE void hash_group(
	const struct vaes_key *key, struct hash *hash, const uint8_t *group, bool live, uint8_t *kept)
{
	struct products waiting;

	VAES_EACH(i)
	multiply(key, hash, group, live, kept, i, &waiting);
	end_group(hash);
}

/* ---- the cipher ---- */

/* The tweak is added with the first and with the last round's key: the latter to `last` while the tweak is stepped, which frees its register. */
VAES_WIDE void step_tweaks(
	const __m128i *last_key, bool hashing, VAES_vector *tweaks, VAES_vector *last)
{
	*last = VAES_SI(xor)(load(last_key), *tweaks);
	VAES_HOLD_TWEAK(*last);
	*tweaks = hashing ? next_tweaks(*tweaks) : next_tweaks_alone(*tweaks);
	VAES_HOLD_TWEAK(*tweaks);
}

/*
 * One group through the cipher and, if hashing, another (`hashed`) through the hash: a vector of it beside each of the first rounds, the tweaks beside the others. live: what is loaded from
 * `from` is kept in kept (load_live).
 */
VAES_WIDE void one_group(const struct vaes_key *key, bool opening, VAES_vector *t, bool hashing,
	struct hash *hash, const uint8_t *hashed, const uint8_t *from, bool live, uint8_t *kept,
	uint8_t *to)
{
	const __m128i(*keys)[VAES_LANES] = key->xts[opening];
	const int tweaks_from = hashing ? HASH_FROM + VAES_VECTORS : 1;
	struct products waiting;
	VAES_vector x[VAES_VECTORS], last[VAES_VECTORS];

	VAES_EACH(i)
	{
		x[i] = live ? load_live(from + i * VECTOR_BYTES, kept + i * VECTOR_BYTES)
			     : load(from + i * VECTOR_BYTES);
		x[i] = sum3(x[i], t[i], load(keys[0]));
		VAES_HOLD(x[i]);
	}
	_Pragma("GCC unroll 16") for (int round = 1; round < VAES_ROUNDS; round++)
	{
		VAES_vector k = load(keys[round]);

		VAES_EACH(i)
		{
			x[i] = opening ? VAES_V(aesdec_epi128)(x[i], k)
				       : VAES_V(aesenc_epi128)(x[i], k);
			VAES_HOLD(x[i]);
		}
		if (hashing && round >= HASH_FROM && round < tweaks_from)
			multiply(key, hash, hashed, false, NULL, round - HASH_FROM, &waiting);
		if (hashing && round == tweaks_from - 1)
			end_group(hash);
		VAES_EACH(i)
		{
			/* spread evenly */
			if (round == tweaks_from + i * (VAES_ROUNDS - tweaks_from) / VAES_VECTORS)
				step_tweaks(keys[VAES_ROUNDS], hashing, &t[i], &last[i]);
		}
	}
	VAES_EACH(i)
	{
		x[i] = opening ? VAES_V(aesdeclast_epi128)(x[i], last[i])
			       : VAES_V(aesenclast_epi128)(x[i], last[i]);
		VAES_SI(storeu)((void *)(to + i * VECTOR_BYTES), x[i]);
	}
}

/* Asks for what comes some groups later, of so many that are left: a CPU looks too few instructions ahead to have it in time. */
VAES_WIDE void fetch(const uint8_t *from, size_t groups)
{
	enum { LINE_BYTES = 64 };

	if (groups * GROUP_BYTES <= PAGECIPHER_AHEAD_BYTES)
		return;
	_Pragma("GCC unroll 16") for (int at = 0; at < GROUP_BYTES; at += LINE_BYTES)
		_mm_prefetch((const char *)from + PAGECIPHER_AHEAD_BYTES + at, _MM_HINT_T0);
}

/* Whole groups. from and to: the same or not overlapping. kept: for HASH_KEPT, where `from` is kept. */
VAES_WIDE struct pass cipher_groups(const struct vaes_key *key, bool opening, enum hashed hashed,
	__m128i tweak, const uint8_t *from, uint8_t *kept, uint8_t *to, size_t groups)
{
	const bool live = hashed == HASH_KEPT;
	VAES_vector t[VAES_VECTORS];
	struct hash hash;

	start_tweaks(tweak, t);
	start_hash(&hash, groups);
	/* the output is hashed one group behind */
	if (hashed == HASH_OUTPUT) {
		one_group(key, opening, t, false, &hash, NULL, from, false, NULL, to);
		groups--, from += GROUP_BYTES, to += GROUP_BYTES;
	}
	for (; groups > 0; groups--, from += GROUP_BYTES, to += GROUP_BYTES) {
		VAES_RELOAD(key);
		if (live)
			fetch(from, groups);
		one_group(key, opening, t, hashed != HASH_NOTHING, &hash,
			hashed == HASH_OUTPUT ? to - GROUP_BYTES
			: live	      ? kept
					      : from,
			from, live, kept, to);
		if (live)
			kept += GROUP_BYTES;
	}
	if (hashed == HASH_OUTPUT)
		hash_group(key, &hash, to - GROUP_BYTES, false, NULL);
	return (struct pass){.tweak = first_of(t[0]), .sum = hash.sum};
}

/* The hash of whole groups, which others may change: kept in kept. */
VAES_WIDE __m128i hash_live(
	const struct vaes_key *key, const uint8_t *from, uint8_t *kept, size_t groups)
{
	struct hash hash;

	start_hash(&hash, groups);
	for (; groups > 0; groups--, from += GROUP_BYTES, kept += GROUP_BYTES) {
		VAES_RELOAD(key);
		fetch(from, groups);
		hash_group(key, &hash, from, true, kept);
	}
	return hash.sum;
}

/* The hash of any bytes: whole groups, then blocks, then what is left filled up with zeros (NIST SP 800-38D 7.1 step 4). */
VAES_WIDE __m128i hash_bytes(const struct vaes_key *key, const uint8_t *at, size_t bytes)
{
	uint8_t last[VAES_BLOCK_BYTES] = {0};
	struct hash hash;
	__m128i sum;

	start_hash(&hash, bytes / GROUP_BYTES);
	for (; bytes >= GROUP_BYTES; bytes -= GROUP_BYTES, at += GROUP_BYTES) {
		VAES_RELOAD(key);
		hash_group(key, &hash, at, false, NULL);
	}
	sum = hash.sum;
	for (; bytes >= VAES_BLOCK_BYTES; bytes -= VAES_BLOCK_BYTES, at += VAES_BLOCK_BYTES)
		sum = vaes_hash(key, sum, vaes_load(at));
	if (bytes > 0) {
		for (size_t i = 0; i < bytes; i++)
			last[i] = at[i];
		sum = vaes_hash(key, sum, vaes_load(last));
	}
	return sum;
}

#endif
#endif
