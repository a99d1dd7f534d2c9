/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Vectors of VAES_BITS bits, under the same names for both widths, and how nothing of them is left behind; for vaes_kernel.h, which is built on them.
 *
 * A lane is a block of 16 bytes. Threads: any; all is in registers and on the caller's stack.
 */
#ifndef SECPOOL_ENCLAVE_VAES_VECTOR_H
#define SECPOOL_ENCLAVE_VAES_VECTOR_H

#ifdef __x86_64__

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#include "enclave/vaes_key.h"
#include "lib/base/err.h"

#ifndef VAES_BITS
#define VAES_BITS 512
#endif

/*
 * VAES_HOLD: the compiler has to have this vector, as it is, in a register here. It would otherwise gather in one place the work that is spread over the
 * rounds, and run out of registers there. VAES_HOLD_TWEAK: with 16 registers in all, tweaks are better off in memory.
 */
#define VAES_HOLD(v) __asm__ volatile("" : "+v"(v))
#if VAES_BITS == 512
#define VAES_TARGET	       target("avx512f,avx512bw,avx512vl,vaes,vpclmulqdq,aes,pclmul")
#define VAES_V(op)	       _mm512_##op
#define VAES_SI(op)	       _mm512_##op##_si512
#define VAES_vector	       __m512i
#define VAES_SHUFFLE32(v, how) _mm512_shuffle_epi32(v, (_MM_PERM_ENUM)(how))
#define VAES_HOLD_TWEAK(v)     VAES_HOLD(v)
#else
#define VAES_TARGET	       target("avx2,vaes,vpclmulqdq,aes,pclmul")
#define VAES_V(op)	       _mm256_##op
#define VAES_SI(op)	       _mm256_##op##_si256
#define VAES_vector	       __m256i
#define VAES_SHUFFLE32(v, how) _mm256_shuffle_epi32(v, how)
#define VAES_HOLD_TWEAK(v)     __asm__ volatile("" : "+m"(v))
#endif
#define VAES_VECTORS 8
/* Unrolled before vectors are given registers, so that no vector lies in memory. */
#define VAES_EACH(i) _Pragma("GCC unroll 16") for (int i = 0; i < VAES_VECTORS; i++)
#define VAES_INSIDE  static __attribute__((noinline, VAES_TARGET))
#define VAES_ENTRY   static __attribute__((VAES_TARGET))
#define VAES_WIDE    static inline __attribute__((always_inline, VAES_TARGET))

enum {
	VECTOR_BYTES = VAES_BITS / 8,
	LANES = VECTOR_BYTES / VAES_BLOCK_BYTES,
	/* More than the frame of any function of vaes_engine.h that works; test_engine.c looks. */
	STACK_BYTES = VAES_BITS == 512 ? 448 : 1280,
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
 * What a compiler that ran out of registers, or was told to, may have left: the functions that work are never inlined, so their frames began where the
 * stack ends now in the function that called them, which is the one that this is inlined into.
 */
VAES_WIDE void wipe_stack(void)
{
	const VAES_vector zeros = VAES_SI(setzero)();
	uintptr_t end;

	__asm__ volatile("mov %%rsp, %0" : "=r"(end));
	VAES_SI(storeu)((void *)(end - VECTOR_BYTES), zeros);
	end -= end % VECTOR_BYTES;
	_Pragma("GCC unroll 64") for (int at = VECTOR_BYTES; at <= STACK_BYTES; at += VECTOR_BYTES)
	{
		VAES_SI(store)((void *)(end - (uintptr_t)at), zeros);
	}
	__asm__ volatile("" : : : "memory");
}

/* Each way out goes through here. */
VAES_WIDE enum secpool_error leave(enum secpool_error error)
{
	wipe_stack();
	clear_registers();
	return error;
}

VAES_WIDE VAES_vector load(const void *from)
{
	return VAES_SI(loadu)(from);
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

/* The block in the first lane. */
VAES_WIDE __m128i first_of(VAES_vector v)
{
#if VAES_BITS == 512
	return _mm512_castsi512_si128(v);
#else
	return _mm256_castsi256_si128(v);
#endif
}

/* The sum of the lanes. */
VAES_WIDE __m128i fold(VAES_vector v)
{
#if VAES_BITS == 512
	__m256i half = _mm256_xor_si256(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1));
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

#endif
#endif
