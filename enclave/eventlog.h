/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log of what a device's TPM measured, in the crypto agile format of the TCG PC Client Platform Firmware Profile (version 1.05, sections 10.2.2 TCG_PCR_EVENT2 and 10.4.5.1 TCG_EfiSpecIdEvent), which
 * tpm2_eventlog and others read. Written with SHA-256 alone; read with any digests beside it, of which only SHA-256's count.
 *
 * eventlog_replay takes bytes from outside: any bytes give facts that the PCR values bear out, or an error. It runs in the verifier process, which holds no keys (verifier.h).
 * Threads: any; no state.
 */
#ifndef SECPOOL_ENCLAVE_EVENTLOG_H
#define SECPOOL_ENCLAVE_EVENTLOG_H

#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

enum { EVENTLOG_BYTES_MOST = 2048, EVENTLOG_TEXT_BYTES = 64 };

/* What a log tells of a device: PCR 0 has the event "firmware:<firmware>" (EVENTLOG_CRTM_VERSION), PCR 2 has "device:<id>:<bytes>:<serial>" (EVENTLOG_NONHOST_INFO). */
enum { EVENTLOG_PCRS_NEEDED = 0x5 };
struct eventlog_facts {
	char firmware[EVENTLOG_TEXT_BYTES], id[EVENTLOG_TEXT_BYTES], serial[EVENTLOG_TEXT_BYTES];
	uint64_t bytes; /* the capacity */
};

/* TCG_PCClient event types (same profile, section 10.4.1) that are used here. */
enum eventlog_type {
	EVENTLOG_CRTM_VERSION = 8, /* the firmware's */
	EVENTLOG_NONHOST_INFO = 17 /* about the device */
};

struct eventlog_event {
	unsigned pcr;
	enum eventlog_type type;
	const char *text; /* what was measured: its SHA-256 was extended (tpm_extend) */
};

/*
 * Writes the header and the events in the order in which they were measured.
 * log: EVENTLOG_BYTES_MOST bytes. Errors: SECPOOL_E_LIMIT (they don't fit), SECPOOL_E_CRYPTO.
 */
enum secpool_error eventlog_make(const struct eventlog_event *events, size_t count, uint8_t *log,
	size_t *ret_bytes) MUST_USE;

/*
 * Extends the log's SHA-256 digests into PCRs of their own, as the TPM did, and compares these with the values of a quote; then takes the facts from it. Only what was measured counts: a text whose hash is not its
 * event's digest is refused.
 * pcrs: bit i is PCR i, at least EVENTLOG_PCRS_NEEDED; values: TPM_PCR_BYTES bytes for each bit, lowest first.
 * Errors: SECPOOL_E_ATTESTATION, each with its own reason: not such a log, it does not replay to a PCR, it does not say what it must, or says it twice. *ret_facts is then untouched.
 */
enum secpool_error eventlog_replay(const uint8_t *log, size_t bytes, uint32_t pcrs, const uint8_t *values, struct eventlog_facts *ret_facts) MUST_USE;

#endif
