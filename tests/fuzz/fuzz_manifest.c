/* SPDX-License-Identifier: Apache-2.0 */
/* A manifest as a hostile keymgrd may give it, were its root not looked at: what is taken says the same when it is written again. The first byte is the number of lanes. */
#include <stdlib.h>
#include <string.h>

#include "lib/manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

static void require(bool holds)
{
	if (!holds)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
	struct manifest_head head = {.region = 1, .epoch = 1, .page_bytes = 4096};
	uint8_t *again;
	uint64_t pages;

	if (count < 1 + MSG_MANIFEST_HEAD_BYTES)
		return 0;
	pages = (count - 1 - MSG_MANIFEST_HEAD_BYTES) / MSG_MANIFEST_PAGE_BYTES;
	head.lanes = bytes[0] % MSG_COPIES_MAX + 1;
	head.bytes = pages * head.page_bytes;
	(void)!manifest_check(bytes + 1, count - 1, &head);
	again = malloc(count);
	require(again != NULL);
	for (uint64_t i = 0; i < pages; i++) {
		const size_t at = MSG_MANIFEST_HEAD_BYTES + i * MSG_MANIFEST_PAGE_BYTES;
		struct manifest_page page;

		if (!manifest_get_page(bytes + 1, i, head.lanes, &page))
			continue;
		require((page.version == 0) == (page.copies == 0) &&
			page.copies >> head.lanes == 0);
		manifest_put_page(again, i, &page);
		require(memcmp(again + at, bytes + 1 + at, MSG_MANIFEST_PAGE_BYTES) == 0);
	}
	free(again);
	return 0;
}
