/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/cpu.h"

#ifdef __x86_64__

#include <cpuid.h>
#include <stdint.h>

/* Intel SDM volume 2, CPUID: leaf 1 ECX; leaf 7 EBX and ECX. */
#define LEAF1_ECX	 (1u << 1 /* PCLMULQDQ */ | 1u << 25 /* AES */ | 1u << 27 /* OSXSAVE */ | 1u << 28)
#define LEAF7_EBX_AVX2	 (1u << 5)
#define LEAF7_EBX_AVX512 (1u << 16 /* F */ | 1u << 30 /* BW */ | 1u << 31 /* VL */)
#define LEAF7_ECX	 (1u << 9 /* VAES */ | 1u << 10 /* VPCLMULQDQ */)
/* Intel SDM volume 1, 13.3: the state components that the kernel saves, in XCR0. */
#define XCR0_YMM (1u << 1 | 1u << 2)
#define XCR0_ZMM (1u << 5 | 1u << 6 | 1u << 7)

static bool has(uint32_t found, uint32_t wanted)
{
	return (found & wanted) == wanted;
}

/* Only after OSXSAVE was seen. */
static uint32_t saved_state(void)
{
	uint32_t low, high;

	__asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	(void)high;
	return low;
}

static bool has_vaes(uint32_t leaf7_ebx, uint32_t xcr0)
{
	uint32_t a, b, c, d;

	if (!__get_cpuid(1, &a, &b, &c, &d) || !has(c, LEAF1_ECX))
		return false;
	return __get_cpuid_count(7, 0, &a, &b, &c, &d) && has(b, leaf7_ebx) && has(c, LEAF7_ECX) &&
	       has(saved_state(), xcr0);
}

bool cpu_has_vaes256(void)
{
	return has_vaes(LEAF7_EBX_AVX2, XCR0_YMM);
}

bool cpu_has_vaes512(void)
{
	return has_vaes(LEAF7_EBX_AVX2 | LEAF7_EBX_AVX512, XCR0_YMM | XCR0_ZMM);
}

#else

bool cpu_has_vaes256(void)
{
	return false;
}

bool cpu_has_vaes512(void)
{
	return false;
}

#endif
