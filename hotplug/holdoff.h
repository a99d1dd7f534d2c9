/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device that comes and goes is held off: it is attested, and so used, only after a wait that grows with each return. Else each return would start a rebuild that the next removal
 * makes worthless. The idea is that of route flap damping (RFC 2439): who stays away from trouble for a while starts anew. The numbers are ours. A plug by an operator's command is no
 * flapping. Threads: one at a time for each struct holdoff.
 */
#ifndef SECPOOL_HOTPLUG_HOLDOFF_H
#define SECPOOL_HOTPLUG_HOLDOFF_H

#include <stdint.h>

#include "lib/base/clock.h"

/* Returns that are not held off; the wait of the next one; the longest; how long without a return until all is forgotten (longer than any wait). */
enum { HOLDOFF_FREE = 3 };
#define HOLDOFF_LEAST_NS (1 * CLOCK_NS_PER_S)
#define HOLDOFF_MOST_NS	 (64 * CLOCK_NS_PER_S)
#define HOLDOFF_CALM_NS	 (300 * CLOCK_NS_PER_S)

struct holdoff {
	uint32_t returns; /* in a row, each within HOLDOFF_CALM_NS of the one before */
	uint64_t last_ns, until_ns;
};

/* The device came back. now: clock_now_ns. Returns how long it is to wait, in ns; 0: not at all. */
uint64_t holdoff_returned(struct holdoff *holdoff, uint64_t now);

/* What is left of that wait. */
uint64_t holdoff_left(const struct holdoff *holdoff, uint64_t now);

/* An operator takes the device as it is. */
void holdoff_forget(struct holdoff *holdoff);

#endif
