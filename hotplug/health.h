/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether a device that answers gives back what was written to it. One tenant's word is not enough:
 * it could bring every device down by lies. Two tenants that met bad bytes, or keymgrd that did,
 * make a device suspect. Threads: one at a time for each struct health.
 */
#ifndef SECPOOL_HOTPLUG_HEALTH_H
#define SECPOOL_HOTPLUG_HEALTH_H

#include <stdbool.h>
#include <stdint.h>

/* Different tenants whose bytes failed their integrity check that make a device suspect. */
enum { HEALTH_TENANTS_LEAST = 2 };

struct health {
	bool bad; /* it was found suspect already */
};

/* Starts over: for media that are new, or a device that an operator asks to attest. */
void health_reset(struct health *health);

/*
 * Takes in a report. cause: enum msg_cause, or anything; MSG_CAUSE_TAG alone counts, as a fault on
 * media that are there is a client's own mistake, or a race. tenants: how many different ones met
 * it, 0: keymgrd's own finding. True when it makes the device suspect: once.
 */
bool health_report(struct health *health, uint32_t cause, uint32_t tenants);

#endif
