/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The verifier: a process without keys that parses what devices send (public areas, quotes, signatures, measured logs, EK certificates), so that a fault in that code
 * can't reach a key. It is forked before the first key exists, keeps one descriptor, its socket, and lives in a sandbox of its own. What it
 * gives back has a fixed size (the VERIFY_ messages).
 *
 * One that dies, hangs or breaks the protocol is killed and never asked again: the enclave can't fork in its sandbox, so attestation is then
 * refused until the daemon is restarted. Threads: one at a time for each struct verifier.
 */
#ifndef SECPOOL_ENCLAVE_VERIFIER_H
#define SECPOOL_ENCLAVE_VERIFIER_H

#include <sys/types.h>

#include "lib/base/clock.h"
#include "lib/base/err.h"
#include "lib/wire/msg.h"
#include "policy/policy.h"

/* How long one answer may take. Measured: making a credential 0.2 ms, checking a quote 0.1 ms. */
#define VERIFIER_DEADLINE_NS (4 * CLOCK_NS_PER_S)

struct verifier {
	int socket; /* -1: dead */
	pid_t pid;
};

/*
 * Forks it; call before secmem_init and before any key. It reads the CA files of the policy (borrowed; NULL: none) by itself, before its sandbox: OpenSSL must not be used in the enclave yet.
 * Errors: SECPOOL_E_SYSTEM; SECPOOL_E_POLICY (ekcert_load).
 */
enum secpool_error verifier_start(const struct policy *policy, struct verifier *ret_verifier) MUST_USE;

/* Kills it. Allowed on one that is dead, or all zero but for socket -1. */
void verifier_stop(struct verifier *verifier);

/*
 * A credential for the EK and AK of a device, holding the secret (32 bytes, copied), and whether the EK's certificate is good (ekcert_verify).
 * Errors: SECPOOL_E_ATTESTATION with what is wrong with the keys, or because the verifier is dead.
 */
enum secpool_error verifier_make_credential(struct verifier *verifier, const struct msg_verify_begin *request, struct msg_verify_credential *ret_credential) MUST_USE;

/* Checks a quote (quote_verify), and that the log replays to it (eventlog_replay). Errors: as above. */
enum secpool_error verifier_check_quote(struct verifier *verifier, const struct msg_verify_evidence *request, struct msg_verify_facts *ret_facts) MUST_USE;

#endif
