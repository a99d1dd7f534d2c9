/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the benches of device loss share: regions of each redundancy, and the emulated devices under them, pulled and plugged. A pull is the moment at which the media file is
 * truncated, by the bench itself: hotplugd finds it as it would find anybody's.
 *
 * They need `secpool up` with seven devices. Threads: one, unless it says otherwise.
 */
#ifndef SECPOOL_TESTS_REMOVAL_H
#define SECPOOL_TESTS_REMOVAL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/base/err.h"
#include "lib/secpool.h"
#include "tests/bench/bench.h"

/* A kind of region. */
struct removal_kind {
	const char *name; /* "mirror:2" */
	enum secpool_redundancy redundancy;
	unsigned copies, data, parity;
	enum secpool_on_loss on_loss;
	int (*refill)(void *arg, size_t offset, void *buffer, size_t bytes);
};

/* Opens a region of the kind in the pool. Errors: bench_failed's. */
int removal_open_region(struct bench *bench, struct secpool *pool, const struct removal_kind *kind, size_t bytes, size_t page_bytes, struct secpool_region **ret_region) MUST_USE;

/* The device that has the most of what is in use, by its listing: its id, and those bytes. -1: there is none. */
int removal_find_device(char id[SECPOOL_NAME_BYTES], uint64_t *ret_used_bytes) MUST_USE;

/* Truncates the media of a device at a moment of its own choice, in a thread: a device does not wait for its readers. */
struct removal_puller {
	int fd;
	_Atomic uint64_t begun_ns; /* clock_now_ns of the pull; 0 before */
	bool failed;
};
int removal_open(struct removal_puller *puller, const char *id) MUST_USE;
void *removal_pull(void *puller);
void removal_close(struct removal_puller *puller);

/* Waits until no device has anything in use or to be scrubbed. */
int removal_settle(void) MUST_USE;

/* `secpool device plug`; waits until the device is online. */
int removal_plug(const char *id) MUST_USE;

/* The time of the next event of a type in nanoseconds of clock_now_ns, waiting at most ms; 0: it did not come. Drops others. */
uint64_t removal_await(struct secpool *pool, enum secpool_event_type type, unsigned ms);

/* Forgets the events so far. */
void removal_forget_events(struct secpool *pool);

#endif
