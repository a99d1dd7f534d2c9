/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The implementations of the page cipher's two primitives, AES-256-XTS and GMAC, behind one table each: OpenSSL's, and our own on VAES and VPCLMULQDQ
 * with 512 and with 256 bits. All give the same bytes. What a CPU can do picks one, and only selftest_run, which compares it with OpenSSL, puts it to use.
 *
 * Only enclave/ code and its tests and benches include this. A key holds a place for each worker: calls with different worker numbers may run at once,
 * calls with the same may not. What makes a key needs secmem_init before. Threads: any otherwise.
 */
#ifndef SECPOOL_ENCLAVE_ENGINE_H
#define SECPOOL_ENCLAVE_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "enclave/keypage.h"
#include "lib/base/err.h"

/* seal_page and open_page work on whole multiples of these bytes. */
enum { ENGINE_PAGE_UNIT_BYTES = 512 };

/* Both keys of a region, expanded, in secret memory; each engine has its own kind. */
struct engine_key;

struct engine {
	const char *name;  /* "vaes512": for tests and benches */
	const char *shown; /* how status names it; NULL: OpenSSL with its version */
	bool (*usable)(void);
	/* Errors: SECPOOL_E_CRYPTO, SECPOOL_E_NO_LOCKED_MEMORY. Call by engine_key_new. */
	enum secpool_error (*key_new)(const struct region_keys *keys, size_t page_bytes, unsigned workers, struct engine_key **ret_key);
	/* Wipes. NULL is allowed. */
	void (*key_free)(struct engine_key *key);
	/* As xts_seal and xts_open (xts.h). */
	enum secpool_error (*xts_seal)(struct engine_key *key, unsigned worker, const uint8_t tweak[16], const void *from, void *to, size_t bytes);
	enum secpool_error (*xts_open)(struct engine_key *key, unsigned worker, const uint8_t tweak[16], const void *from, void *to, size_t bytes);
	/* As gmac_tag (gmac.h). */
	enum secpool_error (*tag)(struct engine_key *key, unsigned worker, const uint8_t nonce[12], const void *data, size_t bytes, uint8_t ret_tag[16]);
	/* A page and its tag in one go; tweak: the nonce and four zero bytes. from and to: the same or not overlapping. Errors: as xts_seal and gmac_tag. */
	enum secpool_error (*page_seal)(struct engine_key *key, unsigned worker, const uint8_t tweak[16], const void *from, void *to, size_t bytes, uint8_t ret_tag[16]);
	/* to: private memory that nobody else looks at before this returns. Errors: SECPOOL_E_INTEGRITY: to is wiped. SECPOOL_E_CRYPTO. */
	enum secpool_error (*page_open)(struct engine_key *key, unsigned worker, const uint8_t tweak[16], const void *from, void *to, size_t bytes, const uint8_t tag[16]);
	/*
	 * page_open and tag of a page that others may change meanwhile, or that may vanish (lib/base/guarded_run.h): each byte of from is loaded once, and kept in `kept` (bytes of private memory), which is what was
	 * checked and decrypted. from and kept: the same or not overlapping; to overlaps neither. What kept holds is what was judged; OpenSSL has it by memcpy, which may load some bytes twice before. Errors: as page_open and tag.
	 */
	enum secpool_error (*page_open_live)(struct engine_key *key, unsigned worker, const uint8_t tweak[16], const void *from, void *kept, void *to, size_t bytes, const uint8_t tag[16]);
	enum secpool_error (*tag_live)(struct engine_key *key, unsigned worker, const uint8_t nonce[12], const void *from, void *kept, size_t bytes, uint8_t ret_tag[16]);
};

extern const struct engine engine_openssl;
#ifdef __x86_64__
extern const struct engine engine_vaes512, engine_vaes256;
#endif

/* All engines of this build, the fastest first, OpenSSL last; NULL beyond. Whether this CPU runs one, its usable() says. */
const struct engine *engine_at(size_t index);

/* The fastest that this CPU runs; OpenSSL where engine_demand_openssl was called. */
const struct engine *engine_best(void);

/* From here on this process uses OpenSSL only (policy: `cipher: openssl`); nothing takes it back. */
void engine_demand_openssl(void);

/* The engine in use: OpenSSL until selftest_run has proved another. */
const struct engine *engine_chosen(void);

/* Only for an engine whose self-test passed; OpenSSL stays where it is demanded. */
void engine_choose(const struct engine *engine);

/*
 * Refuses an XTS key with equal halves, then engine->key_new. page_bytes: of the pages that will be opened.
 * Errors: SECPOOL_E_CRYPTO, SECPOOL_E_NO_LOCKED_MEMORY.
 */
enum secpool_error engine_key_new(const struct engine *engine, const struct region_keys *keys, size_t page_bytes, unsigned workers, struct engine_key **ret_key) MUST_USE;

/*
 * An engine against OpenSSL: random keys, nonces and data, pages of 4 KiB to 2 MiB at odd addresses, both directions, and that a wrong tag is refused and leaves nothing.
 * Takes about 2 ms. Errors: SECPOOL_E_SELFTEST, SECPOOL_E_NO_MEMORY, SECPOOL_E_NO_LOCKED_MEMORY.
 */
enum secpool_error engine_compare(const struct engine *engine) MUST_USE;

#endif
