/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kernel swap on a zram device under a memory limit, for comparison: a device that nobody uses is set up and given as swap, and a control group (version 1 or 2)
 * limits who joins it. All of it is undone by zram_close. Needs root. Threads: one.
 */
#ifndef SECPOOL_TESTS_ZRAM_H
#define SECPOOL_TESTS_ZRAM_H

#include <stdbool.h>
#include <stddef.h>

#include "lib/base/err.h"

struct zram {
	int device; /* number; -1: none */
	bool is_swap;
	char group[128]; /* folder of the control group; "" none */
};

/*
 * swap_bytes: of the device, uncompressed. Devices that are set up already and swap that is there are left alone.
 * Errors: SECPOOL_E_NOT_FOUND (no device is free, no control group), SECPOOL_E_DENIED, SECPOOL_E_SYSTEM; what was set up is undone.
 */
enum secpool_error zram_open(size_t swap_bytes, size_t limit_bytes, struct zram *ret_zram) MUST_USE;

/* Limits the calling process. */
bool zram_join(const struct zram *zram);

/* The limited processes have ended. A zram that was not opened is allowed. */
void zram_close(struct zram *zram);

#endif
