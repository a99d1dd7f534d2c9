/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A TPM 2.0 through tpm2-tss ESAPI: sealing the root key, the host's attestation key, and a device's part of attestation.
 *
 * Sessions that a secret passes through are salted (TPM 2.0 part 1, 19.6) and encrypting (part 1, section 21), objects are noDA (part 1, 19.8), the SRK's name is pinned in what we store (docs/keys.md says why). Every command
 * has a deadline: a TPM that hangs is SECPOOL_E_TPM, never a hang. On any error of the transport the connection is dropped; reopen it.
 * Threads: one at a time for each struct tpm.
 */
#ifndef SECPOOL_ENCLAVE_TPM_H
#define SECPOOL_ENCLAVE_TPM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

enum { TPM_PUBLIC_BYTES = 512, TPM_BLOB_BYTES = 2048, TPM_ATTEST_BYTES = 1024, TPM_SIGNATURE_BYTES = 512, TPM_PCR_BYTES = 32, TPM_PCRS_MOST = 8, TPM_NONCE_BYTES = 32 };

struct tpm;

/*
 * where: "unix:PATH" (secpool-vtpm or swtpm's command socket) or "device:/dev/tpmrm0"; nothing else, in particular no tcti
 * loader strings. Flushes transient objects and sessions that an earlier user left (not on tpmrm0, which has its own).
 * Errors: SECPOOL_E_INVALID (not such a string), SECPOOL_E_TPM (can't be reached, not a TPM 2.0, no SHA-256 bank, not started).
 */
enum secpool_error tpm_open(const char *where, struct tpm **ret_tpm) MUST_USE;

/*
 * Flushes what is loaded, tells a TPM behind a socket that its power may go (TPM2_Shutdown(CLEAR), TPM 2.0 part 3, 9.4: who has the socket owns it; the kernel does that for /dev/tpmrm0), and
 * ends the connection. Bounded by one command's time when the TPM hangs. NULL is allowed.
 */
void tpm_close(struct tpm *tpm);

/* A counter in the TPM's NV memory, and the values of it at which something sealed opens. */
struct tpm_counter {
	uint32_t index;       /* NV index, from tpm_counter_make */
	uint64_t first, last; /* both included */
};

enum { TPM_COUNTER_AUTH_BYTES = 32 };

/*
 * Makes a counter at an unused index of the owner's range (TPM 2.0 part 1, NV counters: it only grows, and one that is made again where another was goes on above the highest value that any had), and counts once.
 * auth: what counting needs from now on, secret; reading needs nothing. noDA. Errors: SECPOOL_E_TPM; an index that was made may stay.
 */
enum secpool_error tpm_counter_make(struct tpm *tpm, const uint8_t auth[TPM_COUNTER_AUTH_BYTES], uint32_t *ret_index, uint64_t *ret_value) MUST_USE;

/* Its value, as the TPM says it on a salted session. Errors: SECPOOL_E_NOT_FOUND (no such counter), SECPOOL_E_TPM. */
enum secpool_error tpm_counter_read(struct tpm *tpm, uint32_t index, uint64_t *ret_value) MUST_USE;

/* Counts once, on a salted session that auth is the key of, and reads. Errors: SECPOOL_E_NOT_FOUND, SECPOOL_E_TPM: it may have counted, or not. */
enum secpool_error tpm_counter_step(struct tpm *tpm, uint32_t index, const uint8_t auth[TPM_COUNTER_AUTH_BYTES], uint64_t *ret_value) MUST_USE;

/* Removes a counter of tpm_counter_make's: what was sealed to it never opens again. One that is not there, or that is no such counter, is left alone. Errors: SECPOOL_E_TPM. */
enum secpool_error tpm_counter_remove(struct tpm *tpm, uint32_t index) MUST_USE;

/*
 * Seals up to 128 bytes under the SRK with PolicyPCR over the SHA-256 PCRs in the mask as they are now, and PolicyNV of the counter (NULL: none). blob (TPM_BLOB_BYTES) is
 * self-contained but for the counter: SRK name, PCR mask, public and private area.
 */
enum secpool_error tpm_seal(struct tpm *tpm, uint32_t pcrs, const struct tpm_counter *counter, const void *secret, size_t secret_bytes, uint8_t *blob, size_t *ret_blob_bytes) MUST_USE;

/*
 * Gives back exactly secret_bytes (to secret memory). counter: as at sealing.
 * Errors: SECPOOL_E_TPM with its reason: another TPM (SRK differs), PCRs changed, the counter is at another value, blob changed, out of reach.
 */
enum secpool_error tpm_unseal(struct tpm *tpm, const struct tpm_counter *counter, const uint8_t *blob, size_t blob_bytes, void *ret_secret, size_t secret_bytes) MUST_USE;

/* Whether it is a software TPM by its own account (TPM2_PT_VENDOR_STRING_1 of libtpms): whoever can copy its state file can put its counters back. False for one that can't be told from hardware. */
bool tpm_is_software(const struct tpm *tpm);

/* The connection's descriptor, -1 after it was dropped: for a filter of system calls. */
int tpm_descriptor(const struct tpm *tpm);

/* Extends a PCR of the SHA-256 bank with the SHA-256 of text. */
enum secpool_error tpm_extend(struct tpm *tpm, unsigned pcr, const char *text) MUST_USE;

/*
 * The same, if the PCR still is as it was when the TPM was started (zeros), else nothing: so who starts a TPM that measures nothing by itself may do it again after an error.
 */
enum secpool_error tpm_measure(struct tpm *tpm, unsigned pcr, const char *text) MUST_USE;

/* A key's public area as TPM2B_PUBLIC, marshalled. */
struct tpm_public {
	size_t bytes;
	uint8_t area[TPM_PUBLIC_BYTES];
};

/* A quote: TPMS_ATTEST and TPMT_SIGNATURE, marshalled, and the PCR values read beside it, lowest PCR first. */
struct tpm_quote {
	size_t attest_bytes, signature_bytes;
	uint8_t attest[TPM_ATTEST_BYTES];
	uint8_t signature[TPM_SIGNATURE_BYTES];
	unsigned pcr_count;
	uint8_t pcr_values[TPM_PCRS_MOST][TPM_PCR_BYTES];
};

/*
 * The attestation key: a restricted ECDSA P-256 signing key under the EK (P-256, TCG EK template L-2, or what tpm_ek_certificate found), made new or, when blob_bytes is not 0, loaded from blob. It stays loaded until
 * tpm_close. blob (TPM_BLOB_BYTES) may be stored anywhere.
 */
enum secpool_error tpm_attestation_key(struct tpm *tpm, uint8_t *blob, size_t *blob_bytes, struct tpm_public *ret_ek, struct tpm_public *ret_ak) MUST_USE;

/* Ends the attestation key's use before tpm_close: it is not loaded any more. */
void tpm_attestation_key_done(struct tpm *tpm);

/*
 * The EK certificate that the TPM keeps (TCG EK Credential Profile 2.5, section 2.2.1): NV index 0x01c0000a, of the ECC P-256 EK, else 0x01c00002, of the RSA-2048 EK (template L-1). tpm_attestation_key then makes the
 * EK that it is for; without a certificate, or without this call, the ECC one. certificate: as it lies there, DER with what may follow, the first certificate_bytes of it (an index may be longer than what is in it). *ret_bytes is 0 when there is none.
 * Errors: SECPOOL_E_TPM.
 */
enum secpool_error tpm_ek_certificate(struct tpm *tpm, uint8_t *certificate, size_t certificate_bytes, size_t *ret_bytes) MUST_USE;

/* TPM2_ActivateCredential: opens a challenge made for this EK and AK. secret: up to 64 bytes. */
enum secpool_error tpm_activate(struct tpm *tpm, const uint8_t *credential, size_t credential_bytes, const uint8_t *encrypted_secret, size_t encrypted_secret_bytes, uint8_t *secret,
	size_t *ret_secret_bytes) MUST_USE;

/*
 * What a quote is asked for that is to stand for certain media: SHA-256 of the nonce and of what the device read where the host had written a challenge. It hinders relays; it proves no place.
 * Errors: SECPOOL_E_CRYPTO.
 */
enum secpool_error tpm_bind_nonce(const uint8_t nonce[TPM_NONCE_BYTES], const uint8_t media[TPM_NONCE_BYTES], uint8_t ret_bound[TPM_NONCE_BYTES]) MUST_USE;

/* Quotes the SHA-256 PCRs in the mask with the attestation key; nonce: up to 64 bytes of qualifying data. */
enum secpool_error tpm_quote(struct tpm *tpm, uint32_t pcrs, const uint8_t *nonce, size_t nonce_bytes, struct tpm_quote *ret_quote) MUST_USE;

/* Who made the TPM, as "vendor firmware-version", for status. */
void tpm_describe(struct tpm *tpm, char *text, size_t text_bytes);

#endif
