/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Work that may wait (TPMs, copies of media), done on a few threads so that the event loop never
 * waits.
 *
 * A piece of work is embedded in its owner's struct. From work_start until `done` is called it
 * belongs to the threads; `run` is called on one of them, `done` later on the loop. Threads: all
 * functions are for the loop's thread.
 */
#ifndef SECPOOL_HOTPLUG_WORK_H
#define SECPOOL_HOTPLUG_WORK_H

#include <systemd/sd-event.h>

#include "lib/base/err.h"

/* The most threads of one struct work. */
enum { WORK_THREADS_MOST = 8 };

struct work;

struct work_item {
	void (*run)(struct work_item *item);  /* on a thread; may wait, but has an end */
	void (*done)(struct work_item *item); /* on the loop; may free the item or start it again */
	struct work_item *next;
};

/* threads: how many pieces may run at once, 1 to WORK_THREADS_MOST; the others wait in order.
 * Errors: SECPOOL_E_SYSTEM, SECPOOL_E_NO_MEMORY. */
enum secpool_error work_new(sd_event *loop, unsigned threads, struct work **ret_work) MUST_USE;

/* Hands over a piece of work; run and done must be set. */
void work_start(struct work *work, struct work_item *item);

/* Waits until what was started has run, calls its done, ends the threads. What done starts is run
 * as well. NULL is allowed. */
void work_free(struct work *work);

#endif
