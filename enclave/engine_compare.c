/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/engine.h"

#include <string.h>
#include <sys/mman.h>

#include "enclave/secmem.h"
#include "lib/base/os.h"

enum { MAP_BYTES = PAGECIPHER_PAGE_BYTES_MOST + 64, ROUNDS = 8, REFUSED_BYTES_MOST = 65536 };

/* The data, the work, and what is kept and opened. */
enum { ALL_BYTES = 2 * MAP_BYTES + 2 * REFUSED_BYTES_MOST };

/* Bytes of each round's pages: the smallest and the largest, between them both ways of opening, and the common size more often. */
static const size_t sizes[ROUNDS] = {
	4096, 8192, 16384, 4096, 65536, 4096, 262144, PAGECIPHER_PAGE_BYTES_MOST};

/* One round's material. The data are what the rounds before left: pseudo-random, once the first key has sealed zeros. */
struct round {
	const struct engine *engine;
	struct engine_key *mine, *theirs;
	size_t bytes;
	uint8_t *plain, *work;
	uint8_t *kept; /* room for twice REFUSED_BYTES_MOST */
	uint8_t tweak[16], tag[16];
};

static bool equal(const void *one, const void *other, size_t bytes)
{
	/* lint: memcmp of random bytes that protect nothing; a comparison in constant time takes 3 ms per MiB */
	return memcmp(one, other, bytes) == 0;
}

static bool same(const struct round *r)
{
	return equal(r->work, r->plain, r->bytes);
}

/*
 * OpenSSL opens what the engine sealed: XTS is a permutation, so that was OpenSSL's ciphertext, and its tag. Sealed again it is the same, and the
 * engine opens it.
 */
static bool agrees(struct round *r)
{
	const struct engine *mine = r->engine;

	return !mine->page_seal(r->mine, 0, r->tweak, r->plain, r->work, r->bytes, r->tag) &&
	       !engine_openssl.page_open(
		       r->theirs, 0, r->tweak, r->work, r->work, r->bytes, r->tag) &&
	       same(r) &&
	       !mine->page_seal(r->mine, 0, r->tweak, r->work, r->work, r->bytes, r->tag) &&
	       !mine->page_open(r->mine, 0, r->tweak, r->work, r->work, r->bytes, r->tag) &&
	       same(r);
}

/* What is opened where it lies: the same, and kept as it was. */
static bool opens_live(struct round *r)
{
	const struct engine *mine = r->engine;
	uint8_t *opened = r->kept + r->bytes, tag[sizeof r->tag];

	if (r->bytes > REFUSED_BYTES_MOST)
		return true;
	return !mine->page_seal(r->mine, 0, r->tweak, r->plain, r->work, r->bytes, r->tag) &&
	       !mine->page_open_live(
		       r->mine, 0, r->tweak, r->work, r->kept, opened, r->bytes, r->tag) &&
	       equal(opened, r->plain, r->bytes) && equal(r->kept, r->work, r->bytes) &&
	       !mine->tag_live(r->mine, 0, r->tweak, r->work, opened, r->bytes, tag) &&
	       equal(opened, r->work, r->bytes) && equal(tag, r->tag, sizeof tag);
}

static bool is_wiped(const struct round *r)
{
	uint8_t all = 0;

	for (size_t i = 0; i < r->bytes; i++)
		all |= r->work[i];
	return all == 0;
}

/* A wrong bit of the tag: refused, and nothing is left. */
static bool refuses(struct round *r, uint8_t where)
{
	if (r->bytes > REFUSED_BYTES_MOST)
		return true;
	r->tag[where % 16] ^= (uint8_t)(1u << (where / 16 % 8));
	return r->engine->page_open(r->mine, 0, r->tweak, r->plain, r->work, r->bytes, r->tag) ==
		       SECPOOL_E_INTEGRITY &&
	       is_wiped(r);
}

static enum secpool_error compare_round(
	const struct engine *engine, size_t bytes, uint8_t *plain, uint8_t *work, uint8_t *kept)
{
	struct round r = {.engine = engine, .bytes = bytes, .kept = kept};
	struct region_keys *keys = secmem_new(sizeof *keys);
	enum secpool_error error;
	uint8_t odd[3];

	if (!keys)
		return err_set(SECPOOL_E_NO_LOCKED_MEMORY, "no secret memory for a comparison");
	os_random(keys, sizeof *keys);
	os_random(r.tweak, PAGECIPHER_NONCE_BYTES);
	os_random(odd, sizeof odd);
	r.plain = plain + odd[0] % 64;
	r.work = work + odd[1] % 64;
	error = engine_key_new(engine, keys, bytes, 1, &r.mine);
	if (!error)
		error = engine_key_new(&engine_openssl, keys, bytes, 1, &r.theirs);
	if (!error && (!agrees(&r) || !opens_live(&r) || !refuses(&r, odd[2])))
		error = err_set(SECPOOL_E_SELFTEST,
			"%s and OpenSSL differ at pages of %zu bytes: this CPU can't be trusted "
			"with keys",
			engine->name, bytes);
	/* the next round's data */
	if (!error)
		error = engine->xts_seal(r.mine, 0, r.tweak, r.plain, r.plain, bytes);
	engine->key_free(r.mine);
	engine_openssl.key_free(r.theirs);
	secmem_free(keys);
	return error;
}

enum secpool_error engine_compare(const struct engine *engine)
{
	uint8_t *memory = mmap(NULL, ALL_BYTES, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	enum secpool_error error = SECPOOL_OK;

	if (memory == MAP_FAILED)
		return os_error("memory for a comparison");
	for (size_t i = 0; i < ROUNDS && !error; i++)
		error = compare_round(engine, sizes[i], memory, memory + MAP_BYTES,
			memory + 2 * (size_t)MAP_BYTES);
	munmap(memory, ALL_BYTES);
	return error;
}
