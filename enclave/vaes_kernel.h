/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engines on VAES and VPCLMULQDQ, written once for both widths: an engine_vaes*.c sets VAES_BITS and includes this.
 *
 * A group of VAES_VECTORS vectors is in flight at a time; its tweaks, the next group's tweaks and the hash of its ciphertext are independent of its
 * rounds, so that the CPU runs them beside. The products of a group's blocks with the powers of the hash key are reduced together.
 * Sealing hashes what it just made; opening decrypts small pages into secret memory beside the hash, and copies them out once the tag is right.
 * Threads: as engine.h. Every function that is called from outside clears all vector registers before it returns.
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
#else
#define VAES_TARGET  target("avx2,vaes,vpclmulqdq,aes,pclmul")
#define VAES_V(op)   _mm256_##op
#define VAES_SI(op)  _mm256_##op##_si256
#define VAES_vector  __m256i
#define VAES_VECTORS 4
#endif
#define VAES_WIDE static inline __attribute__((always_inline, VAES_TARGET))

enum {
	VECTOR_BYTES = VAES_BITS / 8,
	LANES = VECTOR_BYTES / VAES_BLOCK_BYTES,
	GROUP_BLOCKS = VAES_VECTORS * LANES,
	GROUP_BYTES = VAES_VECTORS * VECTOR_BYTES,
	/* Larger pages leave the first-level cache: there the tag first, then the decryption is no slower (docs/page-format.md). */
	SCRATCH_BYTES_MOST = 16 << 10,
	TAG_BYTES = 16,
};

_Static_assert(ENGINE_PAGE_UNIT_BYTES % (int)GROUP_BYTES == 0, "a page is whole groups");
_Static_assert((int)GROUP_BLOCKS <= (int)VAES_POWERS, "a power for each block of a group");

struct engine_key {
	struct vaes_key key;
	size_t scratch_bytes; /* of each worker; 0 for large pages */
	uint8_t scratch[];
};

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

/* Twice the lane's number, from `from` on, as 64-bit counts: by how many places each lane's tweak is ahead of the first one's. */
VAES_WIDE VAES_vector lane_counts(long long from)
{
#if VAES_BITS == 512
	return _mm512_set_epi64(
		from + 3, from + 3, from + 2, from + 2, from + 1, from + 1, from, from);
#else
	return _mm256_set_epi64x(from + 1, from + 1, from, from);
#endif
}

/* IEEE 1619-2018 5.2: each lane times x to the power of its count, below 56; what leaves at the top comes back times x^7 + x^2 + x + 1. */
VAES_WIDE VAES_vector tweaks_ahead(VAES_vector tweak, VAES_vector counts)
{
	const VAES_vector poly = VAES_V(set1_epi64)SET1(0x87);
	VAES_vector carry = VAES_V(srlv_epi64)(tweak, VAES_V(sub_epi64)(VAES_V(set1_epi64)SET1(64), counts));

	return sum3(VAES_V(sllv_epi64)(tweak, counts), VAES_V(bslli_epi128)(carry, 8),
		VAES_V(clmulepi64_epi128)(carry, poly, 0x01));
}
