/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The enclave process: its start, in an order where nothing is read before debuggers are out and nobody is served before the sandbox is
 * closed, and its loop of one request at a time.
 *
 * Threads: a single-threaded process.
 */
#ifndef SECPOOL_ENCLAVE_ENCLAVE_MAIN_H
#define SECPOOL_ENCLAVE_ENCLAVE_MAIN_H

#include "enclave/enclave.h"

/*
 * The enclave's whole life, after the guardian holds it. options: as given to enclave_start, in this process's own descriptors; socket: requests.
 * Ends the process: 0 after ENC_STOP or when the front closed its end, 1 after an error, which was sent to the front.
 */
_Noreturn void enclave_main_run(const struct enclave_options *options, int socket);

#endif
