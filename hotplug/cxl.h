/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CXL memory that comes and goes: the kernel's uevents (libudev's "kernel" source: sd-device can listen to udevd only, which a removed device should not have to wait for) and what topology.h then
 * shows. A memdev becomes the device cxl-SERIAL, with a folder like an emulated one's below the devices folder: identity.json, made here and kept up to date but for its domain, its choice of TPM and its latency, which are the operator's; `media`, a link to
 * the devdax device while there is one; and what device.c keeps there. Threads: the loop's.
 */
#ifndef SECPOOL_HOTPLUG_CXL_H
#define SECPOOL_HOTPLUG_CXL_H

#include "hotplug/device.h"

struct cxl;

/* Listens, and discovers what is there. Called after watch_new. hotplug->cxl is set. Errors: SECPOOL_E_SYSTEM, SECPOOL_E_NO_MEMORY. */
enum secpool_error cxl_watch_new(struct hotplug *hotplug) MUST_USE;
/* NULL is allowed. */
void cxl_watch_free(struct cxl *cxl);

#endif
