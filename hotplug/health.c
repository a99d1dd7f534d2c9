/* SPDX-License-Identifier: Apache-2.0 */
#include "hotplug/health.h"

#include "lib/wire/msg.h"

void health_reset(struct health *health)
{
	*health = (struct health){.tags = 0};
}

bool health_report(struct health *health, uint32_t cause)
{
	if (cause == MSG_CAUSE_FAULT && health->faults < UINT32_MAX)
		health->faults++;
	if (cause != MSG_CAUSE_TAG || health->tags >= HEALTH_TAGS_MOST)
		return false;
	health->tags++;
	return health->tags == HEALTH_TAGS_MOST;
}
