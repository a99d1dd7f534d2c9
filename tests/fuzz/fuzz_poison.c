/* SPDX-License-Identifier: Apache-2.0 */
/* libFuzzer: any text as what tracefs printed of a poison list. There are never more places than lines that name the list. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "hotplug/poison.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
	char *text = malloc(count + 1);
	uint32_t lists = 0;

	if (!text)
		abort();
	memcpy(text, bytes, count);
	text[count] = '\0';
	for (const char *at = text; (at = strstr(at, "trace_type=List")) != NULL; at++)
		lists++;
	if (poison_count(text, "mem0") > lists)
		abort();
	free(text);
	return 0;
}
