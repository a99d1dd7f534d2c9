/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a message: refused with nothing changed, or a message that encodes to the very same bytes. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lib/wire/msg.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
	static struct msg msg, before;
	uint8_t again[MSG_BYTES_MAX];
	size_t again_count;

	memset(&msg, 0x77, sizeof msg);
	memset(&before, 0x77, sizeof before);
	if (msg_decode(bytes, count, &msg) != SECPOOL_OK) {
		if (memcmp(&msg, &before, sizeof msg) != 0)
			abort();
		return 0;
	}
	if (strcmp(msg_name(msg.type), "?") == 0 ||
		msg_encode(&msg, again, sizeof again, &again_count) != SECPOOL_OK ||
		again_count != count || memcmp(again, bytes, count) != 0)
		abort();
	return 0;
}
