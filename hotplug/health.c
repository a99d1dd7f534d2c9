/* SPDX-License-Identifier: Apache-2.0 */
#include "hotplug/health.h"

#include <stdio.h>

#include "hotplug/poison.h"

void health_reset(struct health *health)
{
	*health = (struct health){.bad = false};
}

static void count(uint32_t *counter)
{
	if (*counter < UINT32_MAX)
		(*counter)++;
}

bool health_report(
	struct health *health, uint32_t cause, uint32_t tenants, const struct health_limits *limits)
{
	uint32_t least = limits->tenants ? limits->tenants : HEALTH_TENANTS_LEAST;
	bool bad = false;

	count(&health->looks);
	if (cause == MSG_CAUSE_TAG) {
		count(&health->tags);
		bad = tenants == 0 || tenants >= least;
	} else if (cause == MSG_CAUSE_FAULT) {
		count(&health->faults);
		bad = limits->faults > 0 && health->faults >= limits->faults;
	}
	if (!bad || health->bad)
		return false;
	health->bad = true;
	return true;
}

bool health_judge(uint32_t flags, uint32_t poisoned, const struct health_limits *limits, char *why,
	size_t why_bytes)
{
	uint32_t met = flags == UINT32_MAX ? 0 : flags & limits->flags;

	if (met & MSG_HEALTH_REPLACE)
		snprintf(why, why_bytes, "it says that it must be replaced");
	else if (met & MSG_HEALTH_MEDIA)
		snprintf(why, why_bytes, "it says that its media are not in order");
	else if (limits->poison > 0 && poisoned != POISON_UNKNOWN && poisoned >= limits->poison)
		snprintf(why, why_bytes,
			"its poison list names %u places, and devices.suspect_poison is %u",
			poisoned, limits->poison);
	else if (met & MSG_HEALTH_MAINTENANCE)
		snprintf(why, why_bytes, "it says that it needs maintenance");
	else if (met & MSG_HEALTH_DEGRADED)
		snprintf(why, why_bytes, "it says that it is slower than it was");
	else
		return false;
	return true;
}
