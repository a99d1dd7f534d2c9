/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/err.h"

#include <stdarg.h>
#include <stdio.h>

static _Thread_local char detail[ERR_DETAIL_BYTES];
static _Thread_local enum secpool_error last;

const char *err_text(enum secpool_error error)
{
	switch (error) {
#define TEXT(name, number, text)                                                                   \
	case name:                                                                                 \
		return text;
		SECPOOL_ERRORS(TEXT)
#undef TEXT
	}
	return "unknown error";
}

const char *err_name(enum secpool_error error)
{
	switch (error) {
#define NAME(name, number, text)                                                                   \
	case name:                                                                                 \
		return #name;
		SECPOOL_ERRORS(NAME)
#undef NAME
	}
	return "SECPOOL_E_?";
}

enum secpool_error err_from_number(unsigned number)
{
	switch (number) {
#define FROM(name, value, text)                                                                    \
	case value:                                                                                \
		return name;
		SECPOOL_ERRORS(FROM)
#undef FROM
	default:
		return SECPOOL_E_PROTOCOL;
	}
}

enum secpool_error err_set(enum secpool_error error, const char *format, ...)
{
	char text[ERR_DETAIL_BYTES]; /* an argument may be err_detail() itself */
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	snprintf(detail, sizeof detail, "%s", text);
	last = error;
	return error;
}

const char *err_detail(void)
{
	return detail;
}

enum secpool_error err_last(void)
{
	return last;
}

void err_clear(void)
{
	detail[0] = '\0';
	last = SECPOOL_OK;
}
