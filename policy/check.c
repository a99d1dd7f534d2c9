/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/check.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/size.h"

enum secpool_error check_refuse(
	const struct check_source *source, const char *path, const char *format, ...)
{
	char text[ERR_DETAIL_BYTES];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	return err_set(SECPOOL_E_POLICY, "%s:%u: %s: %s", source->name,
		lines_of(source->lines, path), path, text);
}

const char *check_path_of(char path[CHECK_PATH_BYTES], const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(path, CHECK_PATH_BYTES, format, args);
	va_end(args);
	return path;
}

enum secpool_error check_name(const struct check_source *source, const char *path, const char *text,
	char name[MODEL_NAME_BYTES])
{
	size_t length = strlen(text);

	if (length == 0 || length >= MODEL_NAME_BYTES)
		return check_refuse(source, path, "a name has 1 to %d bytes", MODEL_NAME_BYTES - 1);
	for (size_t i = 0; i < length; i++)
		if (!isalnum((unsigned char)text[i]) && !strchr("_.-", text[i]))
			return check_refuse(source, path,
				"'%s' is no name: expected only A-Z a-z 0-9 _ . -", text);
	memcpy(name, text, length + 1);
	return SECPOOL_OK;
}

enum secpool_error check_number(const struct check_source *source, const char *path,
	const char *text, uint64_t most, uint64_t *ret_value)
{
	unsigned long long value;
	char *end;

	if (!text)
		return SECPOOL_OK;
	if (!isdigit((unsigned char)text[0]))
		return check_refuse(source, path, "expected a number, found '%.40s'", text);
	value = strtoull(text, &end, 10);
	if (*end)
		return check_refuse(source, path, "expected a number, found '%.40s'", text);
	if (strlen(text) > 19 || value > most)
		return check_refuse(source, path, "expected at most %llu, found %.40s",
			(unsigned long long)most, text);
	*ret_value = value;
	return SECPOOL_OK;
}

enum secpool_error check_size(
	const struct check_source *source, const char *path, const char *text, uint64_t *ret_bytes)
{
	char why[ERR_DETAIL_BYTES];

	if (size_parse(text, ret_bytes) == SECPOOL_OK)
		return SECPOOL_OK;
	snprintf(why, sizeof why, "%s", err_detail());
	return check_refuse(source, path, "%s", why);
}
