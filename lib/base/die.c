/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/die.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "lib/base/log.h"

_Noreturn void die(const char *event, const char *format, ...)
{
	char text[ERR_DETAIL_BYTES];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	log_event(LOG_LEVEL_ERROR, event, "%s", text);
	_exit(1);
}
