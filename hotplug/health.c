/* SPDX-License-Identifier: Apache-2.0 */
#include "hotplug/health.h"

#include "lib/wire/msg.h"

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
