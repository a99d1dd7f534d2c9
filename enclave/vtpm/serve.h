/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The socket of the software TPM: a unix stream of TPM 2.0 commands and answers (the size is in
 * each one's header). One command at a time; a client that stalls in the middle of a command, or
 * does not read its answer, costs others nothing; a frame that can't be a command ends its
 * connection only.
 * Threads: one.
 */
#ifndef SECPOOL_ENCLAVE_VTPM_SERVE_H
#define SECPOOL_ENCLAVE_VTPM_SERVE_H

#include "lib/base/err.h"

/* Connections at a time; further ones wait in the listen queue. */
enum { SERVE_CONNECTIONS_MOST = 32 };

/*
 * Listens at path (mode 0600). A socket there that nobody listens on is replaced.
 * Errors: SECPOOL_E_BUSY (somebody listens there), SECPOOL_E_EXISTS (not a socket),
 * SECPOOL_E_LIMIT (path too long), SECPOOL_E_SYSTEM and the like.
 */
enum secpool_error serve_listen(const char *path, int *ret_fd) MUST_USE;

/*
 * Serves until stop_fd (borrowed) becomes readable. tpm20_start was called before.
 * Errors: SECPOOL_E_TPM (libtpms failed), SECPOOL_E_SYSTEM. All connections are closed.
 */
enum secpool_error serve_run(int listener, int stop_fd) MUST_USE;

#endif
