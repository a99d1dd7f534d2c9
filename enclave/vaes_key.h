/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What our own engines share whatever their width: the expanded keys, and AES-256 (FIPS 197), XTS and GHASH on single blocks, for tweaks, tags and odd ends.
 *
 * No table is looked up and no branch is taken by secret data: AES and carry-less multiplication are the CPU's instructions. GHASH is computed
 * as POLYVAL (RFC 8452, appendix A), which needs no bit reversal. x86-64 only; the caller has seen that the CPU has AES, PCLMULQDQ and AVX.
 * Threads: a key is not changed once it is set.
 */
#ifndef SECPOOL_ENCLAVE_VAES_KEY_H
#define SECPOOL_ENCLAVE_VAES_KEY_H

#ifdef __x86_64__

#include <immintrin.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "enclave/keypage.h"

/*
 * FIPS 197 table 4: AES-256 has 14 rounds. The most blocks whose products one reduction takes together: half a page of 4 KiB (of 32 blocks each, the
 * reductions took 1.6 cycles of the 21 for each 64 bytes). The lanes of the widest vector.
 */
enum { VAES_ROUNDS = 14, VAES_POWERS = 128, VAES_LANES = 4, VAES_BLOCK_BYTES = 16 };

/*
 * Secret throughout. Wide vectors are loaded from it at multiples of their size; secmem_new puts an object this large on a cache line's start, which is faster, but not
 * relied upon.
 */
struct vaes_key {
	/* XTS Key1, sealing and opening: every round's key once for each lane. A load that copies a block into all lanes would take a vector port; a plain one does not. */
	__m128i xts[2][VAES_ROUNDS + 1][VAES_LANES];
	__m128i power[VAES_POWERS]; /* the hash key to the powers VAES_POWERS ... 1 */
	__m128i power_sum
		[VAES_POWERS]; /* of the two halves of each, in both halves: Karatsuba's third factor */
	__m128i tweak[VAES_ROUNDS + 1]; /* XTS Key2 */
	__m128i tag[VAES_ROUNDS + 1];
};

/* keys: in secret memory; key: likewise. Leaves nothing in vector registers. */
void vaes_key_set(struct vaes_key *key, const struct region_keys *keys);

/* XTS of fewer bytes than a group of blocks has, from tweak on, with ciphertext stealing (IEEE 1619-2018 5.3.2, 5.4.2); bytes is 0 or at least 16. */
void vaes_key_xts_end(const struct vaes_key *key, bool opening, __m128i tweak, const uint8_t *from,
	uint8_t *to, size_t bytes);

#define VAES_BLOCK static inline __attribute__((always_inline, target("aes,pclmul,avx")))

VAES_BLOCK __m128i vaes_load(const void *from)
{
	return _mm_loadu_si128(from);
}

/* A block that its caller wrote a moment ago in parts: one load of it all would wait until those, and all that was written before them, are in the cache. */
VAES_BLOCK __m128i vaes_load_fresh(const uint8_t block[VAES_BLOCK_BYTES])
{
	long long halves[2];

	__builtin_memcpy(&halves[0], block, sizeof halves[0]);
	__builtin_memcpy(&halves[1], block + sizeof halves[0], sizeof halves[1]);
	__asm__("" : "+r"(halves[0])); /* gcc 12 would join the loads */
	return _mm_set_epi64x(halves[1], halves[0]);
}

VAES_BLOCK __m128i vaes_encrypt(const __m128i *keys, __m128i block)
{
	block = _mm_xor_si128(block, keys[0]);
	_Pragma("GCC unroll 16") for (int i = 1; i < VAES_ROUNDS; i++)
	{
		block = _mm_aesenc_si128(block, keys[i]);
	}
	return _mm_aesenclast_si128(block, keys[VAES_ROUNDS]);
}

/* The product of two polynomials in the field of POLYVAL: reduced from its low end, which divides by x^128 (RFC 8452 section 3: dot). */
VAES_BLOCK __m128i vaes_reduce(__m128i low, __m128i high)
{
	const __m128i poly = _mm_set1_epi64x((long long)0xc200000000000000);

	for (int i = 0; i < 2; i++)
		low = _mm_xor_si128(
			_mm_shuffle_epi32(low, 0x4e), _mm_clmulepi64_si128(low, poly, 0x00));
	return _mm_xor_si128(high, low);
}

VAES_BLOCK __m128i vaes_dot(__m128i a, __m128i b)
{
	__m128i middle =
		_mm_xor_si128(_mm_clmulepi64_si128(a, b, 0x01), _mm_clmulepi64_si128(a, b, 0x10));
	__m128i low = _mm_xor_si128(_mm_clmulepi64_si128(a, b, 0x00), _mm_slli_si128(middle, 8));
	__m128i high = _mm_xor_si128(_mm_clmulepi64_si128(a, b, 0x11), _mm_srli_si128(middle, 8));

	return vaes_reduce(low, high);
}

VAES_BLOCK __m128i vaes_reverse(__m128i block)
{
	return _mm_shuffle_epi8(
		block, _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
}

/* One block more in the sum of POLYVAL. */
VAES_BLOCK __m128i vaes_hash(const struct vaes_key *key, __m128i sum, __m128i block)
{
	return vaes_dot(_mm_xor_si128(sum, vaes_reverse(block)), key->power[VAES_POWERS - 1]);
}

/* NIST SP 800-38D 7.1, with all data authenticated only: the block of lengths, then the hash under the nonce's key stream. */
VAES_BLOCK __m128i vaes_tag(
	const struct vaes_key *key, __m128i sum, __m128i nonce_stream, size_t bytes)
{
	__m128i lengths = _mm_set_epi64x((long long)bytes * 8, 0);

	sum = vaes_dot(_mm_xor_si128(sum, lengths), key->power[VAES_POWERS - 1]);
	return _mm_xor_si128(vaes_reverse(sum), nonce_stream);
}

/* J0 of a 96-bit nonce (NIST SP 800-38D 7.1 step 2), enciphered. */
VAES_BLOCK __m128i vaes_nonce_stream(const struct vaes_key *key, const uint8_t nonce[12])
{
	const long long counter = 1ll << 56; /* 32 bits, big end first, in the last byte */
	long long low;
	uint32_t high;

	__builtin_memcpy(&low, nonce, sizeof low);
	__builtin_memcpy(&high, nonce + sizeof low, sizeof high);
	return vaes_encrypt(key->tag, _mm_set_epi64x(counter | high, low));
}

#endif
#endif
