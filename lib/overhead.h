/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the time of a miss goes: for `secpool-bench overhead`, not for programs. While it is on, each worker adds the time since its last mark to the stage that
 * ends there; while it is off, a mark is one load and one branch that is never taken.
 * Threads: marks are the worker's own; the rest any.
 */
#ifndef SECPOOL_OVERHEAD_H
#define SECPOOL_OVERHEAD_H

#include "lib/pool.h"

/* What a serving of a fault consists of, then what an eviction does. Trap and wake are outside: the bench takes them from what is left. */
enum overhead_stage {
	OVERHEAD_FIND = 0,  /* worker, region and page */
	OVERHEAD_ROOM = 1,  /* the page taken, the stream noted, room made */
	OVERHEAD_OPEN = 2,  /* ciphertext from the device, its tag and its decryption, one pass */
	OVERHEAD_PLACE = 3, /* mapped: UFFDIO_COPY */
	OVERHEAD_END = 4,   /* queued, stepped, waiters woken */
	OVERHEAD_HOLD = 5,  /* victims taken, moved or write-protected */
	OVERHEAD_SEAL = 6,
	OVERHEAD_STORE = 7, /* ciphertext to the devices */
	OVERHEAD_DROP = 8,  /* frames freed, victims' end */
	OVERHEAD_STAGES = 9,
};

_Static_assert((int)OVERHEAD_STAGES <= (int)WORKER_STAGES, "a worker has room for all stages");

void overhead_set(struct secpool *pool, bool on);

/* Nanoseconds that all workers spent in a stage while it was on. */
uint64_t overhead_ns(const struct secpool *pool, enum overhead_stage stage);

const char *overhead_name(enum overhead_stage stage);

void overhead_note(struct worker *worker, int stage);

/* A new serving begins: time before it is nobody's. */
static inline void overhead_begin(struct worker *worker)
{
	if (__builtin_expect(atomic_load_explicit(&worker->pool->measuring, memory_order_relaxed), 0))
		overhead_note(worker, -1);
}

static inline void overhead_mark(struct worker *worker, enum overhead_stage stage)
{
	if (__builtin_expect(atomic_load_explicit(&worker->pool->measuring, memory_order_relaxed), 0))
		overhead_note(worker, stage);
}

#endif
