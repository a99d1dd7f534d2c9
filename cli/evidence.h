/* SPDX-License-Identifier: Apache-2.0 */
/* The files of `secpool device attest --evidence`. Threads: any. */
#ifndef SECPOOL_CLI_EVIDENCE_H
#define SECPOOL_CLI_EVIDENCE_H

#include "lib/wire/msg.h"

/*
 * Writes ak.pem quote.msg quote.sig quote.pcrs pcr_selection nonce.hex eventlog into a folder, which is made if it is not there; files of these names are replaced.
 * Errors: SECPOOL_E_PROTOCOL (lengths that can't be), SECPOOL_E_ATTESTATION (the AK is no key), SECPOOL_E_SYSTEM naming the file.
 */
enum secpool_error evidence_write(
	const char *folder, const struct msg_device_evidence *evidence) MUST_USE;

#endif
