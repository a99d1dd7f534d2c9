/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A daemon's log: one line an event on stderr, "LEVEL program: event key=value ...", which systemd and
 * `secpool up` collect. A library logs nothing above debug. There is no function that dumps bytes.
 *
 * Threads: any; a line is written with one system call.
 */
#ifndef SECPOOL_BASE_LOG_H
#define SECPOOL_BASE_LOG_H

#include <stdint.h>

#include "lib/base/err.h"

enum log_level { LOG_LEVEL_ERROR = 3, LOG_LEVEL_WARNING = 4, LOG_LEVEL_INFO = 6, LOG_LEVEL_DEBUG = 7 };

/* Sets the name at the start of each line (borrowed, not copied) and the least important level shown. */
void log_init(const char *program, enum log_level most);

/* One line: event is one word with dashes; the rest key=value. No secret, no page contents. */
void log_event(enum log_level level, const char *event, const char *format, ...) PRINTF_LIKE(3, 4);

/* The same for an error: adds error=NAME and the thread's detail. */
void log_error(const char *event, enum secpool_error error);

/*
 * A limit for lines that a peer or a device can cause: true at most `burst` times in each `period_ns`.
 * Threads: one at a time for each limit.
 */
struct log_limit {
	uint64_t period_ns;
	unsigned burst;
	uint64_t start_ns;
	unsigned used;
};
int log_allowed(struct log_limit *limit);

#endif
