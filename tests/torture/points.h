/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stopping a process at a named point. A small file that the torture makes is mapped by it, its clients (by fork), and the daemons that are built with these functions (by the variable
 * POINTS_VARIABLE in their environment). A process that reaches the point that is armed stops there until it is told to go on; all others pass. Only programs that are built for the torture have
 * points: secpool-torture itself, and the daemons below build/tests/torture.
 * Threads: any. Nothing here allocates or takes a lock.
 */
#ifndef SECPOOL_TESTS_TORTURE_POINTS_H
#define SECPOOL_TESTS_TORTURE_POINTS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define POINTS_VARIABLE "SECPOOL_TORTURE_POINTS"

enum point {
	POINT_NONE = 0,
#define POINT(name, step, place, process, by) POINT_##name,
#include "tests/torture/points.def"
#undef POINT
	POINTS,
};

enum point_process { POINT_CLIENT, POINT_KEYMGRD, POINT_HOTPLUGD };
enum point_by { POINT_BY_WORK, POINT_BY_CREATE, POINT_BY_PULL, POINT_BY_ATTEST, POINT_BY_CUT, POINT_BY_DRAIN, POINT_BY_SCRUB, POINT_BY_ROTATE, POINT_BY_ANCHOR };

enum { POINTS_NO_DEVICE = 0xffff, POINTS_HOLD_S = 25 };

/* The file. */
struct points {
	_Atomic uint32_t armed;   /* enum point */
	_Atomic uint32_t reached; /* by whom: a process id */
	_Atomic uint32_t device;  /* that the point is about: the number in its id */
	_Atomic uint32_t go_on;
};

/* NULL where there is no file. */
extern struct points *points_file;

/* The process is at the point; it may stop here. device: as in struct points. */
void points_stop(enum point point, uint32_t device);

static inline void points_at(enum point point)
{
	if (points_file && atomic_load_explicit(&points_file->armed, memory_order_relaxed) == (uint32_t)point)
		points_stop(point, POINTS_NO_DEVICE);
}

#endif
