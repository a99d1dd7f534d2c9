/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log of what a device's TPM measured, in the crypto agile format of the TCG PC Client Platform Firmware Profile (version 1.05, sections 10.2.2 TCG_PCR_EVENT2 and 10.4.5.1 TCG_EfiSpecIdEvent), which
 * tpm2_eventlog and others read. SHA-256 alone. Threads: any; no state.
 */
#ifndef SECPOOL_ENCLAVE_EVENTLOG_H
#define SECPOOL_ENCLAVE_EVENTLOG_H

#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

enum { EVENTLOG_BYTES_MOST = 1024 };

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

#endif
