/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/engine.h"

#include <openssl/crypto.h>
#include <stdatomic.h>

static const struct engine *const engines[] = {
#ifdef __x86_64__
	&engine_vaes512, &engine_vaes256,
#endif
	&engine_openssl};

enum { ENGINES = sizeof engines / sizeof *engines };

/* Relaxed: engines are constants, nothing is published by either. */
static _Atomic(const struct engine *) chosen = &engine_openssl;
static atomic_bool openssl_demanded;

const struct engine *engine_at(size_t index)
{
	return index < ENGINES ? engines[index] : NULL;
}

static bool only_openssl(void)
{
	return atomic_load_explicit(&openssl_demanded, memory_order_relaxed);
}

const struct engine *engine_best(void)
{
	size_t i = 0;

	if (only_openssl())
		return &engine_openssl;
	while (!engines[i]->usable())
		i++; /* ends at OpenSSL, which every CPU runs */
	return engines[i];
}

void engine_demand_openssl(void)
{
	atomic_store_explicit(&openssl_demanded, true, memory_order_relaxed);
}

const struct engine *engine_chosen(void)
{
	return only_openssl() ? &engine_openssl
			      : atomic_load_explicit(&chosen, memory_order_relaxed);
}

void engine_choose(const struct engine *engine)
{
	atomic_store_explicit(&chosen, engine, memory_order_relaxed);
}

enum secpool_error engine_key_new(const struct engine *engine, const struct region_keys *keys,
	size_t page_bytes, unsigned workers, struct engine_key **ret_key)
{
	enum { HALF = PAGECIPHER_XTS_KEY_BYTES / 2 };

	/* FIPS 140-2 IG A.9, now 140-3 IG C.I: equal halves void the proof of XTS */
	if (CRYPTO_memcmp(keys->xts, keys->xts + HALF, HALF) == 0)
		return err_set(SECPOOL_E_CRYPTO, "an XTS key with equal halves is refused");
	return engine->key_new(keys, page_bytes, workers, ret_key);
}
