/* SPDX-License-Identifier: Apache-2.0 */
/* Each engine that this CPU runs against OpenSSL: sizes, alignments, odd lengths, refusals, and what it leaves behind. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "enclave/cpu.h"
#include "enclave/engine.h"
#include "enclave/secmem.h"
#include "enclave/xts.h"
#include "lib/base/os.h"
#include "tests/unit/vector_registers.h"

#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif

enum { ROOM = PAGECIPHER_PAGE_BYTES_MOST + 4096, FENCE = 0x5c };

/* The engine under test, and everything's room. */
static const struct engine *engine;
static struct region_keys keys;
static uint8_t plain_room[ROOM], mine_room[ROOM], theirs_room[ROOM], kept_room[ROOM];
static uint8_t tweak[16], tag[16], right[16];

static void keys_for(
	size_t page_bytes, struct engine_key **ret_mine, struct engine_key **ret_theirs)
{
	os_random(&keys, sizeof keys);
	os_random(tweak, 12);
	assert_int_equal(engine_key_new(engine, &keys, page_bytes, 2, ret_mine), SECPOOL_OK);
	assert_int_equal(
		engine_key_new(&engine_openssl, &keys, page_bytes, 1, ret_theirs), SECPOOL_OK);
}

/* One page at the given distances from a multiple of 64; nothing beside the output is touched. */
static void one_page(
	struct engine_key *mine, struct engine_key *theirs, size_t bytes, size_t from, size_t to)
{
	uint8_t *plain = plain_room + 64 + from, *sealed = mine_room + 64 + to;

	memset(mine_room, FENCE, 64 + to);
	memset(sealed + bytes, FENCE, 64);
	assert_int_equal(
		engine_openssl.page_seal(theirs, 0, tweak, plain, theirs_room, bytes, right),
		SECPOOL_OK);
	assert_int_equal(engine->page_seal(mine, 1, tweak, plain, sealed, bytes, tag), SECPOOL_OK);
	assert_memory_equal(sealed, theirs_room, bytes);
	assert_memory_equal(tag, right, sizeof tag);
	for (size_t i = 0; i < 64; i++)
		assert_true(sealed[-1 - (ptrdiff_t)i] == FENCE && sealed[bytes + i] == FENCE);
	assert_int_equal(engine->page_open(mine, 0, tweak, theirs_room + 0, sealed, bytes, right),
		SECPOOL_OK);
	assert_memory_equal(sealed, plain, bytes);
	for (size_t i = 0; i < 64; i++)
		assert_true(sealed[-1 - (ptrdiff_t)i] == FENCE && sealed[bytes + i] == FENCE);
	/* with the ciphertext kept */
	memset(sealed, FENCE, bytes);
	memset(kept_room, FENCE, bytes + 64 + to);
	assert_int_equal(engine->page_open_live(
				 mine, 0, tweak, theirs_room, kept_room + to, sealed, bytes, right),
		SECPOOL_OK);
	assert_memory_equal(sealed, plain, bytes);
	assert_memory_equal(kept_room + to, theirs_room, bytes);
	for (size_t i = 0; i < 64; i++)
		assert_true(sealed[-1 - (ptrdiff_t)i] == FENCE && sealed[bytes + i] == FENCE &&
			    kept_room[to + bytes + i] == FENCE);
	memset(kept_room, FENCE, bytes + 64);
	assert_int_equal(
		engine->tag_live(mine, 1, tweak, theirs_room, kept_room, bytes, tag), SECPOOL_OK);
	assert_memory_equal(tag, right, sizeof tag);
	assert_memory_equal(kept_room, theirs_room, bytes);
	/* in place */
	assert_int_equal(engine->page_seal(mine, 0, tweak, sealed, sealed, bytes, tag), SECPOOL_OK);
	assert_memory_equal(sealed, theirs_room, bytes);
	assert_int_equal(engine->page_open(mine, 1, tweak, sealed, sealed, bytes, tag), SECPOOL_OK);
	assert_memory_equal(sealed, plain, bytes);
}

static void test_sizes(void **state)
{
	(void)state;
	os_random(plain_room, ROOM);
	for (size_t bytes = PAGECIPHER_PAGE_BYTES_LEAST; bytes <= PAGECIPHER_PAGE_BYTES_MOST;
		bytes *= 2) {
		struct engine_key *mine, *theirs;

		keys_for(bytes, &mine, &theirs);
		one_page(mine, theirs, bytes, 0, 0);
		one_page(mine, theirs, bytes, 1, 63);
		engine->key_free(mine);
		engine_openssl.key_free(theirs);
	}
}

/* Every number of units up to some runs of the hash, of which the first may be shorter than the others. */
static void test_units(void **state)
{
	struct engine_key *mine, *theirs;

	(void)state;
	os_random(plain_room, ROOM);
	keys_for(4096, &mine, &theirs);
	for (size_t bytes = ENGINE_PAGE_UNIT_BYTES; bytes <= 17 * ENGINE_PAGE_UNIT_BYTES;
		bytes += ENGINE_PAGE_UNIT_BYTES)
		one_page(mine, theirs, bytes, 5, 9);
	engine->key_free(mine);
	engine_openssl.key_free(theirs);
}

static void test_alignments(void **state)
{
	struct engine_key *mine, *theirs;

	(void)state;
	keys_for(4096, &mine, &theirs);
	for (size_t from = 0; from < 64; from++) {
		for (size_t to = 0; to < 64; to += from % 8 ? 7 : 1)
			one_page(mine, theirs, 4096, from, to);
	}
	engine->key_free(mine);
	engine_openssl.key_free(theirs);
}

/* Every length up to some groups, with stolen ciphertext where it is not whole blocks; XTS and the tag alone. */
static void test_lengths(void **state)
{
	struct engine_key *mine, *theirs;

	(void)state;
	keys_for(4096, &mine, &theirs);
	for (size_t bytes = 0; bytes <= 5000; bytes += bytes < 2200 ? 1 : 61) {
		assert_int_equal(
			engine->tag(mine, 0, tweak, plain_room + 3, bytes, tag), SECPOOL_OK);
		assert_int_equal(engine_openssl.tag(theirs, 0, tweak, plain_room + 3, bytes, right),
			SECPOOL_OK);
		assert_memory_equal(tag, right, sizeof tag);
		if (bytes < XTS_UNIT_BYTES_LEAST)
			continue;
		assert_int_equal(
			engine->xts_seal(mine, 0, tweak, plain_room, mine_room, bytes), SECPOOL_OK);
		assert_int_equal(
			engine_openssl.xts_seal(theirs, 0, tweak, plain_room, theirs_room, bytes),
			SECPOOL_OK);
		assert_memory_equal(mine_room, theirs_room, bytes);
		assert_int_equal(
			engine->xts_open(mine, 0, tweak, mine_room, mine_room, bytes), SECPOOL_OK);
		assert_memory_equal(mine_room, plain_room, bytes);
	}
	engine->key_free(mine);
	engine_openssl.key_free(theirs);
}

static void refuses(size_t bytes)
{
	struct engine_key *mine, *theirs;

	keys_for(bytes, &mine, &theirs);
	assert_int_equal(
		engine->page_seal(mine, 0, tweak, plain_room, theirs_room, bytes, tag), SECPOOL_OK);
	for (size_t i = 0; i < 128 + 64; i++) {
		uint8_t *byte = i < 128 ? &tag[i / 8] : &theirs_room[(i - 128) * (bytes / 64)];

		*byte ^= (uint8_t)(1u << (i % 8));
		memset(mine_room, FENCE, bytes);
		assert_int_equal(
			engine->page_open(mine, 0, tweak, theirs_room, mine_room, bytes, tag),
			SECPOOL_E_INTEGRITY);
		if (i % 32 == 0)
			memset(mine_room, FENCE, bytes);
		assert_int_equal(engine->page_open_live(mine, 0, tweak, theirs_room, kept_room,
					 mine_room, bytes, tag),
			SECPOOL_E_INTEGRITY);
		*byte ^= (uint8_t)(1u << (i % 8));
		if (i % 32 == 0)
			for (size_t at = 0; at < bytes; at++)
				assert_int_equal(mine_room[at], 0);
	}
	for (size_t at = 0; at < bytes; at++)
		assert_int_equal(mine_room[at], 0);
	engine->key_free(mine);
	engine_openssl.key_free(theirs);
}

static void test_refuses(void **state)
{
	(void)state;
	refuses(4096);
	refuses(65536);
}

/* Others change the ciphertext while it is taken. */
struct changer {
	_Atomic bool stop;
	uint8_t *byte;
};

static void *change(void *arg)
{
	struct changer *changer = arg;

	while (!changer->stop)
		for (unsigned i = 0; i < 64; i++)
			*(volatile uint8_t *)changer->byte ^= 1;
	return NULL;
}

/* Either it is refused or it is right, and what was kept is what was judged: had a byte been loaded twice, once good for the tag and once bad for the cipher, it would be neither. */
static void test_loads_once(void **state)
{
	enum { BYTES = 4096, ROUNDS = 20000 };
	struct changer changer = {.byte = theirs_room + BYTES / 2 + 3};
	struct engine_key *mine, *theirs;
	uint8_t last_tag[16];
	pthread_t thread;
	bool consistent = true;

	(void)state;
	keys_for(BYTES, &mine, &theirs);
	os_random(plain_room, BYTES);
	assert_int_equal(
		engine->page_seal(mine, 0, tweak, plain_room, theirs_room, BYTES, tag), SECPOOL_OK);
	assert_int_equal(pthread_create(&thread, NULL, change, &changer), 0);
	for (unsigned i = 0; i < ROUNDS && consistent; i++) {
		enum secpool_error error = engine->page_open_live(
			mine, 0, tweak, theirs_room, kept_room, mine_room, BYTES, tag);
		bool good = memcmp(mine_room, plain_room, BYTES) == 0;

		consistent = error ? error == SECPOOL_E_INTEGRITY && !good : good;
		if (engine->tag(mine, 0, tweak, kept_room, BYTES, last_tag) != SECPOOL_OK ||
			(memcmp(last_tag, tag, sizeof tag) == 0) != (error == SECPOOL_OK))
			consistent = false;
		if (engine->tag_live(mine, 0, tweak, theirs_room, kept_room, BYTES, right) ||
			engine->tag(mine, 0, tweak, kept_room, BYTES, last_tag) ||
			memcmp(right, last_tag, sizeof right) != 0)
			consistent = false;
	}
	changer.stop = true;
	pthread_join(thread, NULL);
	assert_true(consistent);
	engine->key_free(mine);
	engine_openssl.key_free(theirs);
}

static void test_limits(void **state)
{
	struct engine_key *mine, *theirs, *none = NULL;

	(void)state;
	keys_for(4096, &mine, &theirs);
	assert_int_equal(
		engine->xts_seal(mine, 0, tweak, plain_room, mine_room, 15), SECPOOL_E_INVALID);
	assert_int_equal(
		engine->xts_open(mine, 0, tweak, plain_room, mine_room, XTS_UNIT_BYTES_MOST + 1),
		SECPOOL_E_INVALID);
	if (engine != &engine_openssl) {
		assert_int_equal(
			engine->page_seal(mine, 0, tweak, plain_room, mine_room, 4097, tag),
			SECPOOL_E_INVALID);
		assert_int_equal(engine->page_open(mine, 0, tweak, plain_room, mine_room, 0, tag),
			SECPOOL_E_INVALID);
		assert_int_equal(engine->page_open_live(mine, 0, tweak, plain_room, kept_room,
					 mine_room, 511, tag),
			SECPOOL_E_INVALID);
		assert_int_equal(engine->tag_live(mine, 0, tweak, plain_room, kept_room, 513, tag),
			SECPOOL_E_INVALID);
	}
	memcpy(keys.xts + 32, keys.xts, 32);
	assert_int_equal(engine_key_new(engine, &keys, 4096, 1, &none), SECPOOL_E_CRYPTO);
	assert_null(none);
	engine->key_free(NULL);
	engine->key_free(mine);
	engine_openssl.key_free(theirs);
}

static void test_compare(void **state)
{
	(void)state;
	for (int i = 0; i < 10; i++)
		assert_int_equal(engine_compare(engine), SECPOOL_OK);
}

#ifdef __x86_64__

__attribute__((noinline, target("avx2"))) static void store256(void)
{
#define STORE(n) "vmovdqu %%ymm" #n ", " #n "*64(%0)\n\t"
	__asm__ volatile(STORE(0) STORE(1) STORE(2) STORE(3) STORE(4) STORE(5) STORE(6) STORE(
		7) STORE(8) STORE(9) STORE(10) STORE(11) STORE(12) STORE(13) STORE(14) STORE(15)
			 :
			 : "r"(registers)
			 : "memory");
#undef STORE
}

static void registers_are_clear(void)
{
	if (engine == &engine_vaes512)
		store512();
	else
		store256();
	for (size_t i = 0; i < sizeof registers; i++)
		assert_int_equal(registers[i], 0);
}

/* After each call no vector register holds anything. */
static void test_registers_are_cleared(void **state)
{
	struct engine_key *mine, *theirs;
	enum secpool_error errors[8];

	(void)state;
	if (engine == &engine_openssl)
		skip();
	keys_for(4096, &mine, &theirs);
	errors[0] = engine->page_seal(mine, 0, tweak, plain_room, mine_room, 4096, tag);
	registers_are_clear();
	errors[1] = engine->page_open(mine, 0, tweak, mine_room, theirs_room, 4096, tag);
	registers_are_clear();
	errors[2] = engine->page_open(mine, 0, tweak, mine_room, theirs_room, 4096 * 16, tag);
	registers_are_clear();
	errors[3] = engine->xts_seal(mine, 0, tweak, plain_room, mine_room, 4096);
	registers_are_clear();
	errors[4] = engine->xts_open(mine, 0, tweak, mine_room, theirs_room, 4109);
	registers_are_clear();
	errors[5] = engine->tag(mine, 0, tweak, plain_room, 4099, tag);
	registers_are_clear();
	errors[6] = engine->tag_live(mine, 0, tweak, mine_room, kept_room, 4096, tag);
	registers_are_clear();
	errors[7] = engine->page_open_live(
		mine, 0, tweak, mine_room, kept_room, theirs_room, 4096, tag);
	registers_are_clear();
	for (size_t i = 0; i < 8; i++)
		assert_int_equal(errors[i], i == 2 ? SECPOOL_E_INTEGRITY : SECPOOL_OK);
	engine->key_free(mine);
	engine_openssl.key_free(theirs);
}

/* One call with a stack of its own, all zeros before. */
struct call {
	struct engine_key *key;
	enum {
		CALL_SEAL,
		CALL_OPEN,
		CALL_XTS_SEAL,
		CALL_XTS_OPEN,
		CALL_TAG,
		CALL_OPEN_LIVE,
		CALL_TAG_LIVE,
		CALLS
	} which;
	enum secpool_error error;
	uint64_t canary;
	const uint8_t *frame;
};

static void *call_one(void *arg)
{
	struct call *call = arg;

	__asm__("mov %%fs:0x28, %0" : "=r"(call->canary));
	call->frame = __builtin_frame_address(0);
	switch (call->which) {
	case CALL_SEAL:
		call->error =
			engine->page_seal(call->key, 0, tweak, plain_room, mine_room, 8192, tag);
		break;
	case CALL_OPEN:
		call->error =
			engine->page_open(call->key, 0, tweak, mine_room, theirs_room, 8192, tag);
		break;
	case CALL_XTS_SEAL:
		call->error = engine->xts_seal(call->key, 0, tweak, plain_room, theirs_room, 8191);
		break;
	case CALL_XTS_OPEN:
		call->error = engine->xts_open(call->key, 0, tweak, mine_room, theirs_room, 8192);
		break;
	case CALL_TAG:
		call->error = engine->tag(call->key, 0, tweak, plain_room, 8191, right);
		break;
	case CALL_OPEN_LIVE:
		call->error = engine->page_open_live(
			call->key, 0, tweak, mine_room, kept_room, theirs_room, 8192, tag);
		break;
	case CALL_TAG_LIVE:
		call->error =
			engine->tag_live(call->key, 0, tweak, plain_room, kept_room, 8192, right);
		break;
	case CALLS:
	default:
		call->error = SECPOOL_E_INTERNAL;
	}
	return NULL;
}

/* Words below the call's frame that are neither small numbers nor addresses: random bytes are both once in 2^15. */
static size_t words_left(struct call *call)
{
	enum { STACK = 256 << 10 };
	uint64_t *stack = aligned_alloc(4096, STACK);
	pthread_attr_t attributes;
	pthread_t thread;
	size_t found = 0;

	assert_non_null(stack);
	memset(stack, 0, STACK);
	assert_int_equal(pthread_attr_init(&attributes), 0);
	assert_int_equal(pthread_attr_setstack(&attributes, stack, STACK), 0);
	assert_int_equal(pthread_create(&thread, &attributes, call_one, call), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	pthread_attr_destroy(&attributes);
	for (uint64_t *word = stack; (const uint8_t *)word < call->frame; word++)
		found += *word != call->canary && *word >= 1ull << 48 && *word < -(1ull << 48);
	free(stack);
	return found;
}

/* Nor does the stack: a vector that was laid there is gone. */
static void test_stack_is_wiped(void **state)
{
	struct engine_key *mine, *theirs;

	(void)state;
	if (engine == &engine_openssl || SANITIZED)
		skip(); /* OpenSSL's frames are its own; a sanitizer's are larger than the product's */
	keys_for(8192, &mine, &theirs);
	for (int i = 0; i < CALLS; i++) {
		struct call call = {.key = mine, .which = i};

		assert_int_equal(words_left(&call), 0);
		assert_int_equal(call.error, SECPOOL_OK);
	}
	engine->key_free(mine);
	engine_openssl.key_free(theirs);
}

#else
static void test_registers_are_cleared(void **state)
{
	(void)state;
	skip();
}

static void test_stack_is_wiped(void **state)
{
	(void)state;
	skip();
}
#endif

/* Last: what the process chooses, and that the demand for OpenSSL stands. */
static void test_choice(void **state)
{
	(void)state;
	assert_ptr_equal(engine_chosen(), &engine_openssl);
	assert_true(engine_best()->usable());
#ifdef __x86_64__
	assert_ptr_equal(engine_best(), cpu_has_vaes512()   ? &engine_vaes512
					: cpu_has_vaes256() ? &engine_vaes256
							    : &engine_openssl);
#endif
	engine_choose(engine_best());
	assert_ptr_equal(engine_chosen(), engine_best());
	engine_demand_openssl();
	assert_ptr_equal(engine_best(), &engine_openssl);
	assert_ptr_equal(engine_chosen(), &engine_openssl);
	engine_choose(engine_at(0));
	assert_ptr_equal(engine_chosen(), &engine_openssl);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_units),
		cmocka_unit_test(test_alignments),
		cmocka_unit_test(test_lengths),
		cmocka_unit_test(test_refuses),
		cmocka_unit_test(test_loads_once),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_compare),
		cmocka_unit_test(test_registers_are_cleared),
		cmocka_unit_test(test_stack_is_wiped),
	};
	const struct CMUnitTest last[] = {cmocka_unit_test(test_choice)};
	int failed = 0;

	if (secmem_init(SECMEM_ALLOW_LOCKED)) {
		fprintf(stderr, "secmem_init: %s\n", err_detail());
		return 1;
	}
	for (size_t i = 0; engine_at(i); i++) {
		engine = engine_at(i);
		if (!engine->usable())
			continue;
		print_message("engine %s\n", engine->name);
		failed += cmocka_run_group_tests(tests, NULL, NULL);
	}
	return failed + cmocka_run_group_tests(last, NULL, NULL);
}
