/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing again the copies that went with a device, to the space that keymgrd gave instead. In the background, a few pages at a time,
 * while the program goes on. Threads: the service.
 */
#ifndef SECPOOL_REBUILD_H
#define SECPOOL_REBUILD_H

#include "lib/pool.h"

/* The region has places again for copies that its pages lack: look at all of its pages, from the first. */
void rebuild_start(struct secpool_region *region);

/* Does a bounded piece of what is to be done. Returns whether more is left. */
bool rebuild_some(struct secpool *pool);

#endif
