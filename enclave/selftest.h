/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Known-answer tests of every primitive that secpool uses, run when the library or a daemon starts. A failing one refuses to start.
 * The page cipher's fastest engine that the CPU has is compared with OpenSSL too, and is in use from then on; it takes a few milliseconds.
 * Needs secmem_init before. Threads: any.
 */
#ifndef SECPOOL_ENCLAVE_SELFTEST_H
#define SECPOOL_ENCLAVE_SELFTEST_H

#include "lib/base/err.h"

/* AES-256-XTS, GMAC, key wrap, CTR, SHA-256 and ECDSA against published vectors, and that a wrong tag, wrap and signature is refused. Errors: SECPOOL_E_SELFTEST with the name of the test. */
enum secpool_error selftest_run(void) MUST_USE;

#endif
