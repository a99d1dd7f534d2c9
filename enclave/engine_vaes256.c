/* SPDX-License-Identifier: Apache-2.0 */
#define VAES_BITS 256
#include "enclave/vaes_engine.h"

#ifdef __x86_64__

const struct engine engine_vaes256 =
	VAES_ENGINE("vaes256", "VAES-256 aes-256-xts + gmac", cpu_has_vaes256);

#endif
