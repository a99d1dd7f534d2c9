/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AES-256-XTS and GHASH on VAES and VPCLMULQDQ, written once for both widths: VAES_BITS says which (vaes_engine.h).
 *
 * A group of VAES_VECTORS vectors is in flight at a time; its tweaks, the next group's tweaks and the hash of its ciphertext are independent of its
 * rounds, so that the CPU runs them beside. The products of a group's blocks with the powers of the hash key are reduced together.
 * Sealing hashes what it just made; opening hashes and decrypts at once, and wipes what it made when the tag is not right.
 * Threads: as engine.h.
 */
#ifndef SECPOOL_ENCLAVE_VAES_KERNEL_H
#define SECPOOL_ENCLAVE_VAES_KERNEL_H

#ifdef __x86_64__

#include <immintrin.h>
#include <openssl/crypto.h>

#include "enclave/cpu.h"
#include "enclave/engine.h"
#include "enclave/secmem.h"
#include "enclave/vaes_key.h"
#include "enclave/xts.h"

#ifndef VAES_BITS
#define VAES_BITS 512
#endif

#if VAES_BITS == 512
#define VAES_TARGET  target("avx512f,avx512bw,avx512vl,vaes,vpclmulqdq,aes,pclmul")
#define VAES_V(op)   _mm512_##op
#define VAES_SI(op)  _mm512_##op##_si512
#define VAES_vector  __m512i
#define VAES_VECTORS 8
#define VAES_SHUFFLE32(v, how) _mm512_shuffle_epi32(v, (_MM_PERM_ENUM)(how))
#else
#define VAES_TARGET  target("avx2,vaes,vpclmulqdq,aes,pclmul")
#define VAES_V(op)   _mm256_##op
#define VAES_SI(op)  _mm256_##op##_si256
#define VAES_vector  __m256i
#define VAES_VECTORS 4
#define VAES_SHUFFLE32(v, how) _mm256_shuffle_epi32(v, how)
#endif
/* Unrolled before vectors are given registers, so that no vector lies in memory. */
#define VAES_EACH(i) _Pragma("GCC unroll 16") for (int i = 0; i < VAES_VECTORS; i++)
#define VAES_INSIDE static __attribute__((noinline, VAES_TARGET))
#define VAES_ENTRY static __attribute__((VAES_TARGET))
#define VAES_WIDE static inline __attribute__((always_inline, VAES_TARGET))

enum {
	VECTOR_BYTES = VAES_BITS / 8,
	LANES = VECTOR_BYTES / VAES_BLOCK_BYTES,
	GROUP_BLOCKS = VAES_VECTORS * LANES,
	GROUP_BYTES = VAES_VECTORS * VECTOR_BYTES,
	TAG_BYTES = 16,
	STACK_BYTES = VAES_BITS == 512 ? 512 : 1024, /* more than the frame of any function here */
};

_Static_assert(ENGINE_PAGE_UNIT_BYTES % (int)GROUP_BYTES == 0, "a page is whole groups");
_Static_assert((int)GROUP_BLOCKS <= (int)VAES_POWERS, "a power for each block of a group");

/* What is hashed beside the cipher. */
enum hashed { HASH_NOTHING, HASH_OUTPUT, HASH_INPUT };

/* A pass over whole groups, and what it leaves for the next bytes. */
struct pass {
	__m128i tweak, sum;
};

/* The compiler may not see through a pointer from here on: it would keep the round keys beyond the loop, and spill them to the stack. */
#define VAES_RELOAD(pointer) __asm__ volatile("" : "+r"(pointer))

/* vzeroall leaves the upper sixteen registers as they are. */
VAES_WIDE void clear_registers(void)
{
	_mm256_zeroall();
#if VAES_BITS == 512
	__asm__ volatile("vpxorq %%zmm16, %%zmm16, %%zmm16\n\tvpxorq %%zmm17, %%zmm17, %%zmm17\n\t"
			 "vpxorq %%zmm18, %%zmm18, %%zmm18\n\tvpxorq %%zmm19, %%zmm19, %%zmm19\n\t"
			 "vpxorq %%zmm20, %%zmm20, %%zmm20\n\tvpxorq %%zmm21, %%zmm21, %%zmm21\n\t"
			 "vpxorq %%zmm22, %%zmm22, %%zmm22\n\tvpxorq %%zmm23, %%zmm23, %%zmm23\n\t"
			 "vpxorq %%zmm24, %%zmm24, %%zmm24\n\tvpxorq %%zmm25, %%zmm25, %%zmm25\n\t"
			 "vpxorq %%zmm26, %%zmm26, %%zmm26\n\tvpxorq %%zmm27, %%zmm27, %%zmm27\n\t"
			 "vpxorq %%zmm28, %%zmm28, %%zmm28\n\tvpxorq %%zmm29, %%zmm29, %%zmm29\n\t"
			 "vpxorq %%zmm30, %%zmm30, %%zmm30\n\tvpxorq %%zmm31, %%zmm31, %%zmm31"
			 :
			 :
			 : "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23",
			 "xmm24", "xmm25", "xmm26", "xmm27", "xmm28", "xmm29", "xmm30", "xmm31");
#endif
}

/*
 * What a compiler that ran out of registers may have left below its caller's frame: the functions that work are never inlined, so their frames began
 * where this one's does. gcc 12 spills a few vectors where it hashes beside the rounds, and none elsewhere.
 */
__attribute__((noinline, VAES_TARGET)) static void wipe_stack(void)
{
	VAES_vector area[STACK_BYTES / VECTOR_BYTES];

	_Pragma("GCC unroll 16") for (int i = 0; i < STACK_BYTES / VECTOR_BYTES; i++)
		area[i] = VAES_SI(setzero)();
	__asm__ volatile("" : : "r"(area) : "memory");
}

/* Each way out goes through here. */
VAES_WIDE enum secpool_error leave(enum secpool_error error)
{
	wipe_stack();
	clear_registers();
	return error;
}

/* A block in every lane. */
VAES_WIDE VAES_vector every(__m128i block)
{
#if VAES_BITS == 512
	return _mm512_broadcast_i32x4(block);
#else
	return _mm256_broadcastsi128_si256(block);
#endif
}

/* A block in the first lane, zeros in the others. */
VAES_WIDE VAES_vector first(__m128i block)
{
#if VAES_BITS == 512
	return _mm512_zextsi128_si512(block);
#else
	return _mm256_zextsi128_si256(block);
#endif
}

/* The sum of the lanes. */
VAES_WIDE __m128i fold(VAES_vector v)
{
#if VAES_BITS == 512
	__m256i half = _mm256_xor_si256(
		_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1));
#else
	__m256i half = v;
#endif
	return _mm_xor_si128(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

VAES_WIDE VAES_vector sum3(VAES_vector a, VAES_vector b, VAES_vector c)
{
#if VAES_BITS == 512
	return _mm512_ternarylogic_epi64(a, b, c, 0x96);
#else
	return _mm256_xor_si256(_mm256_xor_si256(a, b), c);
#endif
}

/* A number in every half of a lane. */
VAES_WIDE VAES_vector numbers(long long number)
{
#if VAES_BITS == 512
	return _mm512_set1_epi64(number);
#else
	return _mm256_set1_epi64x(number);
#endif
}

/* Twice each lane's number, counted from `from`. */
VAES_WIDE VAES_vector lane_numbers(long long from)
{
#if VAES_BITS == 512
	return _mm512_set_epi64(
		from + 3, from + 3, from + 2, from + 2, from + 1, from + 1, from, from);
#else
	return _mm256_set_epi64x(from + 1, from + 1, from, from);
#endif
}

/*
 * The tweaks of a group (IEEE 1619-2018 5.2): the first one times x to the power of each block's number; what leaves a lane at the top comes
 * back times x^7 + x^2 + x + 1.
 */
VAES_WIDE void start_tweaks(__m128i tweak, VAES_vector *tweaks)
{
	const VAES_vector start = every(tweak);

	VAES_EACH(i) {
		VAES_vector counts = lane_numbers((long long)i * LANES);
		VAES_vector carry = VAES_V(srlv_epi64)(start, VAES_V(sub_epi64)(numbers(64), counts));

		tweaks[i] = sum3(VAES_V(sllv_epi64)(start, counts), VAES_V(bslli_epi128)(carry, 8),
			VAES_V(clmulepi64_epi128)(carry, numbers(0x87), 0x01));
	}
}

/*
 * The same place in the next group: times x^GROUP_BLOCKS, a multiple of 8, so whole bytes move. They are rotated; what came round to the bottom counts times
 * x^7 + x^2 + x + 1 there, and once it is there already. One shuffle: that is what a CPU has few units for beside the rounds.
 */
VAES_WIDE VAES_vector next_tweaks(VAES_vector tweaks)
{
#if VAES_BITS == 512
	const VAES_vector bottom = every(_mm_set_epi32(0, 0, 0, -1));
	VAES_vector turned = VAES_SHUFFLE32(tweaks, 0x93);
#else
	const VAES_vector bottom = every(_mm_set_epi32(0, 0, 0, 0xff));
	const VAES_vector by_one =
		every(_mm_set_epi8(14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 15));
	VAES_vector turned = VAES_V(shuffle_epi8)(tweaks, by_one);
#endif
	_Static_assert((int)GROUP_BLOCKS == (VAES_BITS == 512 ? 32 : 8), "four bytes, or one");
	return VAES_SI(xor)(turned,
		VAES_V(clmulepi64_epi128)(VAES_SI(and)(turned, bottom), numbers(0x86), 0x00));
}

/* Products of blocks with powers of the hash key, not reduced yet. */
struct products {
	VAES_vector low, middle, high;
};

/* One vector of a group more: NIST SP 800-38D 6.4, each block times the power that it meets. sum: what was hashed before, needed for the group's first vector. */
VAES_WIDE void multiply(const struct vaes_key *key, __m128i sum, const uint8_t *group, int i,
	struct products *products)
{
	const VAES_vector order =
		every(_mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
	const __m128i *powers = key->power + VAES_POWERS - GROUP_BLOCKS;
	const __m128i *sums = key->power_sum + VAES_POWERS - GROUP_BLOCKS;
	VAES_vector h = VAES_SI(loadu)((const void *)(powers + i * LANES));
	VAES_vector h_sum = VAES_SI(loadu)((const void *)(sums + i * LANES));
	VAES_vector a = VAES_SI(loadu)((const void *)(group + i * VECTOR_BYTES)), a_sum;

	a = VAES_V(shuffle_epi8)(a, order);
	if (i == 0)
		a = VAES_SI(xor)(a, first(sum));
	a_sum = VAES_SI(xor)(a, VAES_SHUFFLE32(a, 0x4e));
	products->low = VAES_SI(xor)(products->low, VAES_V(clmulepi64_epi128)(a, h, 0x00));
	products->high = VAES_SI(xor)(products->high, VAES_V(clmulepi64_epi128)(a, h, 0x11));
	products->middle = VAES_SI(xor)(products->middle, VAES_V(clmulepi64_epi128)(a_sum, h_sum, 0x00));
}

/* One reduction for the whole group. */
VAES_WIDE __m128i reduce(const struct products *products)
{
	VAES_vector middle = sum3(products->middle, products->low, products->high);

	return vaes_reduce(fold(VAES_SI(xor)(products->low, VAES_V(bslli_epi128)(middle, 8))),
		fold(VAES_SI(xor)(products->high, VAES_V(bsrli_epi128)(middle, 8))));
}

/* The group's first vector last: it waits for the group before. */
VAES_WIDE __m128i hash_group(const struct vaes_key *key, __m128i sum, const uint8_t *group)
{
	struct products products = {numbers(0), numbers(0), numbers(0)};

	VAES_EACH(i)
		multiply(key, sum, group, VAES_VECTORS - 1 - i, &products);
	return reduce(&products);
}

/*
 * One group through the cipher, and, unless hashed is NULL, another through the hash: a vector of it beside each round, since the CPU looks
 * too few instructions ahead to run one behind the other at once. x are the blocks, t their tweaks; the tweak is added with the first and
 * with the last round's key. Returns the hash.
 */
VAES_WIDE __m128i cipher_group(const struct vaes_key *key, bool opening, const VAES_vector *t,
	VAES_vector *x, __m128i sum, const uint8_t *hashed)
{
	const __m128i *keys = opening ? key->open : key->seal;
	struct products products = {numbers(0), numbers(0), numbers(0)};
	VAES_vector k = every(keys[0]);

	VAES_EACH(i)
		x[i] = sum3(x[i], t[i], k);
	_Pragma("GCC unroll 16") for (int round = 1; round < VAES_ROUNDS; round++)
	{
		k = every(keys[round]);
		VAES_EACH(i)
			x[i] = opening ? VAES_V(aesdec_epi128)(x[i], k)
				       : VAES_V(aesenc_epi128)(x[i], k);
		if (hashed && round <= VAES_VECTORS)
			multiply(key, sum, hashed, VAES_VECTORS - round, &products);
		if (hashed && round == VAES_VECTORS)
			sum = reduce(&products);
	}
	k = every(keys[VAES_ROUNDS]);
	VAES_EACH(i) {
		VAES_vector last = VAES_SI(xor)(k, t[i]);

		x[i] = opening ? VAES_V(aesdeclast_epi128)(x[i], last)
			       : VAES_V(aesenclast_epi128)(x[i], last);
	}
	return sum;
}

VAES_WIDE __m128i one_group(const struct vaes_key *key, bool opening, VAES_vector *t, __m128i sum,
	const uint8_t *from, uint8_t *to, const uint8_t *hashed)
{
	VAES_vector x[VAES_VECTORS];

	VAES_EACH(i)
		x[i] = VAES_SI(loadu)((const void *)(from + i * VECTOR_BYTES));
	sum = cipher_group(key, opening, t, x, sum, hashed);
	VAES_EACH(i) {
		VAES_SI(storeu)((void *)(to + i * VECTOR_BYTES), x[i]);
		t[i] = next_tweaks(t[i]);
	}
	return sum;
}

/* Whole groups. from and to: the same or not overlapping. */
VAES_WIDE struct pass cipher_groups(const struct vaes_key *key, bool opening, enum hashed hashed,
	struct pass pass, const uint8_t *from, uint8_t *to, size_t groups)
{
	VAES_vector t[VAES_VECTORS];

	start_tweaks(pass.tweak, t);
	/* the output is hashed one group behind */
	if (hashed == HASH_OUTPUT) {
		one_group(key, opening, t, pass.sum, from, to, NULL);
		groups--, from += GROUP_BYTES, to += GROUP_BYTES;
	}
	for (; groups > 0; groups--, from += GROUP_BYTES, to += GROUP_BYTES) {
		VAES_RELOAD(key);
		pass.sum = one_group(key, opening, t, pass.sum, from, to,
			hashed == HASH_INPUT ? from : hashed == HASH_OUTPUT ? to - GROUP_BYTES : NULL);
	}
	if (hashed == HASH_OUTPUT)
		pass.sum = hash_group(key, pass.sum, to - GROUP_BYTES);
#if VAES_BITS == 512
	pass.tweak = _mm512_castsi512_si128(t[0]);
#else
	pass.tweak = _mm256_castsi256_si128(t[0]);
#endif
	return pass;
}

/* The hash of any bytes: whole groups, then blocks, then what is left filled up with zeros (NIST SP 800-38D 7.1 step 4). */
VAES_WIDE __m128i hash_bytes(const struct vaes_key *key, const uint8_t *at, size_t bytes)
{
	__m128i sum = _mm_setzero_si128();
	uint8_t last[VAES_BLOCK_BYTES] = {0};

	for (; bytes >= GROUP_BYTES; bytes -= GROUP_BYTES, at += GROUP_BYTES) {
		VAES_RELOAD(key);
		sum = hash_group(key, sum, at);
	}
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
