/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How many bad bytes clients met on a device. Enough of them make it suspect: it answers, but not
 * with what was written. Threads: one at a time for each struct health.
 */
#ifndef SECPOOL_HOTPLUG_HEALTH_H
#define SECPOOL_HOTPLUG_HEALTH_H

#include <stdbool.h>
#include <stdint.h>

/* Reports of failed integrity checks that make a device suspect. */
enum { HEALTH_TAGS_MOST = 64 };

struct health {
	uint32_t tags;	 /* MSG_CAUSE_TAG */
	uint32_t faults; /* MSG_CAUSE_FAULT while the media were there: a client's own mistake, or a
			    race */
};

/* Starts over: for media that are new, or a device that an operator asks to attest. */
void health_reset(struct health *health);

/* Counts a report (cause: enum msg_cause, or anything). True when it makes the device suspect:
 * once, with the HEALTH_TAGS_MOST-th. */
bool health_report(struct health *health, uint32_t cause);

#endif
