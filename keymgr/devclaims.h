/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the front keeps of a device's attestation, which is the enclave's to judge: the size that was attested, so that hotplugd can't announce
 * another, and the EK, for the next start. Threads: one (the loop's).
 */
#ifndef SECPOOL_KEYMGR_DEVCLAIMS_H
#define SECPOOL_KEYMGR_DEVCLAIMS_H

#include "keymgr/devices.h"
#include "keymgr/server.h"

/* The enclave made a challenge for a device that says it has this size. */
void devclaims_made(struct devices *devices, const char *id, uint64_t bytes);

/* Its evidence was good: row->attested_bytes is what it said, 0 when that is not known any more. */
void devclaims_proved(struct devices *devices, struct devices_row *row);

/* Who the device proved to be: the EK and serial that its id was first accepted with, and the highest counters of its TPM, stored for the next start. Errors: SECPOOL_E_STORE. */
enum secpool_error devclaims_remember(struct daemon *daemon, struct devices_row *row, const struct msg_attest_verdict *verdict) MUST_USE;

/*
 * DEVICE_ENROL of a command: the enclave takes in what the device proved last, and that is stored. A device that never was online is stored when it comes online: it is attested next.
 * Errors: SECPOOL_E_NOT_FOUND (it was not refused for who it is), SECPOOL_E_EXISTS (another has its serial), SECPOOL_E_STORE.
 */
enum secpool_error devclaims_handle_enrol(struct server_connection *connection, struct msg *msg, struct sock_extra *extra) MUST_USE;

/* A refused device proved this EK: another that is online with it is asked for again, and leaves as suspect when its own verdict is void. */
void devclaims_doubt(struct daemon *daemon, const char *id, const uint8_t ek[DEVICES_EK_BYTES]);

#endif
