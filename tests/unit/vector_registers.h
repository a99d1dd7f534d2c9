/* SPDX-License-Identifier: Apache-2.0 */
/* What is in the vector registers, for tests of what a call leaves there. Threads: one. */
#ifndef SECPOOL_TESTS_VECTOR_REGISTERS_H
#define SECPOOL_TESTS_VECTOR_REGISTERS_H

#include <stdint.h>

/* Register n of 512 bits is at n * 64, whatever its width: zeros beyond what was stored. */
__attribute__((unused)) static uint8_t registers[32 * 64];

/* For a CPU with AVX-512. */
__attribute__((noinline, unused, target("avx512f"))) static void store512(void)
{
#define STORE(n) "vmovdqu64 %%zmm" #n ", " #n "*64(%0)\n\t"
	__asm__ volatile(STORE(0) STORE(1) STORE(2) STORE(3) STORE(4) STORE(5) STORE(6) STORE(
		7) STORE(8) STORE(9) STORE(10) STORE(11) STORE(12) STORE(13) STORE(14) STORE(15)
				 STORE(16) STORE(17) STORE(18) STORE(19) STORE(20) STORE(21)
					 STORE(22) STORE(23) STORE(24) STORE(25) STORE(26) STORE(27)
						 STORE(28) STORE(29) STORE(30) STORE(31)
			 :
			 : "r"(registers)
			 : "memory");
#undef STORE
}

#endif
