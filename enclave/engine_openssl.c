/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/engine.h"

#include <openssl/crypto.h>
#include <string.h>

#include "enclave/gmac.h"
#include "enclave/secmem.h"
#include "enclave/xts.h"

/* OpenSSL's contexts change with every call, so each worker has its own. */
struct slot {
	struct xts xts;
	struct gmac gmac;
};

struct engine_key {
	unsigned workers;
	struct slot slots[];
};

static bool usable(void)
{
	return true;
}

static void key_free(struct engine_key *key)
{
	if (!key)
		return;
	for (unsigned i = 0; i < key->workers; i++) {
		xts_done(&key->slots[i].xts);
		gmac_done(&key->slots[i].gmac);
	}
	secmem_free(key);
}

static enum secpool_error key_new(const struct region_keys *keys, size_t page_bytes,
	unsigned workers, struct engine_key **ret_key)
{
	struct engine_key *key = secmem_new(sizeof *key + workers * sizeof key->slots[0]);
	enum secpool_error error = SECPOOL_OK;

	(void)page_bytes;
	if (!key)
		return err_set(SECPOOL_E_NO_LOCKED_MEMORY, "no secret memory for a page cipher");
	key->workers = workers;
	for (unsigned i = 0; i < workers && !error; i++) {
		error = xts_init(&key->slots[i].xts, keys->xts);
		if (!error)
			error = gmac_init(&key->slots[i].gmac, keys->tag);
	}
	if (error)
		key_free(key);
	else
		*ret_key = key;
	return error;
}

static enum secpool_error seal(struct engine_key *key, unsigned worker, const uint8_t tweak[16],
	const void *from, void *to, size_t bytes)
{
	return xts_seal(&key->slots[worker].xts, tweak, from, to, bytes);
}

static enum secpool_error open(struct engine_key *key, unsigned worker, const uint8_t tweak[16],
	const void *from, void *to, size_t bytes)
{
	return xts_open(&key->slots[worker].xts, tweak, from, to, bytes);
}

static enum secpool_error tag_of(struct engine_key *key, unsigned worker, const uint8_t nonce[12],
	const void *data, size_t bytes, uint8_t ret_tag[16])
{
	return gmac_tag(&key->slots[worker].gmac, nonce, data, bytes, ret_tag);
}

static enum secpool_error page_seal(struct engine_key *key, unsigned worker,
	const uint8_t tweak[16], const void *from, void *to, size_t bytes, uint8_t ret_tag[16])
{
	enum secpool_error error = seal(key, worker, tweak, from, to, bytes);

	return error ? error : tag_of(key, worker, tweak, to, bytes, ret_tag);
}

static enum secpool_error page_open(struct engine_key *key, unsigned worker,
	const uint8_t tweak[16], const void *from, void *to, size_t bytes, const uint8_t tag[16])
{
	enum secpool_error error = gmac_check(&key->slots[worker].gmac, tweak, from, bytes, tag);

	if (error)
		OPENSSL_cleanse(to, bytes); /* as the engines do that decrypt beside the check */
	return error ? error : open(key, worker, tweak, from, to, bytes);
}

/* Into a buffer that is then read by functions of another library: nothing is loaded again from where it was. */
static void keep(void *kept, const void *from, size_t bytes)
{
	if (kept != from)
		memcpy(kept, from, bytes);
}

static enum secpool_error page_open_live(struct engine_key *key, unsigned worker,
	const uint8_t tweak[16], const void *from, void *kept, void *to, size_t bytes,
	const uint8_t tag[16])
{
	keep(kept, from, bytes);
	return page_open(key, worker, tweak, kept, to, bytes, tag);
}

static enum secpool_error tag_live(struct engine_key *key, unsigned worker, const uint8_t nonce[12],
	const void *from, void *kept, size_t bytes, uint8_t ret_tag[16])
{
	keep(kept, from, bytes);
	return tag_of(key, worker, nonce, kept, bytes, ret_tag);
}

const struct engine engine_openssl = {
	.name = "openssl",
	.usable = usable,
	.key_new = key_new,
	.key_free = key_free,
	.xts_seal = seal,
	.xts_open = open,
	.tag = tag_of,
	.page_seal = page_seal,
	.page_open = page_open,
	.page_open_live = page_open_live,
	.tag_live = tag_live,
};
