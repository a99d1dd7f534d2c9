/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/size.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static const char suffixes[] = "KMGT";

/* Reads the digits; false on overflow or when there is none. */
static bool read_digits(const char **at, unsigned base, uint64_t *value)
{
	const char *start = *at;

	*value = 0;
	for (; isxdigit((unsigned char)**at); (*at)++) {
		int c = tolower((unsigned char)**at);
		unsigned digit = (unsigned)(c <= '9' ? c - '0' : c - 'a' + 10);

		if (digit >= base)
			break;
		if (__builtin_mul_overflow(*value, base, value) ||
			__builtin_add_overflow(*value, digit, value))
			return false;
	}
	return *at > start;
}

enum secpool_error size_parse(const char *text, uint64_t *ret_bytes)
{
	const char *at = text, *suffix;
	bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
	uint64_t value;

	if (hex)
		at += 2;
	if (!read_digits(&at, hex ? 16 : 10, &value))
		goto bad;
	suffix = *at && !hex ? strchr(suffixes, toupper((unsigned char)*at)) : NULL;
	if (suffix) {
		unsigned shift = 10 * (unsigned)(suffix - suffixes + 1);

		if (value > UINT64_MAX >> shift)
			goto bad;
		value <<= shift;
		at++;
		if (strcmp(at, "iB") == 0 || strcmp(at, "B") == 0)
			at += strlen(at);
	}
	if (*at)
		goto bad;
	*ret_bytes = value;
	return SECPOOL_OK;
bad:
	return err_set(SECPOOL_E_INVALID,
		"'%.40s' is no size: expected bytes as 4096, 512M, 4G or 0x200000", text);
}

const char *size_format(uint64_t bytes, char *text)
{
	unsigned power = 0;

	while (power < 4 && bytes >> (10 * (power + 1)))
		power++;
	if (power == 0) {
		snprintf(text, SIZE_TEXT_BYTES, "%u B", (unsigned)bytes);
	} else {
		double units = (double)bytes / (double)(1ull << (10 * power));
		bool whole = (bytes & ((1ull << (10 * power)) - 1)) == 0;

		snprintf(text, SIZE_TEXT_BYTES, whole ? "%.0f %ciB" : "%.1f %ciB", units,
			suffixes[power - 1]);
	}
	return text;
}
