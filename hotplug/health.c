/* SPDX-License-Identifier: Apache-2.0 */
#include "hotplug/health.h"

#include "lib/wire/msg.h"

void health_reset(struct health *health)
{
	*health = (struct health){.bad = false};
}

bool health_report(struct health *health, uint32_t cause, uint32_t tenants)
{
	bool own_finding = tenants == 0;

	if (cause != MSG_CAUSE_TAG || health->bad ||
		(!own_finding && tenants < HEALTH_TENANTS_LEAST))
		return false;
	health->bad = true;
	return true;
}
