/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The device's part of attestation (docs/wire.md): ATTEST_BEGIN with its keys -> ATTEST_CHALLENGE
 * -> ATTEST_EVIDENCE -> ATTEST_VERDICT. What the TPM has to do runs on worker threads (work.h), so
 * the loop never waits for a TPM; the result of an exchange that was dropped meanwhile goes
 * nowhere. Nothing is judged here: that is the enclave's. Threads: the loop's.
 */
#ifndef SECPOOL_HOTPLUG_ATTEST_H
#define SECPOOL_HOTPLUG_ATTEST_H

#include "hotplug/device.h"

/* Starts an exchange, dropping one that runs. It ends with device_attested, unless it is dropped.
 */
void attest_start(struct device *device);

/* Drops the exchange that runs, if any: nothing more is heard of it. */
void attest_drop(struct device *device);

/* A CHALLENGE, a VERDICT, or a REPLY to one of our requests came from keymgrd. One that belongs to
 * no exchange is passed over. */
void attest_answer(struct hotplug *hotplug, const struct msg *msg);

#endif
