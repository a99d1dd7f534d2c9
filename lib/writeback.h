/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages on their way out, many at once: held so that their bytes stand still, encrypted, written, and ended. What is dear is not the work on a page but the flush of
 * the TLBs that each change of the program's mappings costs (10 us for every other CPU that runs the program, in the virtual machine where it was measured). So
 * pages that lie side by side are moved out by one call, and others are write-protected together with what lies between them.
 *
 * Threads: the worker that owns the pages (EVICTING).
 */
#ifndef SECPOOL_WRITEBACK_H
#define SECPOOL_WRITEBACK_H

#include "lib/pool.h"

enum {
	WRITEBACK_MOST = 512,
	WRITEBACK_RUN_PAGES = 8, /* from this length on a run of pages is moved: one flush for all, and a frame that the kernel has pinned is noticed */
};

enum victim_state {
	VICTIM_TAKEN = 0,   /* EVICTING, the worker's */
	VICTIM_HELD = 1,    /* its bytes stand still */
	VICTIM_WRITTEN = 2, /* in the pool, and still mapped: to be dropped */
	VICTIM_LEFT = 3,    /* in the pool, and not in local memory any more: its room is to be returned once moved frames are freed */
	VICTIM_STAYED = 4,  /* resident again */
};

struct victim {
	struct secpool_region *region;
	uint64_t pgno, version; /* before the eviction */
	uint64_t next;          /* the version under which it is written, once it is sealed */
	uint8_t *at;            /* where the program has it */
	uint8_t *frame;         /* where the worker reads it: at, or in worker->moved */
	enum victim_state state;
	enum cache_queue queue; /* that it comes from, unless it stays */
	bool clean; /* nothing is to be written */
	bool stays; /* it is only written: resident and clean afterwards */
	bool wake;  /* somebody waits for it */
	bool sent;  /* under its next version: devices may have seen it */
	bool failed; /* it could not be written */
};

/*
 * Makes the bytes of all dirty victims stand still (HELD): runs of side by side pages that leave are moved to the worker's range, others are write-protected where they are.
 * The victims are in the order of their addresses. What can't be held is resident and dirty again (STAYED). *ret_moved_bytes: of worker->moved in use.
 */
void writeback_hold(struct worker *worker, struct victim *victims, unsigned count, size_t *ret_moved_bytes);

/*
 * Encrypts each HELD page under a new version and writes it to all its places, those of one stripe together. A page that stays, or whose frame was moved, is then ended (STAYED, LEFT);
 * another one is WRITTEN. What could not be written is resident and dirty again (STAYED, and failed).
 */
void writeback_write(struct worker *worker, struct victim *victims, unsigned count);

/* Ends a clean (TAKEN) or WRITTEN page whose mapping was dropped: LEFT. */
void writeback_dropped(struct worker *worker, struct victim *victim);

/* Ends a page that could not be dropped, or may not: STAYED, dirty. */
void writeback_undo(struct worker *worker, struct victim *victim);

#endif
