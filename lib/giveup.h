/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Regions that end before their program does: keymgrd was gone for longer than the policy's grace, or does not let the program have the region any more.
 *
 * Threads: the service.
 */
#ifndef SECPOOL_GIVEUP_H
#define SECPOOL_GIVEUP_H

#include "lib/pool.h"

/*
 * Every page of the region is lost from now on, resident ones too (also pinned ones: what the kernel works on stays the kernel's): SIGBUS for who touches it, SECPOOL_E_CLOSED from
 * calls. Its plaintext is dropped, its keys are wiped; what lies on devices is of no use to anybody. Told of by SECPOOL_EVENT_REGION_ENDED. Nothing happens to one that ended before.
 */
void giveup_region(struct secpool *pool, struct secpool_region *region);

/* The same for all regions of the pool. */
void giveup_all(struct secpool *pool);

#endif
