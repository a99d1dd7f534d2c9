/* SPDX-License-Identifier: Apache-2.0 */
#define VAES_BITS 512
#include "enclave/vaes_engine.h"

#ifdef __x86_64__

const struct engine engine_vaes512 =
	VAES_ENGINE("vaes512", "VAES-512 aes-256-xts + gmac", cpu_has_vaes512);

#endif
