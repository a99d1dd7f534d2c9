/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rotation of a region's key, while the program reads and writes. keymgrd is asked for a new key (REGION_ROTATE), which the enclave sends; from then on all that is written is under it, and a walk writes anew
 * what still lies under the old one (renew.h), at the rate of rebuilds. When a whole round met no such page and nobody who began before is still at work, the old key is wiped, and keymgrd is told
 * (REGION_ROTATED): then what is stored of it goes as well.
 *
 * It begins when keymgrd says so (REGION_RENEW), and by itself when as much as the policy says was written under one key. A keymgrd that is gone meanwhile holds up only the asking and the telling.
 * Threads: the service.
 */
#ifndef SECPOOL_ROTATE_H
#define SECPOOL_ROTATE_H

#include "lib/pool.h"

enum rotation_event {
	ROTATION_WANT = 0,  /* keymgrd asks for it, or the key has sealed enough */
	ROTATION_TURNED = 1, /* the new key is there, and in use */
	ROTATION_MOVED = 2, /* no page is under the old one, and it is wiped */
	ROTATION_TOLD = 3,  /* keymgrd has destroyed what it stored */
	ROTATION_ENDED = 4, /* the region was given up */
	ROTATION_EVENTS = 5,
};

/* The next state; ROTATION_STATES: the event is not of this state. Pure. */
unsigned rotation_next(unsigned state, unsigned event);

const char *rotation_state_name(unsigned state);
const char *rotation_event_name(unsigned event);

/* So many bytes may be written under one key of the region before it is renewed, when the policy says `bytes`: a rotation writes the region once by itself, and each worker takes its share. Pure. */
uint64_t rotation_soft_bytes(uint64_t bytes, uint64_t region_bytes, unsigned workers);

/* Those of the regions named that are the pool's are to be rotated; one that is being rotated is told again after that. */
void rotate_want(struct secpool *pool, const struct msg_region_renew *renew);

/* The region was given up, and its keys are about to be wiped. */
void rotate_end(struct secpool_region *region);

/* A piece of each region's rotation. Returns when to go on (clock_now_ns); 0: nothing is to be done, or looked at. */
uint64_t rotate_some(struct secpool *pool);

#endif
