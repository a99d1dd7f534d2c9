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

/* Different tenants whose bytes failed their integrity check that make a device suspect, where the policy does not say. */
enum { HEALTH_TENANTS_LEAST = 2 };

/* The policy's: devices.suspect_tenants (0: HEALTH_TENANTS_LEAST), devices.suspect_faults (0: no number of them). */
struct health_limits {
	uint32_t tenants, faults;
};

/* Counted since the media came, or since an operator asked to attest. */
struct health {
	bool bad;	 /* it was found suspect already */
	uint32_t tags;	 /* reports of bytes that failed their integrity check */
	uint32_t faults; /* reports of accesses that failed (SIGBUS) while the media were there */
	uint32_t looks;	 /* all looks that keymgrd asked for */
};

/* Starts over: for media that are new, or a device that an operator asks to attest. */
void health_reset(struct health *health);

/*
 * Takes in a report. cause: enum msg_cause, or anything; MSG_CAUSE_TAG counts by tenants, MSG_CAUSE_FAULT by their number and only where the policy says so: a fault on
 * media that are there may be a client's own mistake, or a race. tenants: how many different ones met
 * it, 0: keymgrd's own finding. True when it makes the device suspect: once.
 */
bool health_report(struct health *health, uint32_t cause, uint32_t tenants,
	const struct health_limits *limits);

#endif
