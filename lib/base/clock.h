/* SPDX-License-Identifier: Apache-2.0 */
/* The two clocks: a steady one for durations and deadlines, and the calendar for what people read. Threads: any. */
#ifndef SECPOOL_BASE_CLOCK_H
#define SECPOOL_BASE_CLOCK_H

#include <stdint.h>

enum { CLOCK_NS_PER_MS = 1000000 };
#define CLOCK_NS_PER_S 1000000000ull

/* Nanoseconds of CLOCK_MONOTONIC: the same in all processes of this boot. */
uint64_t clock_now_ns(void);

/* Nanoseconds since 1970 (CLOCK_REALTIME). Can step; never used for a deadline. */
uint64_t clock_calendar_ns(void);

/* Sleeps; returns early never (a signal only continues the sleep). */
void clock_sleep_ns(uint64_t ns);

#endif
