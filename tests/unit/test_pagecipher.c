/* SPDX-License-Identifier: Apache-2.0 */
/* The source is included, so that the counter of blocks can be set near its limit without a door for tests in the product. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "enclave/pagecipher.c"
#include "lib/base/os.h"
#include "lib/wire/msg.h"

static struct region_keys region_keys;
static enum keypage_engine demanded = KEYPAGE_ANY;

static struct pagecipher_binding binding_of(uint64_t page_bytes)
{
	return (struct pagecipher_binding){.region = 5, .epoch = 2, .page_bytes = page_bytes};
}

/* A key page as the enclave makes it; the caller closes the descriptor. */
static int key_fd(uint64_t page_bytes, const struct region_keys *keys)
{
	struct pagecipher_binding binding = binding_of(page_bytes);
	void *page = NULL;
	int fd = -1;

	assert_int_equal(secmem_new_shared(&fd, &page), SECPOOL_OK);
	keypage_put(page, &binding, MSG_PROTECTION_XTS_GMAC, demanded, keys);
	secmem_free_pages(page, KEYPAGE_BYTES);
	return fd;
}

static struct pagecipher *new_cipher(uint64_t page_bytes, unsigned workers)
{
	struct pagecipher_binding binding = binding_of(page_bytes);
	struct pagecipher *cipher = NULL;
	int fd = key_fd(page_bytes, &region_keys);

	assert_int_equal(pagecipher_new(fd, &binding, workers, &cipher), SECPOOL_OK);
	close(fd);
	return cipher;
}

static uint8_t *new_page(size_t bytes, int value)
{
	uint8_t *page = malloc(bytes);

	assert_non_null(page);
	memset(page, value, bytes);
	return page;
}

static void round_trip(size_t bytes)
{
	struct pagecipher *cipher = new_cipher(bytes, 2);
	uint8_t *plain = new_page(bytes, 0), *sealed = new_page(bytes, 0),
		*opened = new_page(bytes, 1);
	uint8_t tag[PAGECIPHER_TAG_BYTES], again[PAGECIPHER_TAG_BYTES];

	os_random(plain, bytes);
	assert_int_equal(
		pagecipher_seal(cipher, 0, PAGECIPHER_DATA, 9, 1, plain, sealed, tag), SECPOOL_OK);
	assert_memory_not_equal(plain, sealed, bytes);
	/* the other worker has the same key; a worker does not carry one page's nonce into the next */
	assert_int_equal(
		pagecipher_open(cipher, 1, PAGECIPHER_DATA, 9, 1, sealed, tag, opened), SECPOOL_OK);
	assert_memory_equal(plain, opened, bytes);
	assert_int_equal(pagecipher_seal(cipher, 1, PAGECIPHER_DATA, PAGECIPHER_PGNO_MOST,
				 PAGECIPHER_VERSION_MOST, plain, opened, again),
		SECPOOL_OK);
	assert_memory_not_equal(sealed, opened, bytes);
	assert_int_equal(pagecipher_seal(cipher, 1, PAGECIPHER_DATA, 9, 1, plain, opened, again),
		SECPOOL_OK);
	assert_memory_equal(sealed, opened, bytes);
	assert_memory_equal(tag, again, sizeof tag);
	pagecipher_free(cipher);
	free(plain);
	free(sealed);
	free(opened);
}

static void test_round_trip(void **state)
{
	(void)state;
	for (size_t bytes = PAGECIPHER_PAGE_BYTES_LEAST; bytes <= PAGECIPHER_PAGE_BYTES_MOST;
		bytes *= 2)
		round_trip(bytes);
}

/* The format of docs/page-format.md, put together by hand. */
static void test_format(void **state)
{
	/* type 1, page 0x987654321, version 0x0123456789abcd */
	static const uint8_t tweak[XTS_TWEAK_BYTES] = {
		0x19, 0x87, 0x65, 0x43, 0x21, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0, 0, 0, 0};
	struct pagecipher *cipher = new_cipher(4096, 1);
	uint8_t *plain = new_page(4096, 0x61), *sealed = new_page(4096, 0),
		*by_hand = new_page(4096, 0);
	uint8_t tag[PAGECIPHER_TAG_BYTES], tag_by_hand[PAGECIPHER_TAG_BYTES];
	struct xts xts;
	struct gmac gmac;

	(void)state;
	assert_int_equal(pagecipher_seal(cipher, 0, PAGECIPHER_MANIFEST, 0x987654321,
				 0x0123456789abcd, plain, sealed, tag),
		SECPOOL_OK);
	assert_int_equal(xts_init(&xts, region_keys.xts), SECPOOL_OK);
	assert_int_equal(xts_seal(&xts, tweak, plain, by_hand, 4096), SECPOOL_OK);
	assert_memory_equal(sealed, by_hand, 4096);
	assert_int_equal(gmac_init(&gmac, region_keys.tag), SECPOOL_OK);
	assert_int_equal(gmac_tag(&gmac, tweak, by_hand, 4096, tag_by_hand), SECPOOL_OK);
	assert_memory_equal(tag, tag_by_hand, sizeof tag);
	xts_done(&xts);
	gmac_done(&gmac);
	pagecipher_free(cipher);
	free(plain);
	free(sealed);
	free(by_hand);
}

static void test_open_refuses(void **state)
{
	struct pagecipher *cipher = new_cipher(4096, 1);
	uint8_t *plain = new_page(4096, 0x61), *sealed = new_page(4096, 0),
		*got = new_page(4096, 0x5c);
	uint8_t *wiped = new_page(4096, 0), *untouched = new_page(4096, 0x5c);
	uint8_t tag[PAGECIPHER_TAG_BYTES];

	(void)state;
	assert_int_equal(
		pagecipher_seal(cipher, 0, PAGECIPHER_DATA, 4, 8, plain, sealed, tag), SECPOOL_OK);
	assert_int_equal(
		pagecipher_open_exposed(cipher, 0, PAGECIPHER_DATA, 4, 8, sealed, tag, got),
		SECPOOL_OK);
	assert_memory_equal(got, plain, 4096);
	assert_int_equal(
		pagecipher_open_exposed(cipher, 1, PAGECIPHER_DATA, 4, 8, sealed, tag, got),
		SECPOOL_E_INVALID);
	assert_int_equal(
		pagecipher_check(cipher, 0, PAGECIPHER_DATA, 4, 8, sealed, tag), SECPOOL_OK);
	assert_int_equal(
		pagecipher_check(cipher, 1, PAGECIPHER_DATA, 4, 8, sealed, tag), SECPOOL_E_INVALID);
#define REFUSED(type, pgno, version)                                                               \
	memset(got, 0x5c, 4096);                                                                   \
	assert_int_equal(                                                                          \
		pagecipher_open_exposed(cipher, 0, type, pgno, version, sealed, tag, got),         \
		SECPOOL_E_INTEGRITY);                                                              \
	assert_memory_equal(got, untouched, 4096);                                                 \
	assert_int_equal(pagecipher_open(cipher, 0, type, pgno, version, sealed, tag, got),        \
		SECPOOL_E_INTEGRITY);                                                              \
	assert_memory_equal(got, wiped, 4096);                                                     \
	assert_int_equal(pagecipher_check(cipher, 0, type, pgno, version, sealed, tag),            \
		SECPOOL_E_INTEGRITY)
	REFUSED(PAGECIPHER_DATA, 5, 8);
	REFUSED(PAGECIPHER_DATA, 4, 7);
	REFUSED(PAGECIPHER_DATA, 4, 9);
	REFUSED(PAGECIPHER_MANIFEST, 4, 8);
	for (size_t i = 0; i < 4096; i += 61) {
		sealed[i] ^= (uint8_t)(1u << (i % 8));
		REFUSED(PAGECIPHER_DATA, 4, 8);
		sealed[i] ^= (uint8_t)(1u << (i % 8));
	}
	for (size_t i = 0; i < 8 * sizeof tag; i++) {
		tag[i / 8] ^= (uint8_t)(1u << (i % 8));
		REFUSED(PAGECIPHER_DATA, 4, 8);
		tag[i / 8] ^= (uint8_t)(1u << (i % 8));
	}
	memset(sealed, 0xff, 4096); /* what a pulled device answers */
	REFUSED(PAGECIPHER_DATA, 4, 8);
	memset(sealed, 0, 4096);
	REFUSED(PAGECIPHER_DATA, 4, 8);
#undef REFUSED
	pagecipher_free(cipher);
	free(plain);
	free(sealed);
	free(got);
	free(wiped);
	free(untouched);
}

static void test_other_key_refuses(void **state)
{
	struct pagecipher_binding binding = binding_of(4096);
	struct region_keys foreign = region_keys;
	struct pagecipher *mine = new_cipher(4096, 1), *other = NULL;
	uint8_t *plain = new_page(4096, 0x61), *sealed = new_page(4096, 0);
	uint8_t tag[PAGECIPHER_TAG_BYTES];
	int fd;

	(void)state;
	foreign.tag[0] ^= 1;
	fd = key_fd(4096, &foreign);
	assert_int_equal(pagecipher_new(fd, &binding, 1, &other), SECPOOL_OK);
	close(fd);
	assert_int_equal(
		pagecipher_seal(mine, 0, PAGECIPHER_DATA, 1, 1, plain, sealed, tag), SECPOOL_OK);
	assert_int_equal(pagecipher_open(other, 0, PAGECIPHER_DATA, 1, 1, sealed, tag, plain),
		SECPOOL_E_INTEGRITY);
	pagecipher_free(mine);
	pagecipher_free(other);
	pagecipher_free(NULL);
	free(plain);
	free(sealed);
}

static void test_bounds(void **state)
{
	struct pagecipher *cipher = new_cipher(4096, 2);
	uint8_t *plain = new_page(4096, 0x61), *sealed = new_page(4096, 0x5c),
		*got = new_page(4096, 0);
	uint8_t *before = new_page(4096, 0x5c), tag[PAGECIPHER_TAG_BYTES] = {0};

	(void)state;
#define REFUSED(worker, type, pgno, version, error)                                                \
	assert_int_equal(                                                                          \
		pagecipher_seal(cipher, worker, type, pgno, version, plain, sealed, tag), error);  \
	assert_memory_equal(sealed, before, 4096);                                                 \
	assert_int_equal(                                                                          \
		pagecipher_open(cipher, worker, type, pgno, version, sealed, tag, got), error)
	REFUSED(0, PAGECIPHER_DATA, PAGECIPHER_PGNO_MOST + 1, 1, SECPOOL_E_LIMIT);
	REFUSED(0, PAGECIPHER_DATA, 1, PAGECIPHER_VERSION_MOST + 1, SECPOOL_E_LIMIT);
	REFUSED(0, (enum pagecipher_type)2, 1, 1, SECPOOL_E_INVALID);
	REFUSED(2, PAGECIPHER_DATA, 1, 1, SECPOOL_E_INVALID);
#undef REFUSED
	assert_int_equal(atomic_load(&cipher->blocks), 0);
	pagecipher_free(cipher);
	free(plain);
	free(sealed);
	free(got);
	free(before);
}

static enum secpool_error seal_one(struct pagecipher *cipher, unsigned worker)
{
	static uint8_t plain[4096], sealed[4096], tag[PAGECIPHER_TAG_BYTES];

	return pagecipher_seal(cipher, worker, PAGECIPHER_DATA, 1, 1, plain, sealed, tag);
}

static void test_hard_limit_of_a_key(void **state)
{
	struct pagecipher *cipher = new_cipher(4096, 1);
	uint8_t *plain = new_page(4096, 0x61), *sealed = new_page(4096, 0x5c);
	uint8_t tag[PAGECIPHER_TAG_BYTES];

	(void)state;
	assert_int_equal(seal_one(cipher, 0), SECPOOL_OK);
	assert_int_equal(atomic_load(&cipher->blocks), PAGECIPHER_SHARE_BLOCKS);
	assert_int_equal(cipher->shares[0].blocks_left, PAGECIPHER_SHARE_BLOCKS - 256);
	atomic_store(&cipher->blocks, PAGECIPHER_BLOCKS_HARD - 257);
	cipher->shares[0].blocks_left = 0;
	assert_int_equal(
		pagecipher_seal(cipher, 0, PAGECIPHER_DATA, 1, 2, plain, sealed, tag), SECPOOL_OK);
	/* one block is left, a page has 256: refused, again and again, and what is there can be read */
	for (int i = 0; i < 3; i++)
		assert_int_equal(
			pagecipher_seal(cipher, 0, PAGECIPHER_DATA, 1, 3, plain, plain, tag),
			SECPOOL_E_LIMIT);
	assert_int_equal(atomic_load(&cipher->blocks), PAGECIPHER_BLOCKS_HARD - 1);
	assert_int_equal(
		pagecipher_open(cipher, 0, PAGECIPHER_DATA, 1, 2, sealed, tag, plain), SECPOOL_OK);
	pagecipher_free(cipher);
	free(plain);
	free(sealed);
}

/* A worker's share is its own; the last one is as many whole pages as are left. */
static void test_shares(void **state)
{
	struct pagecipher *cipher = new_cipher(4096, 3);
	unsigned pages = 0;

	(void)state;
	atomic_store(
		&cipher->blocks, PAGECIPHER_BLOCKS_HARD - PAGECIPHER_SHARE_BLOCKS - 2 * 256 - 9);
	assert_int_equal(seal_one(cipher, 0), SECPOOL_OK);
	assert_int_equal(seal_one(cipher, 1), SECPOOL_OK);
	assert_int_equal(cipher->shares[1].blocks_left, 256);
	assert_int_equal(atomic_load(&cipher->blocks), PAGECIPHER_BLOCKS_HARD - 9);
	assert_int_equal(seal_one(cipher, 2), SECPOOL_E_LIMIT);
	assert_int_equal(cipher->shares[2].blocks_left, 0);
	assert_int_equal(seal_one(cipher, 1), SECPOOL_OK);
	assert_int_equal(seal_one(cipher, 1), SECPOOL_E_LIMIT);
	while (seal_one(cipher, 0) == SECPOOL_OK)
		pages++;
	assert_int_equal(pages, PAGECIPHER_SHARE_BLOCKS / 256 - 1);
	assert_int_equal(seal_one(cipher, 0), SECPOOL_E_LIMIT);
	assert_int_equal(atomic_load(&cipher->blocks), PAGECIPHER_BLOCKS_HARD - 9);
	pagecipher_free(cipher);
}

static void new_refused(
	int fd, struct pagecipher_binding binding, unsigned workers, enum secpool_error error)
{
	struct pagecipher *cipher = (void *)&region_keys;

	assert_int_equal(pagecipher_new(fd, &binding, workers, &cipher), error);
	assert_ptr_equal(cipher, &region_keys);
}

static void test_new_refuses(void **state)
{
	struct region_keys weak = region_keys;
	struct pagecipher_binding binding = binding_of(4096), other;
	int fd = key_fd(4096, &region_keys), weak_fd, empty = -1;
	void *page = NULL;

	(void)state;
	new_refused(fd, binding, 0, SECPOOL_E_INVALID);
	new_refused(fd, binding, 65, SECPOOL_E_INVALID);
	new_refused(fd, binding_of(2048), 1, SECPOOL_E_INVALID);
	new_refused(fd, binding_of(4096 + 512), 1, SECPOOL_E_INVALID);
	new_refused(fd, binding_of(4 << 20), 1, SECPOOL_E_INVALID);
	new_refused(fd, binding_of(8192), 1, SECPOOL_E_KEY_GONE);
	other = binding, other.region++;
	new_refused(fd, other, 1, SECPOOL_E_KEY_GONE);
	other = binding, other.epoch++;
	new_refused(fd, other, 1, SECPOOL_E_KEY_GONE);
	new_refused(-1, binding, 1, SECPOOL_E_SYSTEM);
	close(fd);
	memcpy(weak.xts + 32, weak.xts, 32);
	weak_fd = key_fd(4096, &weak);
	new_refused(weak_fd, binding, 1, SECPOOL_E_CRYPTO);
	close(weak_fd);
	assert_int_equal(secmem_new_shared(&empty, &page), SECPOOL_OK);
	new_refused(empty, binding, 1, SECPOOL_E_KEY_GONE);
	secmem_free_pages(page, KEYPAGE_BYTES);
	close(empty);
}

enum { WORKERS = 4, ROUNDS = 200 };

/* One worker's thread: errors are counted, since cmocka's asserts belong to the main thread. */
struct turn {
	struct pagecipher *cipher;
	unsigned worker, errors, sealed;
};

static void *work(void *arg)
{
	struct turn *turn = arg;
	uint8_t plain[4096], sealed[4096], opened[4096], tag[PAGECIPHER_TAG_BYTES];

	memset(plain, (int)turn->worker, sizeof plain);
	for (uint64_t version = 1; version <= ROUNDS; version++) {
		uint64_t pgno = turn->worker;

		if (pagecipher_seal(turn->cipher, turn->worker, PAGECIPHER_DATA, pgno, version,
			    plain, sealed, tag) ||
			pagecipher_open(turn->cipher, turn->worker, PAGECIPHER_DATA, pgno, version,
				sealed, tag, opened) ||
			memcmp(plain, opened, sizeof plain) != 0)
			turn->errors++;
		sealed[version] ^= 1;
		if (pagecipher_open(turn->cipher, turn->worker, PAGECIPHER_DATA, pgno, version,
			    sealed, tag, opened) != SECPOOL_E_INTEGRITY)
			turn->errors++;
	}
	return NULL;
}

static void test_workers_at_once(void **state)
{
	struct pagecipher *cipher = new_cipher(4096, WORKERS);
	struct turn turns[WORKERS];
	pthread_t threads[WORKERS];
	uint64_t left = 0;

	(void)state;
	for (unsigned i = 0; i < WORKERS; i++) {
		turns[i] = (struct turn){.cipher = cipher, .worker = i};
		assert_int_equal(pthread_create(&threads[i], NULL, work, &turns[i]), 0);
	}
	for (unsigned i = 0; i < WORKERS; i++) {
		assert_int_equal(pthread_join(threads[i], NULL), 0);
		assert_int_equal(turns[i].errors, 0);
	}
	/* no block was counted twice or not at all */
	for (unsigned i = 0; i < WORKERS; i++)
		left += cipher->shares[i].blocks_left;
	assert_int_equal(atomic_load(&cipher->blocks) - left, WORKERS * ROUNDS * 256);
	pagecipher_free(cipher);
}

/* Seals until it is refused. */
static void *seal_all(void *arg)
{
	struct turn *turn = arg;
	uint8_t plain[4096] = {0}, sealed[4096], tag[PAGECIPHER_TAG_BYTES];
	enum secpool_error error = SECPOOL_OK;

	for (uint64_t version = 1; !error; version++) {
		error = pagecipher_seal(turn->cipher, turn->worker, PAGECIPHER_DATA, turn->worker,
			version, plain, sealed, tag);
		turn->sealed += !error;
	}
	turn->errors += error != SECPOOL_E_LIMIT;
	return NULL;
}

/* Workers that run into the limit at once: not a page more than there is room for, and not one less, since each uses up what it took. */
static void test_workers_share_the_last_pages(void **state)
{
	enum { PAGES = 3 * PAGECIPHER_SHARE_BLOCKS / 256 + 100 };
	struct pagecipher *cipher = new_cipher(4096, WORKERS);
	struct turn turns[WORKERS];
	pthread_t threads[WORKERS];
	unsigned sealed = 0;

	(void)state;
	atomic_store(&cipher->blocks, PAGECIPHER_BLOCKS_HARD - PAGES * 256 - 255);
	for (unsigned i = 0; i < WORKERS; i++) {
		turns[i] = (struct turn){.cipher = cipher, .worker = i};
		assert_int_equal(pthread_create(&threads[i], NULL, seal_all, &turns[i]), 0);
	}
	for (unsigned i = 0; i < WORKERS; i++) {
		assert_int_equal(pthread_join(threads[i], NULL), 0);
		assert_int_equal(turns[i].errors, 0);
		sealed += turns[i].sealed;
	}
	assert_int_equal(sealed, PAGES);
	assert_int_equal(atomic_load(&cipher->blocks), PAGECIPHER_BLOCKS_HARD - 255);
	pagecipher_free(cipher);
}

/* A key page that demands OpenSSL has it, whatever engine is chosen; both understand each other's pages. */
static void test_demanded_by_the_key(void **state)
{
	struct pagecipher *mine = new_cipher(4096, 1), *theirs;
	uint8_t *plain = new_page(4096, 0x61), *sealed = new_page(4096, 0),
		*opened = new_page(4096, 0);
	uint8_t tag[PAGECIPHER_TAG_BYTES];

	(void)state;
	demanded = KEYPAGE_OPENSSL;
	theirs = new_cipher(4096, 1);
	demanded = KEYPAGE_ANY;
	assert_ptr_equal(mine->engine, engine_chosen());
	assert_ptr_equal(theirs->engine, &engine_openssl);
	assert_int_equal(
		pagecipher_seal(mine, 0, PAGECIPHER_DATA, 1, 1, plain, sealed, tag), SECPOOL_OK);
	assert_int_equal(
		pagecipher_open(theirs, 0, PAGECIPHER_DATA, 1, 1, sealed, tag, opened), SECPOOL_OK);
	assert_memory_equal(plain, opened, 4096);
	pagecipher_free(mine);
	pagecipher_free(theirs);
	free(plain);
	free(sealed);
	free(opened);
}

static void test_name(void **state)
{
	(void)state;
	assert_non_null(strstr(pagecipher_name(), "aes-256-xts + gmac"));
	if (engine_chosen() == &engine_openssl)
		assert_non_null(strstr(pagecipher_name(), "OpenSSL 3"));
	else
		assert_non_null(strstr(pagecipher_name(), "VAES-"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_format),
		cmocka_unit_test(test_open_refuses),
		cmocka_unit_test(test_other_key_refuses),
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_hard_limit_of_a_key),
		cmocka_unit_test(test_shares),
		cmocka_unit_test(test_new_refuses),
		cmocka_unit_test(test_workers_at_once),
		cmocka_unit_test(test_workers_share_the_last_pages),
		cmocka_unit_test(test_demanded_by_the_key),
		cmocka_unit_test(test_name),
	};
	int failed = 0;

	if (secmem_init(SECMEM_ALLOW_LOCKED)) {
		fprintf(stderr, "secmem_init: %s\n", err_detail());
		return 1;
	}
	os_random(&region_keys, sizeof region_keys);
	/* with each engine that this CPU runs, OpenSSL last */
	for (size_t i = 0; engine_at(i); i++) {
		if (!engine_at(i)->usable())
			continue;
		print_message("engine %s\n", engine_at(i)->name);
		engine_choose(engine_at(i));
		failed += cmocka_run_group_tests(tests, NULL, NULL);
	}
	return failed;
}
