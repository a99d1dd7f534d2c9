/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the front keeps of a device's attestation, which is the enclave's to judge: the size that was attested, so that hotplugd can't announce
 * another, and the EK, for the next start. Threads: one (the loop's).
 */
#ifndef SECPOOL_KEYMGR_DEVCLAIMS_H
#define SECPOOL_KEYMGR_DEVCLAIMS_H

#include "keymgr/devices.h"

/* The enclave made a challenge for a device that says it has this size. */
void devclaims_made(struct devices *devices, const char *id, uint64_t bytes);

/* Its evidence was good: row->attested_bytes is what it said, 0 when that is not known any more. */
void devclaims_proved(struct devices *devices, struct devices_row *row);

/* The EK that the device id was first accepted with, and the highest counters of its TPM, stored for the next start. Errors: SECPOOL_E_STORE. */
enum secpool_error devclaims_remember_ek(struct daemon *daemon, const char *id,
	const uint8_t ek[DEVICES_EK_BYTES], uint64_t resets) MUST_USE;

/* A refused device proved this EK: another that is online with it is asked for again, and leaves as suspect when its own verdict is void. */
void devclaims_doubt(struct daemon *daemon, const char *id, const uint8_t ek[DEVICES_EK_BYTES]);

#endif
