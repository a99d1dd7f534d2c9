/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/pagecipher.h"

#include <endian.h>
#include <openssl/crypto.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "enclave/engine.h"
#include "enclave/gmac.h"
#include "enclave/keypage.h"
#include "enclave/primitives.h"
#include "enclave/proof.h"
#include "enclave/secmem.h"
#include "enclave/xts.h"

enum { WORKERS_MOST = 64, BLOCK_BYTES = 16, LINE_BYTES = 64 };

_Static_assert((int)PAGECIPHER_XTS_KEY_BYTES == (int)XTS_KEY_BYTES, "one XTS key");
_Static_assert((int)PAGECIPHER_TAG_KEY_BYTES == (int)GMAC_KEY_BYTES, "one tag key");
_Static_assert((int)PAGECIPHER_TAG_BYTES == (int)GMAC_TAG_BYTES, "one tag");
_Static_assert((int)PAGECIPHER_NONCE_BYTES == (int)GMAC_NONCE_BYTES, "one nonce");
_Static_assert(
	(int)PAGECIPHER_PAGE_BYTES_MOST <= (int)XTS_UNIT_BYTES_MOST, "a page is one data unit");

_Static_assert((int)XTS_TWEAK_BYTES == 2 * sizeof(uint64_t), "a nonce is two words");

_Static_assert((int)PAGECIPHER_PAGE_BYTES_MOST / BLOCK_BYTES <= (int)PAGECIPHER_SHARE_BLOCKS,
	"a share is at least a page");

_Static_assert((int)PAGECIPHER_PAGE_BYTES_LEAST % (int)ENGINE_PAGE_UNIT_BYTES == 0,
	"an engine works on whole pages");

/* What a worker may still seal without asking; its own, on a cache line that nothing else is on. */
struct share {
	uint8_t apart[LINE_BYTES];
	uint64_t blocks_left;
};

struct pagecipher {
	size_t page_bytes;
	uint64_t region, epoch;
	uint8_t owner[PAGECIPHER_OWNER_KEY_BYTES]; /* secret; zeros: a grantee's */
	uint8_t root[PAGECIPHER_ROOT_BYTES];
	unsigned workers;
	/* blocks of this key that were given out to workers; relaxed: only its own value matters, nothing is published by it */
	_Atomic uint64_t blocks;
	const struct engine *engine;
	struct engine_key *key;
	struct share shares[]; /* one for each worker */
};

/* The nonce as the XTS tweak: zero-extended to a block (docs/page-format.md). */
struct nonce {
	uint8_t bytes[XTS_TWEAK_BYTES];
};

static pthread_once_t name_once = PTHREAD_ONCE_INIT;
static char openssl_name[64];

static void make_name(void)
{
	snprintf(openssl_name, sizeof openssl_name, "OpenSSL %s aes-256-xts + gmac",
		OpenSSL_version(OPENSSL_VERSION_STRING));
}

const char *pagecipher_name(void)
{
	const struct engine *engine = engine_chosen();

	pthread_once(&name_once, make_name);
	return engine->shown ? engine->shown : openssl_name;
}

void pagecipher_demand_openssl(void)
{
	engine_demand_openssl();
}

/* Picks the engine and expands the keys from the key's page. */
static enum secpool_error set_keys(
	struct pagecipher *cipher, int key_fd, const struct pagecipher_binding *expect)
{
	enum secpool_error error = SECPOOL_E_INTERNAL;
	struct region_keys *keys = secmem_new(sizeof *keys);
	const void *page = NULL;

	if (!keys)
		return err_set(SECPOOL_E_NO_LOCKED_MEMORY, "no secret memory for a region's keys");
	error = secmem_map_shared(key_fd, &page);
	if (error)
		goto out;
	error = keypage_get(page, expect, keys);
	if (error)
		goto out;
	cipher->region = expect->region;
	cipher->epoch = expect->epoch;
	memcpy(cipher->owner, keys->owner, sizeof cipher->owner);
	memcpy(cipher->root, keys->root, sizeof cipher->root);
	cipher->engine =
		keypage_engine(page) == KEYPAGE_OPENSSL ? &engine_openssl : engine_chosen();
	error = engine_key_new(
		cipher->engine, keys, cipher->page_bytes, cipher->workers, &cipher->key);
out:
	secmem_unmap_shared(page);
	secmem_free(keys);
	return error;
}

enum secpool_error pagecipher_new(int key_fd, const struct pagecipher_binding *expect,
	unsigned workers, struct pagecipher **ret_cipher)
{
	enum secpool_error error = SECPOOL_E_INTERNAL;
	uint64_t page_bytes = expect->page_bytes;
	struct pagecipher *cipher;

	if (workers < 1 || workers > WORKERS_MOST)
		return err_set(SECPOOL_E_INVALID, "a page cipher for %u workers", workers);
	if (page_bytes < PAGECIPHER_PAGE_BYTES_LEAST || page_bytes > PAGECIPHER_PAGE_BYTES_MOST ||
		(page_bytes & (page_bytes - 1)) != 0)
		return err_set(
			SECPOOL_E_INVALID, "pages of %llu bytes", (unsigned long long)page_bytes);
	cipher = secmem_new(sizeof *cipher + workers * sizeof cipher->shares[0]);
	if (!cipher)
		return err_set(SECPOOL_E_NO_LOCKED_MEMORY, "no secret memory for a page cipher");
	cipher->page_bytes = page_bytes;
	cipher->workers = workers;
	error = set_keys(cipher, key_fd, expect);
	if (error) {
		pagecipher_free(cipher);
		return error;
	}
	*ret_cipher = cipher;
	return SECPOOL_OK;
}

void pagecipher_free(struct pagecipher *cipher)
{
	if (!cipher)
		return;
	if (cipher->engine)
		cipher->engine->key_free(cipher->key);
	secmem_free(cipher);
}

enum secpool_error pagecipher_prove(const struct pagecipher *cipher, enum pagecipher_wish wish,
	const uint8_t subject[PAGECIPHER_SUBJECT_BYTES], uint8_t ret_proof[PAGECIPHER_PROOF_BYTES])
{
	static const uint8_t none[PAGECIPHER_OWNER_KEY_BYTES];

	if (CRYPTO_memcmp(cipher->owner, none, sizeof none) == 0)
		return err_set(SECPOOL_E_DENIED, "only the region's owner may seal or grant it");
	return proof_make(cipher->owner, wish, cipher->region, cipher->epoch, subject, ret_proof);
}

const uint8_t *pagecipher_root(const struct pagecipher *cipher)
{
	return cipher->root;
}

enum secpool_error pagecipher_owned_root(const char *tenant,
	const uint8_t root[PAGECIPHER_ROOT_BYTES], uint8_t ret_root[PAGECIPHER_ROOT_BYTES])
{
	uint8_t both[PAGECIPHER_SUBJECT_BYTES + PAGECIPHER_ROOT_BYTES] = {0};

	memcpy(both, tenant, strnlen(tenant, PAGECIPHER_SUBJECT_BYTES));
	memcpy(both + PAGECIPHER_SUBJECT_BYTES, root, PAGECIPHER_ROOT_BYTES);
	return primitives_sha256(both, sizeof both, ret_root);
}

enum secpool_error pagecipher_digest(
	const void *bytes, size_t count, uint8_t ret_digest[PAGECIPHER_ROOT_BYTES])
{
	return primitives_sha256(bytes, count, ret_digest);
}

/* type 4 | page number 36 | version 56 bits, big end first: NIST SP 800-38D 8.2.1, a deterministic nonce of 96 bits. */
static enum secpool_error make_nonce(
	enum pagecipher_type type, uint64_t pgno, uint64_t version, struct nonce *ret_nonce)
{
	uint64_t high = (uint64_t)type << 36 | pgno, words[2];

	if (type != PAGECIPHER_DATA && type != PAGECIPHER_MANIFEST)
		return err_set(SECPOOL_E_INVALID, "pages of type %d", (int)type);
	if (pgno > PAGECIPHER_PGNO_MOST || version > PAGECIPHER_VERSION_MOST)
		return err_set(SECPOOL_E_LIMIT, "page %llu, version %llu is beyond the nonce",
			(unsigned long long)pgno, (unsigned long long)version);
	/* as two words: the engine loads them so, and would wait for single bytes to reach the cache */
	words[0] = htobe64(high << 24 | version >> 32);
	words[1] = htobe64(version << 32);
	memcpy(ret_nonce->bytes, words, sizeof words);
	return SECPOOL_OK;
}

/* A share for a worker that has none: whole pages, and no more than the key has left. */
static enum secpool_error take_share(struct pagecipher *cipher, uint64_t *blocks_left)
{
	const uint64_t page = cipher->page_bytes / BLOCK_BYTES;
	uint64_t before = atomic_load_explicit(&cipher->blocks, memory_order_relaxed), take;

	do {
		take = PAGECIPHER_BLOCKS_HARD - before;
		if (take > PAGECIPHER_SHARE_BLOCKS)
			take = PAGECIPHER_SHARE_BLOCKS;
		take -= take % page;
		if (take == 0)
			return err_set(
				SECPOOL_E_LIMIT, "the region's key has sealed as much as it may");
	} while (!atomic_compare_exchange_weak_explicit(&cipher->blocks, &before, before + take,
		memory_order_relaxed, memory_order_relaxed));
	*blocks_left = take;
	return SECPOOL_OK;
}

/* Charges a page to the key before it is sealed. By shares: one counter for all would be a cache line that every sealing waits for. */
static enum secpool_error charge(struct pagecipher *cipher, unsigned worker)
{
	uint64_t *blocks_left = &cipher->shares[worker].blocks_left;

	if (*blocks_left == 0) {
		enum secpool_error error = take_share(cipher, blocks_left);

		if (error)
			return error;
	}
	*blocks_left -= cipher->page_bytes / BLOCK_BYTES;
	return SECPOOL_OK;
}

uint64_t pagecipher_blocks(const struct pagecipher *cipher)
{
	return atomic_load_explicit(&cipher->blocks, memory_order_relaxed);
}

static enum secpool_error check_worker(const struct pagecipher *cipher, unsigned worker)
{
	if (worker >= cipher->workers)
		return err_set(SECPOOL_E_INVALID, "worker %u of %u", worker, cipher->workers);
	return SECPOOL_OK;
}

enum secpool_error pagecipher_seal(struct pagecipher *cipher, unsigned worker,
	enum pagecipher_type type, uint64_t pgno, uint64_t version, const void *plain,
	void *ciphertext, uint8_t tag[PAGECIPHER_TAG_BYTES])
{
	struct nonce nonce;
	enum secpool_error error = check_worker(cipher, worker);

	if (error)
		return error;
	error = make_nonce(type, pgno, version, &nonce);
	if (error)
		return error;
	error = charge(cipher, worker);
	if (error)
		return error;
	return cipher->engine->page_seal(
		cipher->key, worker, nonce.bytes, plain, ciphertext, cipher->page_bytes, tag);
}

static enum secpool_error bad_page(uint64_t pgno, uint64_t version)
{
	return err_set(SECPOOL_E_INTEGRITY, "page %llu, version %llu failed its integrity check",
		(unsigned long long)pgno, (unsigned long long)version);
}

/* In constant time. The right tag of forged data is a forgery ready for use: it is wiped. */
static bool is_right(uint8_t right[PAGECIPHER_TAG_BYTES], const uint8_t tag[PAGECIPHER_TAG_BYTES])
{
	bool same = CRYPTO_memcmp(right, tag, PAGECIPHER_TAG_BYTES) == 0;

	OPENSSL_cleanse(right, PAGECIPHER_TAG_BYTES);
	return same;
}

enum secpool_error pagecipher_open(struct pagecipher *cipher, unsigned worker,
	enum pagecipher_type type, uint64_t pgno, uint64_t version, const void *ciphertext,
	const uint8_t tag[PAGECIPHER_TAG_BYTES], void *plain)
{
	struct nonce nonce;
	enum secpool_error error = check_worker(cipher, worker);

	if (error)
		return error;
	error = make_nonce(type, pgno, version, &nonce);
	if (error)
		return error;
	error = cipher->engine->page_open(
		cipher->key, worker, nonce.bytes, ciphertext, plain, cipher->page_bytes, tag);
	return error == SECPOOL_E_INTEGRITY ? bad_page(pgno, version) : error;
}

enum secpool_error pagecipher_check(struct pagecipher *cipher, unsigned worker,
	enum pagecipher_type type, uint64_t pgno, uint64_t version, const void *ciphertext,
	const uint8_t tag[PAGECIPHER_TAG_BYTES])
{
	uint8_t right[PAGECIPHER_TAG_BYTES];
	struct nonce nonce;
	enum secpool_error error = check_worker(cipher, worker);

	if (!error)
		error = make_nonce(type, pgno, version, &nonce);
	if (!error)
		error = cipher->engine->tag(
			cipher->key, worker, nonce.bytes, ciphertext, cipher->page_bytes, right);
	if (error)
		return error;
	return is_right(right, tag) ? SECPOOL_OK : bad_page(pgno, version);
}

enum secpool_error pagecipher_open_exposed(struct pagecipher *cipher, unsigned worker,
	enum pagecipher_type type, uint64_t pgno, uint64_t version, const void *ciphertext,
	const uint8_t tag[PAGECIPHER_TAG_BYTES], void *plain)
{
	struct nonce nonce;
	enum secpool_error error =
		pagecipher_check(cipher, worker, type, pgno, version, ciphertext, tag);

	if (!error)
		error = make_nonce(type, pgno, version, &nonce);
	if (error)
		return error;
	return cipher->engine->xts_open(
		cipher->key, worker, nonce.bytes, ciphertext, plain, cipher->page_bytes);
}

enum secpool_error pagecipher_open_live(struct pagecipher *cipher, unsigned worker,
	enum pagecipher_type type, uint64_t pgno, uint64_t version, const void *ciphertext,
	const uint8_t tag[PAGECIPHER_TAG_BYTES], bool exposed, void *kept, void *plain)
{
	const size_t bytes = cipher->page_bytes;
	uint8_t right[PAGECIPHER_TAG_BYTES];
	struct nonce nonce;
	enum secpool_error error = check_worker(cipher, worker);

	if (!error)
		error = make_nonce(type, pgno, version, &nonce);
	if (error)
		return error;
	if (!exposed) {
		error = cipher->engine->page_open_live(
			cipher->key, worker, nonce.bytes, ciphertext, kept, plain, bytes, tag);
		return error == SECPOOL_E_INTEGRITY ? bad_page(pgno, version) : error;
	}
	error = cipher->engine->tag_live(
		cipher->key, worker, nonce.bytes, ciphertext, kept, bytes, right);
	if (error)
		return error;
	if (!is_right(right, tag))
		return bad_page(pgno, version);
	return cipher->engine->xts_open(cipher->key, worker, nonce.bytes, kept, plain, bytes);
}
