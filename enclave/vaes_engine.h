/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an engine's table names, on top of vaes_kernel.h: an engine_vaes*.c sets VAES_BITS and includes this.
 * Threads: as engine.h. Every function of the table clears all vector registers, and the stack that was worked on, before it returns.
 */
#ifndef SECPOOL_ENCLAVE_VAES_ENGINE_H
#define SECPOOL_ENCLAVE_VAES_ENGINE_H

#include "enclave/vaes_kernel.h"

#ifdef __x86_64__

#include <openssl/crypto.h>

#include "enclave/cpu.h"
#include "enclave/engine.h"
#include "enclave/secmem.h"
#include "enclave/xts.h"

enum { TAG_BYTES = 16 };

struct engine_key {
	struct vaes_key key;
};

static void key_free(struct engine_key *key)
{
	secmem_free(key);
}

VAES_ENTRY enum secpool_error key_new(const struct region_keys *keys, size_t page_bytes,
	unsigned workers, struct engine_key **ret_key)
{
	struct engine_key *key = secmem_new(sizeof *key);

	(void)page_bytes; /* the work on a page needs no room beside the key: any worker, any size */
	(void)workers;
	if (!key)
		return err_set(SECPOOL_E_NO_LOCKED_MEMORY, "no secret memory for a page cipher");
	vaes_key_set(&key->key, keys);
	*ret_key = key;
	return leave(SECPOOL_OK);
}

/* A stolen block (IEEE 1619-2018 5.3.2) needs the last whole one beside it. */
VAES_WIDE enum secpool_error xts(const struct engine_key *key, bool opening,
	const uint8_t tweak[16], const void *from, void *to, size_t bytes)
{
	size_t groups = bytes / GROUP_BYTES, end = bytes % GROUP_BYTES, done;
	struct pass pass;

	if (bytes < XTS_UNIT_BYTES_LEAST || bytes > XTS_UNIT_BYTES_MOST)
		return err_set(SECPOOL_E_INVALID, "an XTS data unit of %zu bytes", bytes);
	if (end > 0 && end < VAES_BLOCK_BYTES)
		groups--;
	done = groups * GROUP_BYTES;
	pass = cipher_groups(&key->key, opening, HASH_NOTHING,
		vaes_encrypt(key->key.tweak, vaes_load_fresh(tweak)), from, NULL, to, groups);
	if (bytes > done)
		vaes_key_xts_end(&key->key, opening, pass.tweak, (const uint8_t *)from + done,
			(uint8_t *)to + done, bytes - done);
	return SECPOOL_OK;
}

VAES_INSIDE enum secpool_error seal_inside(const struct engine_key *key, const uint8_t tweak[16],
	const void *from, void *to, size_t bytes)
{
	return xts(key, false, tweak, from, to, bytes);
}

VAES_ENTRY enum secpool_error seal(struct engine_key *key, unsigned worker, const uint8_t tweak[16],
	const void *from, void *to, size_t bytes)
{
	(void)worker;
	return leave(seal_inside(key, tweak, from, to, bytes));
}

VAES_INSIDE enum secpool_error open_inside(const struct engine_key *key, const uint8_t tweak[16],
	const void *from, void *to, size_t bytes)
{
	return xts(key, true, tweak, from, to, bytes);
}

VAES_ENTRY enum secpool_error open(struct engine_key *key, unsigned worker, const uint8_t tweak[16],
	const void *from, void *to, size_t bytes)
{
	(void)worker;
	return leave(open_inside(key, tweak, from, to, bytes));
}

VAES_INSIDE enum secpool_error tag_inside(const struct engine_key *key, const uint8_t nonce[12],
	const void *data, size_t bytes, uint8_t ret_tag[TAG_BYTES])
{
	__m128i sum;

	if (bytes > 1 << 30)
		return err_set(SECPOOL_E_INVALID, "a GMAC over %zu bytes", bytes);
	sum = hash_bytes(&key->key, data, bytes);
	sum = vaes_tag(&key->key, sum, vaes_nonce_stream(&key->key, nonce), bytes);
	_mm_storeu_si128((void *)ret_tag, sum);
	return SECPOOL_OK;
}

VAES_ENTRY enum secpool_error tag_of(struct engine_key *key, unsigned worker,
	const uint8_t nonce[12], const void *data, size_t bytes, uint8_t ret_tag[TAG_BYTES])
{
	(void)worker;
	return leave(tag_inside(key, nonce, data, bytes, ret_tag));
}

VAES_WIDE void page_pass(const struct vaes_key *key, bool opening, enum hashed hashed,
	const uint8_t tweak[16], const void *from, void *kept, void *to, size_t bytes,
	uint8_t ret_tag[TAG_BYTES])
{
	/* side by side: the CPU runs both chains of rounds at once */
	const __m128i stream = vaes_nonce_stream(key, tweak);
	const __m128i start = vaes_encrypt(key->tweak, vaes_load_fresh(tweak));
	struct pass pass =
		cipher_groups(key, opening, hashed, start, from, kept, to, bytes / GROUP_BYTES);

	_mm_storeu_si128((void *)ret_tag, vaes_tag(key, pass.sum, stream, bytes));
}

static bool is_page(size_t bytes)
{
	return bytes > 0 && bytes % ENGINE_PAGE_UNIT_BYTES == 0 && bytes <= XTS_UNIT_BYTES_MOST;
}

VAES_INSIDE enum secpool_error page_seal_inside(const struct engine_key *key,
	const uint8_t tweak[16], const void *from, void *to, size_t bytes,
	uint8_t ret_tag[TAG_BYTES])
{
	if (!is_page(bytes))
		return err_set(SECPOOL_E_INVALID, "a page of %zu bytes", bytes);
	page_pass(&key->key, false, HASH_OUTPUT, tweak, from, NULL, to, bytes, ret_tag);
	return SECPOOL_OK;
}

VAES_ENTRY enum secpool_error page_seal(struct engine_key *key, unsigned worker,
	const uint8_t tweak[16], const void *from, void *to, size_t bytes,
	uint8_t ret_tag[TAG_BYTES])
{
	(void)worker;
	return leave(page_seal_inside(key, tweak, from, to, bytes, ret_tag));
}

/* Constant time. The right tag of forged data is a forgery ready for use: it is wiped. */
static bool is_right(uint8_t right[TAG_BYTES], const uint8_t tag[TAG_BYTES])
{
	bool same = CRYPTO_memcmp(right, tag, TAG_BYTES) == 0;

	OPENSSL_cleanse(right, TAG_BYTES);
	return same;
}

/* The plaintext of a page whose tag is not known yet goes where the caller keeps it from everybody's eyes until the tag is right; it is wiped when it is not. */
static enum secpool_error judge(
	uint8_t right[TAG_BYTES], const uint8_t tag[TAG_BYTES], void *to, size_t bytes)
{
	if (is_right(right, tag))
		return SECPOOL_OK;
	OPENSSL_cleanse(to, bytes);
	return err_set(SECPOOL_E_INTEGRITY, "a tag does not match its data");
}

VAES_INSIDE enum secpool_error page_open_inside(const struct engine_key *key,
	const uint8_t tweak[16], const void *from, void *to, size_t bytes,
	const uint8_t tag[TAG_BYTES])
{
	uint8_t right[TAG_BYTES];

	if (!is_page(bytes))
		return err_set(SECPOOL_E_INVALID, "a page of %zu bytes", bytes);
	page_pass(&key->key, true, HASH_INPUT, tweak, from, NULL, to, bytes, right);
	return judge(right, tag, to, bytes);
}

VAES_ENTRY enum secpool_error page_open(struct engine_key *key, unsigned worker,
	const uint8_t tweak[16], const void *from, void *to, size_t bytes,
	const uint8_t tag[TAG_BYTES])
{
	(void)worker;
	return leave(page_open_inside(key, tweak, from, to, bytes, tag));
}

VAES_INSIDE enum secpool_error page_open_live_inside(const struct engine_key *key,
	const uint8_t tweak[16], const void *from, void *kept, void *to, size_t bytes,
	const uint8_t tag[TAG_BYTES])
{
	uint8_t right[TAG_BYTES];

	if (!is_page(bytes))
		return err_set(SECPOOL_E_INVALID, "a page of %zu bytes", bytes);
	page_pass(&key->key, true, HASH_KEPT, tweak, from, kept, to, bytes, right);
	return judge(right, tag, to, bytes);
}

VAES_ENTRY enum secpool_error page_open_live(struct engine_key *key, unsigned worker,
	const uint8_t tweak[16], const void *from, void *kept, void *to, size_t bytes,
	const uint8_t tag[TAG_BYTES])
{
	(void)worker;
	return leave(page_open_live_inside(key, tweak, from, kept, to, bytes, tag));
}

VAES_INSIDE enum secpool_error tag_live_inside(const struct engine_key *key,
	const uint8_t nonce[12], const void *from, void *kept, size_t bytes,
	uint8_t ret_tag[TAG_BYTES])
{
	__m128i sum;

	if (!is_page(bytes))
		return err_set(SECPOOL_E_INVALID, "a page of %zu bytes", bytes);
	sum = hash_live(&key->key, from, kept, bytes / GROUP_BYTES);
	sum = vaes_tag(&key->key, sum, vaes_nonce_stream(&key->key, nonce), bytes);
	_mm_storeu_si128((void *)ret_tag, sum);
	return SECPOOL_OK;
}

VAES_ENTRY enum secpool_error tag_live(struct engine_key *key, unsigned worker,
	const uint8_t nonce[12], const void *from, void *kept, size_t bytes,
	uint8_t ret_tag[TAG_BYTES])
{
	(void)worker;
	return leave(tag_live_inside(key, nonce, from, kept, bytes, ret_tag));
}

#define VAES_ENGINE(engine_name, engine_shown, engine_usable)                                      \
	{                                                                                          \
		.name = engine_name, .shown = engine_shown, .usable = engine_usable,               \
		.key_new = key_new, .key_free = key_free, .xts_seal = seal, .xts_open = open,      \
		.tag = tag_of, .page_seal = page_seal, .page_open = page_open,                     \
		.page_open_live = page_open_live, .tag_live = tag_live,                                      \
	}

#endif
#endif
