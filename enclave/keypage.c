/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/keypage.h"

#include <string.h>

#include "enclave/secmem.h"
#include "lib/base/buf.h"
#include "lib/wire/msg.h"

/* "secpool key page, layout 2" */
static const uint8_t magic[8] = {'S', 'P', 'K', 'E', 'Y', 'P', 'G', '2'};

/* docs/page-format.md, "Keys" */
enum { ENGINE_OFFSET = 132 };

void keypage_put(void *page, const struct pagecipher_binding *binding, uint32_t protection,
	enum keypage_engine engine, const struct region_keys *keys)
{
	struct buf_writer w = {.bytes = page, .capacity = KEYPAGE_BYTES};

	buf_put(&w, magic, sizeof magic);
	buf_put_number(&w, binding->region, 8);
	buf_put_number(&w, binding->epoch, 8);
	buf_put_number(&w, binding->page_bytes, 8);
	buf_put_number(&w, protection, 4);
	buf_put(&w, keys->xts, sizeof keys->xts);
	buf_put(&w, keys->tag, sizeof keys->tag);
	buf_put_number(&w, engine, 4);
	buf_put(&w, keys->owner, sizeof keys->owner);
	buf_put(&w, keys->root, sizeof keys->root);
	secmem_wipe((uint8_t *)page + w.used, KEYPAGE_BYTES - w.used);
}

enum keypage_engine keypage_engine(const void *page)
{
	struct buf_reader r = {.bytes = (const uint8_t *)page + ENGINE_OFFSET, .count = 4};

	/* what is not known is never less strict */
	return buf_get_number(&r, 4) == KEYPAGE_ANY ? KEYPAGE_ANY : KEYPAGE_OPENSSL;
}

enum secpool_error keypage_get(
	const void *page, const struct pagecipher_binding *expect, struct region_keys *ret_keys)
{
	struct buf_reader r = {.bytes = page, .count = KEYPAGE_BYTES};
	uint8_t found[sizeof magic];
	struct pagecipher_binding binding;
	uint64_t protection;

	buf_get(&r, found, sizeof found);
	binding.region = buf_get_number(&r, 8);
	binding.epoch = buf_get_number(&r, 8);
	binding.page_bytes = buf_get_number(&r, 8);
	protection = buf_get_number(&r, 4);
	for (size_t i = 0; i < sizeof magic; i++) {
		if (found[i] != magic[i])
			return err_set(SECPOOL_E_KEY_GONE, "the key's descriptor holds no key");
	}
	if (binding.region != expect->region || binding.epoch != expect->epoch ||
		binding.page_bytes != expect->page_bytes || protection != MSG_PROTECTION_XTS_GMAC)
		return err_set(
			SECPOOL_E_KEY_GONE, "a key for another region, epoch or page size came");
	buf_get(&r, ret_keys->xts, sizeof ret_keys->xts);
	buf_get(&r, ret_keys->tag, sizeof ret_keys->tag);
	buf_get_number(&r, 4); /* keypage_engine */
	buf_get(&r, ret_keys->owner, sizeof ret_keys->owner);
	buf_get(&r, ret_keys->root, sizeof ret_keys->root);
	return SECPOOL_OK;
}
