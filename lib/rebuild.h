/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing again the copies that went with a device, to the space that keymgrd gave instead. In the background, a few units (pages of a mirror, stripes of a code) at a time,
 * while the program goes on. A second loss starts it again from the first unit; what has its copies is passed over. Threads: the service.
 */
#ifndef SECPOOL_REBUILD_H
#define SECPOOL_REBUILD_H

#include "lib/pool.h"

/* The region has places again for copies that its pages lack: look at all of its pages, from the first. */
void rebuild_start(struct secpool_region *region);

/*
 * Does a bounded piece of what is to be done, at no more than the session's rebuild_bytes_per_second, and tells keymgrd how far it is. A region that lacks nothing any more is told of
 * (SECPOOL_EVENT_REGION_WHOLE). Returns when to go on (clock_now_ns); 0: nothing is left.
 */
uint64_t rebuild_some(struct secpool *pool);

/* ---- what other walks over a region share ---- */

/* When a walk that began then and did so many bytes may go on at that rate; 0: as fast as it goes. */
uint64_t rebuild_allowed_ns(uint64_t began_ns, uint64_t bytes, uint64_t bytes_per_second);

/* Tells keymgrd how far a walk of that kind is, ten times a second; ended: in any case. */
void rebuild_tell(struct secpool *pool, struct secpool_region *region, enum msg_progress kind, uint64_t done_bytes, uint64_t all_bytes, bool ended);

#endif
