/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/value.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/size.h"

enum { PCRS_MOST = 8 }; /* as TPM_PCRS_MOST */

enum secpool_error value_refuse(
	const struct value_source *source, const char *path, const char *format, ...)
{
	char text[ERR_DETAIL_BYTES];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	return err_set(SECPOOL_E_POLICY, "%s:%u: %s: %s", source->name,
		lines_of(source->lines, path), path, text);
}

const char *value_path(char path[VALUE_PATH_BYTES], const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(path, VALUE_PATH_BYTES, format, args);
	va_end(args);
	return path;
}

enum secpool_error value_name(const struct value_source *source, const char *path, const char *text,
	char name[MODEL_NAME_BYTES])
{
	size_t length = strlen(text);

	if (length == 0 || length >= MODEL_NAME_BYTES)
		return value_refuse(source, path, "a name has 1 to %d bytes", MODEL_NAME_BYTES - 1);
	for (size_t i = 0; i < length; i++)
		if (!isalnum((unsigned char)text[i]) && !strchr("_.-", text[i]))
			return value_refuse(source, path,
				"'%s' is no name: expected only A-Z a-z 0-9 _ . -", text);
	memcpy(name, text, length + 1);
	return SECPOOL_OK;
}

enum secpool_error value_number(const struct value_source *source, const char *path,
	const char *text, uint64_t most, uint64_t *ret_value)
{
	unsigned long long value;
	char *end;

	if (!text)
		return SECPOOL_OK;
	if (!isdigit((unsigned char)text[0]))
		return value_refuse(source, path, "expected a number, found '%.40s'", text);
	value = strtoull(text, &end, 10);
	if (*end)
		return value_refuse(source, path, "expected a number, found '%.40s'", text);
	if (strlen(text) > 19 || value > most)
		return value_refuse(source, path, "expected at most %llu, found %.40s",
			(unsigned long long)most, text);
	*ret_value = value;
	return SECPOOL_OK;
}

enum secpool_error value_size(
	const struct value_source *source, const char *path, const char *text, uint64_t *ret_bytes)
{
	char why[ERR_DETAIL_BYTES];

	if (size_parse(text, ret_bytes) == SECPOOL_OK)
		return SECPOOL_OK;
	snprintf(why, sizeof why, "%s", err_detail());
	return value_refuse(source, path, "%s", why);
}

enum secpool_error value_pcrs(const struct value_source *source, const char *key,
	char *const *texts, unsigned count, uint32_t *ret_mask)
{
	uint32_t mask = 0;
	char path[VALUE_PATH_BYTES];

	if (count > PCRS_MOST)
		return value_refuse(source, key, "expected at most %d PCRs", PCRS_MOST);
	for (unsigned i = 0; i < count; i++) {
		uint64_t pcr = 0;
		enum secpool_error error = value_number(
			source, value_path(path, "%s[%u]", key, i), texts[i], VALUE_PCRS - 1, &pcr);

		if (error)
			return error;
		if (pcr == 16 || pcr == 23) /* TCG PC Client Platform TPM Profile 1.05, 4.6.2 */
			return value_refuse(source, path,
				"anyone can reset PCR %u: expected another one", (unsigned)pcr);
		if (mask & 1u << pcr)
			return value_refuse(source, path, "PCR %u is there twice", (unsigned)pcr);
		mask |= 1u << pcr;
	}
	if (mask)
		*ret_mask = mask;
	return SECPOOL_OK;
}
