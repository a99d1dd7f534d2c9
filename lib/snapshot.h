/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a child made by fork(2) gets of a pool's regions: all that they held at that moment, in its own memory, before fork returns on either side.
 *
 * snapshot_hold has the service wait at a quiet place, where it is in nobody's lock; between that and snapshot_stop the locks of others may be taken for the fork. snapshot_stop stops the pool: no worker moves a page, and every resident page is write-protected, so that a store waits like any other fault. What the regions hold can't
 * change then; threads that touch only what is resident and do not store go on. After the fork the parent reads all pages that were ever written to, resident or not, and sends them over a socket pair; the child
 * stores them at the same addresses. Then the pool goes on, and only then is the child told that what it has is of one moment.
 *
 * The child's copies are ordinary memory of the child, locked and left out of core files as the parent's are, and are not part of local_bytes. It has no keys, no devices, and no threads of the library.
 * If anything fails, or nothing moves for SNAPSHOT_PATIENCE_NS, there is no child with less: the parent is told, and the child learns it too.
 * Threads: the one that forks, all in that order; one fork at a time.
 */
#ifndef SECPOOL_SNAPSHOT_H
#define SECPOOL_SNAPSHOT_H

#include "lib/pool.h"

#define SNAPSHOT_PATIENCE_NS (10ull * 1000000000ull)

struct snapshot_range {
	struct secpool_region *region;
	uint8_t *address;
	size_t bytes;
};

struct snapshot {
	struct secpool *pool;
	struct snapshot_range *ranges;
	unsigned count;
	size_t chunk_bytes;    /* what is read and sent together */
	uint8_t *chunk;        /* locked; the parent's */
	int parent_end, child_end;
};

/* In the parent, before the fork: the service waits for snapshot_stop, SNAPSHOT_PATIENCE_NS at most. Errors: SECPOOL_E_CLOSED, SECPOOL_E_NO_MEMORY, SECPOOL_E_SYSTEM: it does not. */
enum secpool_error snapshot_hold(struct secpool *pool, struct snapshot *ret_snapshot) MUST_USE;

/* Stops the pool. Errors: SECPOOL_E_BUSY, also after SNAPSHOT_PATIENCE_NS: it goes on, and nothing is left in *snapshot. */
enum secpool_error snapshot_stop(struct snapshot *snapshot) MUST_USE;

/* After each call that the service ran: waits while a fork wants it, and stops the pool for it. Threads: the service. */
void snapshot_serve(struct secpool *pool);

/* In the parent, after the fork or after it failed: sends, waits for the child, lets the pool go on, and frees what is in *snapshot. Errors: the child must be ended. */
enum secpool_error snapshot_send(struct snapshot *snapshot) MUST_USE;

/* In the child, where the window is covered already (signals.h): takes what the parent sends. Errors: the child must end, it has less than the parent had. */
enum secpool_error snapshot_receive(struct snapshot *snapshot) MUST_USE;

/* In a child of that child, which has its memory but not its locks (mlock(2)). Errors: SECPOOL_E_SYSTEM: it must end, its memory might reach swap. */
enum secpool_error snapshot_inherit(const struct snapshot *snapshot) MUST_USE;

#endif
