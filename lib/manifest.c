/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/manifest.h"

#include <string.h>

#include "lib/base/buf.h"
#include "lib/page.h"

/* "secpool sealed, layout 1" */
static const uint8_t magic[8] = {'S', 'P', 'S', 'E', 'A', 'L', 'D', '1'};

/* In an entry's first word: the version, and above it the copies. */
enum { COPIES_SHIFT = 56 };

static uint8_t *entry_of(uint8_t *manifest, uint64_t pgno)
{
	return manifest + MSG_MANIFEST_HEAD_BYTES + pgno * MSG_MANIFEST_PAGE_BYTES;
}

void manifest_put_head(uint8_t *manifest, const struct manifest_head *head)
{
	struct buf_writer w = {.bytes = manifest, .capacity = MSG_MANIFEST_HEAD_BYTES};

	memset(manifest, 0, MSG_MANIFEST_HEAD_BYTES);
	buf_put(&w, magic, sizeof magic);
	buf_put(&w, head->tenant, sizeof head->tenant);
	buf_put(&w, head->name, sizeof head->name);
	buf_put_number(&w, head->region, 8);
	buf_put_number(&w, head->epoch, 8);
	buf_put_number(&w, head->address, 8);
	buf_put_number(&w, head->bytes, 8);
	buf_put_number(&w, head->page_bytes, 8);
	buf_put_number(&w, head->lanes, 4);
}

void manifest_put_page(uint8_t *manifest, uint64_t pgno, const struct manifest_page *page)
{
	struct buf_writer w = {
		.bytes = entry_of(manifest, pgno), .capacity = MSG_MANIFEST_PAGE_BYTES};

	buf_put_number(&w, page->version | (uint64_t)page->copies << COPIES_SHIFT, 8);
	buf_put(&w, page->tag, sizeof page->tag);
	buf_put(&w, page->digest, sizeof page->digest);
}

enum secpool_error manifest_check(
	const uint8_t *manifest, size_t count, const struct manifest_head *expect)
{
	uint8_t head[MSG_MANIFEST_HEAD_BYTES];

	if (expect->page_bytes == 0 ||
		count != msg_manifest_bytes(expect->bytes, expect->page_bytes))
		return err_set(SECPOOL_E_INTEGRITY, "a manifest of %zu bytes for region %llu",
			count, (unsigned long long)expect->region);
	/* there is one way to write it */
	manifest_put_head(head, expect);
	if (memcmp(head, manifest, sizeof head) != 0)
		return err_set(SECPOOL_E_INTEGRITY,
			"the manifest is not of region %llu, '%s' of %s",
			(unsigned long long)expect->region, expect->name, expect->tenant);
	return SECPOOL_OK;
}

static bool is_zero(const void *bytes, size_t count)
{
	const uint8_t *at = bytes;

	while (count > 0 && *at == 0) {
		at++;
		count--;
	}
	return count == 0;
}

bool manifest_get_page(
	const uint8_t *manifest, uint64_t pgno, uint32_t lanes, struct manifest_page *ret_page)
{
	struct buf_reader r = {
		.bytes = manifest + MSG_MANIFEST_HEAD_BYTES + pgno * MSG_MANIFEST_PAGE_BYTES,
		.count = MSG_MANIFEST_PAGE_BYTES};
	uint64_t word = buf_get_number(&r, 8);
	struct manifest_page page = {.version = word & ((1ull << COPIES_SHIFT) - 1),
		.copies = (unsigned)(word >> COPIES_SHIFT)};

	buf_get(&r, page.tag, sizeof page.tag);
	buf_get(&r, page.digest, sizeof page.digest);
	if (page.version == 0) {
		if (page.copies != 0 || !is_zero(page.tag, sizeof page.tag) ||
			!is_zero(page.digest, sizeof page.digest))
			return false;
	} else if (page.version >= PAGE_KEY_BIT || page.copies == 0 || page.copies >> lanes) {
		return false;
	}
	*ret_page = page;
	return true;
}
