/* SPDX-License-Identifier: Apache-2.0 */
#include "hotplug/holdoff.h"

uint64_t holdoff_returned(struct holdoff *holdoff, uint64_t now)
{
	uint64_t wait = HOLDOFF_LEAST_NS;

	if (holdoff->returns > 0 && now - holdoff->last_ns > HOLDOFF_CALM_NS)
		holdoff->returns = 0;
	if (holdoff->returns < UINT32_MAX)
		holdoff->returns++;
	holdoff->last_ns = now;
	if (holdoff->returns <= HOLDOFF_FREE) {
		holdoff->until_ns = 0;
		return 0;
	}
	for (uint32_t i = HOLDOFF_FREE + 1; i < holdoff->returns && wait < HOLDOFF_MOST_NS; i++)
		wait *= 2;
	if (wait > HOLDOFF_MOST_NS)
		wait = HOLDOFF_MOST_NS;
	holdoff->until_ns = now + wait;
	return wait;
}

uint64_t holdoff_left(const struct holdoff *holdoff, uint64_t now)
{
	return holdoff->until_ns > now ? holdoff->until_ns - now : 0;
}

void holdoff_forget(struct holdoff *holdoff)
{
	*holdoff = (struct holdoff){.returns = 0};
}
