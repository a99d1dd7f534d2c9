/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What happens when a device is gone: its copies are struck from the pages, pages without a copy are poisoned and reported, regions ask keymgrd
 * for other space, and what is resident is written there.
 *
 * Order, so that no worker believes a copy that is not there: device.gone is set; copies are struck from every word; only
 * then a new placement is published. Workers read the placement before the word.
 */
#ifndef SECPOOL_LOSS_H
#define SECPOOL_LOSS_H

#include "lib/pool.h"

/* A worker met a device that is gone: the service thread is to look. Threads: workers. */
void loss_noticed(struct worker *worker);

/* The service is to read and check all that the region has on devices, and to write again what is bad or lacks. Threads: workers. */
void loss_check(struct worker *worker, struct secpool_region *region);

/* A page's bytes on a device, or the parity of its stripe (the bytes at `at`), failed their check: the program and keymgrd are told, and the region is checked. Threads: workers. */
void loss_tell_bad(struct worker *worker, struct secpool_region *region, uint64_t pgno, const struct device *device, uint64_t at);

/* Tells the program, and keymgrd where it concerns it. Threads: workers. */
void loss_tell(struct worker *worker, const struct secpool_event *event);

/* There is no other space for what the region has, or had, on the device: the program is told. Threads: the service. */
void loss_tell_no_room(struct secpool *pool, struct secpool_region *region, const struct device *device);

/* If an absent page that was written has no copy (they went while it was evicted), it becomes lost. Threads: workers. */
void loss_orphan(struct worker *worker, struct secpool_region *region, uint64_t pgno);

/* Strikes the copies on devices that are gone from the region's pages: before a placement that may no longer name them is published. Threads: the service. */
void loss_strike_gone(struct secpool_region *region);

/*
 * Before `next` is published: what a target held that is in it no more, or did not hold yet when it became a place, is struck. Threads: the service.
 */
void loss_strike_targets(struct secpool_region *region, const struct placement *next);

/* Handles each incarnation that is gone and was not handled yet. Threads: the service. */
void loss_scan(struct secpool *pool);

/*
 * Asks keymgrd for places that a region lacks, and lets pages be asked for again that there was no room for, now and then. Returns when to ask again (clock_now_ns); 0: nothing lacks. Threads: the service.
 */
uint64_t loss_fill(struct secpool *pool);

/* After keymgrd came back: asks again for what could not be replaced meanwhile, and reads the places. Threads: the service. */
void loss_resume(struct secpool *pool, struct secpool_region *region);

#endif
