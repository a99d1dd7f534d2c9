/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A TPM's EK certificate, checked with OpenSSL against the operator's CA files (policy devices.ek_ca): TCG EK Credential Profile 2.5, section 3.2, and RFC 5280. The files are the operator's and are read by the verifier process
 * (verifier.h) at its start, before its sandbox; a certificate is from outside and may be anything: it is parsed there too.
 *
 * There is no revocation list: a TPM whose certificate was withdrawn is for the policy to leave out (docs/caveats.md).
 * Threads: a struct ekcert_cas may be used by one at a time.
 */
#ifndef SECPOOL_ENCLAVE_EKCERT_H
#define SECPOOL_ENCLAVE_EKCERT_H

#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"
#include "policy/policy.h"

/* The longest certificate, and the longest CA file, in bytes; the most CA certificates of all files. */
enum { EKCERT_BYTES_MOST = 2048, EKCERT_FILE_BYTES_MOST = 256 << 10, EKCERT_CAS_MOST = 256 };

struct ekcert_cas;

/*
 * The CAs of a policy; NULL for one that names no files.
 * Errors: SECPOOL_E_POLICY naming the file and what is wrong with it: it can't be read, has no certificate, one that is malformed or not a CA's; none of all is a root (self-signed).
 */
enum secpool_error ekcert_load(const struct policy *policy, struct ekcert_cas **ret_cas) MUST_USE;

/* The same from one PEM text; name: for messages. */
enum secpool_error ekcert_load_text(const char *text, size_t bytes, const char *name, struct ekcert_cas **ret_cas) MUST_USE;
void ekcert_free(struct ekcert_cas *cas);

/*
 * Whether the certificate (DER; bytes of 0 or 0xff may follow, as NV indices have) is for this EK (TPM2B_PUBLIC) and chains to one of the roots at this time (seconds since 1970): X.509 version 3, not a CA's,
 * extended key usage tcg-kp-EKCertificate (2.23.133.8.1), key usage as the EK's, the TPM's maker, model and version in its alternative name, signatures of 112 bits and more.
 * Errors: SECPOOL_E_ATTESTATION, each with its own reason; cas NULL is one.
 */
enum secpool_error ekcert_verify(const struct ekcert_cas *cas, const uint8_t *certificate, size_t bytes, const uint8_t *ek, size_t ek_bytes, int64_t now_s) MUST_USE;

#endif
