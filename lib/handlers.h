/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The handler threads and what they are given to do.
 *
 * In fault mode thread one of them, the leader, reads the faults; the others are given what it can't do at once: further faults, and parts of long fills. Only one
 * reads because userfaultfd wakes every reader for every fault. The leader moves to the CPU of the thread that it served last (measured in a virtual machine: served on the faulting thread's
 * own CPU a fault costs 8 us, on another one 50 us, most of it two interrupts between CPUs), and asks for short slices of time, so that it comes before busy threads.
 * In fault mode inline all of them wait for work.
 */
#ifndef SECPOOL_HANDLERS_H
#define SECPOOL_HANDLERS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "lib/fillset.h"
#include "lib/uffd.h"
#include "lib/worker.h"

enum { HANDLERS_QUEUE = 128 };

/* Something to do: a fault to serve, or pages to bring in that were taken for it (FILLING; whoever gets the work owns them). */
struct work {
	bool is_fault;
	struct uffd_fault fault;
	struct fillset fill;
};

struct handlers {
	pthread_mutex_t lock; /* Protects: queue, head, count, idle, leading */
	pthread_cond_t more;
	struct work queue[HANDLERS_QUEUE];
	unsigned head, count;
	unsigned idle; /* handlers that wait for work */
	bool leading;  /* one of them reads faults */
	bool ready;    /* lock and more are there */
};

/* Starts the threads, with the workers that they have. On error nothing is left. Threads: the service. */
enum secpool_error handlers_start(struct secpool *pool) MUST_USE;

/* Ends them when all that was given to them is done. */
void handlers_stop(struct secpool *pool);

/* Gives pages to a handler that has nothing to do; false if there is none, and they stay the caller's. Threads: workers. */
bool handlers_share(struct secpool *pool, const struct fillset *fill);

/* A guest whose descriptor does not work has its fault served by a handler. Waits for nothing. Threads: guests. */
void handlers_delegate(struct secpool *pool, const struct uffd_fault *fault);

/* Returns when no pages of the region wait for a handler to bring them in: who has them in hand is inside. Threads: the service. */
void handlers_await_region(struct secpool *pool, const struct secpool_region *region);

/* Whether no pages wait for a handler to bring them in. Threads: the service. */
bool handlers_idle_of_fills(struct secpool *pool);

/* The worker will be busy for long: if it leads, another handler shall read faults meanwhile. Threads: workers. */
void handlers_step_down(struct worker *worker);

#endif
