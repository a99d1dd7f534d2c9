/* SPDX-License-Identifier: Apache-2.0 */
/* hotplugd's functions at which the torture can stop it (tests/rules.mk: the linker's --wrap). */
#include "hotplug/attest.h"
#include "hotplug/notify.h"
#include "tests/torture/points.h"

#define WRAP(type, name, ...)                                                                      \
	type __real_##name(__VA_ARGS__);                                                           \
	type __wrap_##name(__VA_ARGS__)

WRAP(void, attest_start, struct device *device);

void __wrap_attest_start(struct device *device)
{
	points_at(POINT_HOTPLUG_START);
	__real_attest_start(device);
}

WRAP(void, attest_answer, struct hotplug *hotplug, const struct msg *msg);

void __wrap_attest_answer(struct hotplug *hotplug, const struct msg *msg)
{
	points_at(POINT_HOTPLUG_ANSWER);
	__real_attest_answer(hotplug, msg);
}

WRAP(void, notify_state, struct notify *notify, const struct device *device);

void __wrap_notify_state(struct notify *notify, const struct device *device)
{
	points_at(POINT_HOTPLUG_STATE);
	__real_notify_state(notify, device);
}

WRAP(enum secpool_error, device_drain, struct device *device);

enum secpool_error __wrap_device_drain(struct device *device)
{
	points_at(POINT_HOTPLUG_DRAIN);
	return __real_device_drain(device);
}
