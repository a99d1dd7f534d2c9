/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "lib/base/clock.h"

enum { LINE_BYTES = 1024 };

static const char *program_name = "secpool";
static enum log_level most_shown = LOG_LEVEL_INFO;

void log_init(const char *program, enum log_level most)
{
	program_name = program;
	most_shown = most;
}

void log_event(enum log_level level, const char *event, const char *format, ...)
{
	char line[LINE_BYTES];
	va_list args;
	int used;

	if (level > most_shown)
		return;
	/* <N> is sd-daemon(3)'s mark of the level, understood by the journal */
	used = snprintf(line, sizeof line, "<%d>%s: %s ", (int)level, program_name, event);
	if (used < 0 || (size_t)used >= sizeof line - 2)
		return;
	va_start(args, format);
	int more = vsnprintf(line + used, sizeof line - (size_t)used - 1, format, args);
	va_end(args);
	if (more < 0)
		return;
	used += more;
	if ((size_t)used > sizeof line - 2)
		used = (int)sizeof line - 2;
	for (int i = 0; i < used; i++) /* a peer's text can't start a line of its own */
		if ((unsigned char)line[i] < ' ' || line[i] == 0x7f)
			line[i] = ' ';
	line[used++] = '\n';
	if (write(STDERR_FILENO, line, (size_t)used) < 0)
		return; /* nobody is left to tell */
}

void log_error(const char *event, enum secpool_error error)
{
	log_event(LOG_LEVEL_ERROR, event, "error=%s detail=\"%s\"", err_name(error), err_detail());
}

int log_allowed(struct log_limit *limit)
{
	uint64_t now = clock_now_ns();

	if (now - limit->start_ns > limit->period_ns) {
		limit->start_ns = now;
		limit->used = 0;
	}
	return limit->used++ < limit->burst;
}
