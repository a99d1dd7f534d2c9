/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The CXL memory of this machine as libcxl and sysfs show it. The one door to libcxl. Threads: any, no state; reads sysfs and, for health, the devices' mailboxes: some ms each.
 */
#ifndef SECPOOL_HOTPLUG_TOPOLOGY_H
#define SECPOOL_HOTPLUG_TOPOLOGY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"
#include "lib/wire/msg.h"

/* The most memdevs that are read; lengths of names and of an advice, with their NULs. */
enum { TOPOLOGY_MOST = 64, TOPOLOGY_NAME_BYTES = 16, TOPOLOGY_TEXT_BYTES = 64, TOPOLOGY_ADVICE_BYTES = 160, TOPOLOGY_REACH_BYTES = 128 };

/* A memdev. Names are "" for what is not there. */
struct topology_device {
	char memdev[TOPOLOGY_NAME_BYTES];   /* as in `cxl list` */
	char region[TOPOLOGY_NAME_BYTES];   /* the one that it is the only target of */
	char dax[TOPOLOGY_NAME_BYTES];	    /* as in `daxctl list`: in devdax mode, with an alignment that the pool can use */
	char firmware[TOPOLOGY_TEXT_BYTES]; /* what is no printable ASCII, or blank, is '_'; "unknown" when it does not say */
	char reach[TOPOLOGY_REACH_BYTES];   /* why its PCI function may read or write this host's own memory; "" when it can't: memory only, behind strict IOMMU translation, ATS off */
	char advice[TOPOLOGY_ADVICE_BYTES]; /* what to do so that there is a dax; "" when there is one */
	uint64_t serial;
	uint64_t persistent_bytes, volatile_bytes;
	uint64_t dax_bytes;
	int32_t numa_node;   /* -1: none */
	uint32_t latency_ns; /* of reads from the nearest initiator, as the kernel publishes it (access0); 0: it does not */
	uint32_t health;     /* enum msg_health; UINT32_MAX: the device has no such command */
	enum msg_sanitise sanitise; /* NONE, POSSIBLE or RUNNING */
	uint32_t poisoned;   /* places that its poison list names; POISON_UNKNOWN (poison.h) */
};

/*
 * Whether the Address Translation Services of a PCI function may be on, by its configuration space: true also where less than 4096 bytes of it are shown. Any bytes may come. Source: PCI Express Base 6.0, sections 7.6.3
 * (extended capabilities) and 10.5.1 (ATS).
 */
bool topology_ats_may_be_on(const uint8_t *config, size_t count);

/*
 * Reads all memdevs. A machine without CXL gives none. Errors: SECPOOL_E_SYSTEM, SECPOOL_E_NO_MEMORY; what was read is then unknown.
 */
enum secpool_error topology_read(struct topology_device list[TOPOLOGY_MOST], size_t *ret_count) MUST_USE;

#endif
