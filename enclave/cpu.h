/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What vector code this CPU and this kernel can run: asked of the processor itself (CPUID, XGETBV), never of the environment.
 * Everything is false on other architectures than x86-64. Threads: any; no state.
 */
#ifndef SECPOOL_ENCLAVE_CPU_H
#define SECPOOL_ENCLAVE_CPU_H

#include <stdbool.h>

/* VAES and VPCLMULQDQ on 256 bits, with AVX2, and the kernel saves ymm registers. */
bool cpu_has_vaes256(void);

/* The same on 512 bits, with AVX-512 F, BW and VL, and the kernel saves zmm and mask registers. */
bool cpu_has_vaes512(void);

#endif
