/* SPDX-License-Identifier: Apache-2.0 */
/* libFuzzer: any bytes as identity.json give an identity that holds its rules, or an error. */
#include <stdlib.h>
#include <string.h>

#include "hotplug/identity.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
	struct identity identity;
	char *text = malloc(count + 1); /* as os_read_file gives it: NUL beyond the end */

	if (!text)
		abort();
	memcpy(text, bytes, count);
	text[count] = '\0';
	if (identity_parse(text, count, "fuzz", "dev0", &identity) == SECPOOL_OK &&
		(strcmp(identity.id, "dev0") != 0 || identity.bytes == 0 ||
			identity.bytes % IDENTITY_UNIT_BYTES != 0 ||
			identity.bytes > IDENTITY_CAPACITY_BYTES_MOST || !identity.firmware[0] ||
			!identity.serial[0] || !identity.domain[0] ||
			(unsigned)identity.tpm > IDENTITY_TPM_SWTPM))
		abort();
	free(text);
	return 0;
}
