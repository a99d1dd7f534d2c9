/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Moving what regions have on a draining device, or on one that is fuller than others (REGION_SHIFT), to others, while the program reads and writes. keymgrd gives targets (REGION_MOVE); each page, or stripe, is taken, its cell is copied as it
 * is (checked, and had from the other lanes if it is bad), and from then on it is in the target: target.moved is raised before the page is given back, so a worker that has it works on one of the
 * two and never on both. When all was copied and nobody who began before is still at work, keymgrd is told (REGION_MOVED), and the old places are no more.
 *
 * The redundancy is never less than before. A device that is lost in the middle, the old one or a new one, is handled as any loss (loss.h): of the old one what was not moved yet is struck, of the new one
 * what was.
 */
#ifndef SECPOOL_MOVE_H
#define SECPOOL_MOVE_H

#include "lib/pool.h"

/* keymgrd says that the region is to move what it has on a device that is not draining: once, at the rate that it says. Threads: the service. */
void move_want(struct secpool *pool, const struct msg_region_shift *shift);

/* A piece of each region's move, of a drain at the rate of rebuilds. Returns when to go on (clock_now_ns); 0: there is nothing to move. Threads: the service. */
uint64_t move_some(struct secpool *pool);

#endif
