/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/cache.h"

enum { PAGE = 4096 };

static void test_budget(void **state)
{
	static struct cache cache;

	(void)state;
	assert_int_equal(cache_init(&cache, 1024 * PAGE), SECPOOL_OK);
	assert_true(cache_reserve(&cache, 0, 1000 * PAGE));
	assert_false(cache_reserve(&cache, 1, 25 * PAGE));
	assert_int_equal(cache_used_bytes(&cache), 1000 * PAGE); /* nothing changed on refusal */
	/* the last bytes too, though another shard has some in advance */
	assert_true(cache_reserve(&cache, 2, PAGE));
	assert_true(cache_reserve(&cache, 3, 23 * PAGE));
	assert_false(cache_reserve(&cache, 4, 1));
	assert_int_equal(cache_used_bytes(&cache), 1024 * PAGE);
	cache_return(&cache, 5, 1024 * PAGE);
	assert_int_equal(cache_used_bytes(&cache), 0);
	assert_false(cache_reserve(&cache, 0, SIZE_MAX));
	assert_true(cache_reserve(&cache, 0, 1024 * PAGE));
	cache_return(&cache, 0, 1024 * PAGE);
	cache_done(&cache);
	cache_done(&cache);
}

static struct cache_entry entry_of(uint64_t pgno, enum cache_queue queue)
{
	return (struct cache_entry){.region = (uint32_t)(pgno % 3), .pgno = pgno, .queue = queue};
}

static void test_first_in_first_out(void **state)
{
	static struct cache cache;
	struct cache_entry entries[64];
	uint64_t next = 0;

	(void)state;
	assert_int_equal(cache_init(&cache, 256 * PAGE), SECPOOL_OK);
	assert_int_equal(cache_pop(&cache, entries, 64), 0);
	for (uint64_t i = 0; i < 2000; i++) { /* round the store many times, from one shard */
		cache_push(&cache, 7, entry_of(i, CACHE_NEW));
		if (cache_count(&cache) < 256)
			continue;
		assert_int_equal(cache_pop(&cache, entries, 50), 50);
		for (unsigned k = 0; k < 50; k++, next++) {
			assert_int_equal(entries[k].pgno, next);
			assert_int_equal(entries[k].region, next % 3);
			assert_int_equal(entries[k].queue, CACHE_NEW);
		}
	}
	cache_done(&cache);
}

/* As many entries as pages fit, wherever they are. */
static void test_room_for_every_page(void **state)
{
	static struct cache cache;
	struct cache_entry entries[64];
	size_t seen = 0, got;

	(void)state;
	for (unsigned shards = 1; shards <= CACHE_SHARDS; shards *= 16) {
		assert_int_equal(cache_init(&cache, 4096 * PAGE), SECPOOL_OK);
		for (unsigned i = 0; i < 4096; i++)
			cache_push(&cache, i % shards, entry_of(i, i & 1 ? CACHE_HOT : CACHE_NEW));
		assert_int_equal(cache_count(&cache), 4096);
		for (seen = 0; (got = cache_pop(&cache, entries, 64)) > 0;)
			seen += got;
		assert_int_equal(seen, 4096);
		/* 8 bytes a page, and what half-filled chunks may waste */
		assert_true(cache_metadata_bytes(&cache) <=
			    4096 * 8 + 2 * CACHE_SHARDS * CACHE_QUEUES * VICTIMQUEUE_CHUNK_BYTES);
		cache_done(&cache);
	}
}

static void test_forget(void **state)
{
	static struct cache cache;
	struct cache_entry entries[4];

	(void)state;
	assert_int_equal(cache_init(&cache, 256 * PAGE), SECPOOL_OK);
	for (uint64_t i = 0; i < 30; i++)
		cache_push(&cache, (unsigned)i, entry_of(i, i < 10 ? CACHE_HOT : CACHE_NEW));
	cache_forget(&cache, 1);
	assert_int_equal(cache_count(&cache), 20);
	while (cache_pop(&cache, entries, 1) > 0)
		assert_int_not_equal(entries[0].region, 1);
	assert_int_equal(cache_count(&cache), 0);
	cache_done(&cache);
}

static void *wait_low(void *arg)
{
	return cache_wait_low(arg) ? arg : NULL;
}

static void test_marks(void **state)
{
	enum { LIMIT = 1024 * PAGE };
	static struct cache cache;
	pthread_t thread;
	void *result;

	(void)state;
	assert_int_equal(cache_init(&cache, LIMIT), SECPOOL_OK);
	assert_int_equal(pthread_create(&thread, NULL, wait_low, &cache), 0);
	while (atomic_load(&cache.cleaning)) /* until it sleeps */
		usleep(1000);
	assert_true(cache_reserve(&cache, 0, LIMIT - cache.low_bytes + PAGE));
	pthread_join(thread, &result);
	assert_ptr_equal(result, &cache);
	/* between the marks it goes on; above them it would sleep */
	cache_return(&cache, 0, 2 * PAGE);
	assert_true(cache_wait_low(&cache));
	cache_return(&cache, 0, cache.high_bytes);
	assert_int_equal(pthread_create(&thread, NULL, wait_low, &cache), 0);
	while (atomic_load(&cache.cleaning))
		usleep(1000);
	cache_stop(&cache);
	pthread_join(thread, &result);
	assert_null(result);
	assert_false(cache_wait_low(&cache));
	cache_done(&cache);
}

/* A cache of pages in its simplest form: what is resident, when it left, and what a fault does. */
struct model {
	struct cache cache;
	size_t pages;
	uint8_t resident[8192];
	uint16_t era[8192];
	uint8_t was[8192];
	size_t count, misses;
};

static void touch(struct model *m, uint64_t pgno)
{
	struct cache_entry entry;

	if (m->resident[pgno])
		return;
	m->misses++;
	if (m->count == m->pages) {
		assert_int_equal(cache_pop(&m->cache, &entry, 1), 1);
		m->resident[entry.pgno] = 0;
		m->era[entry.pgno] = cache_era(&m->cache);
		m->was[entry.pgno] = 1;
		m->count--;
	}
	entry = (struct cache_entry){.pgno = pgno,
		.queue = m->was[pgno] ? cache_queue_for(&m->cache, m->era[pgno]) : CACHE_NEW};
	cache_push(&m->cache, 0, entry);
	m->resident[pgno] = 1;
	m->count++;
}

/* Pages that come back again and again stay, while others pass through once. */
static void test_a_scan_pushes_no_hot_page_out(void **state)
{
	static struct model m;
	size_t before, resident = 0;

	(void)state;
	memset(&m, 0, sizeof m);
	m.pages = 1024;
	assert_int_equal(cache_init(&m.cache, m.pages * PAGE), SECPOOL_OK);
	for (unsigned round = 0; round < 40; round++) { /* 400 pages in use, among others */
		for (uint64_t i = 0; i < 400; i++)
			touch(&m, i);
		for (uint64_t i = 0; i < 700; i++)
			touch(&m, 1000 + (round * 700 + i) % 7000);
	}
	before = m.misses;
	for (uint64_t i = 0; i < 7000; i++)
		touch(&m, 1000 + i);
	assert_true(m.misses - before > 6000); /* the scan itself */
	for (uint64_t i = 0; i < 400; i++)
		resident += m.resident[i];
	assert_true(resident > 380);
	cache_done(&m.cache);
}

/* Hot pages that are not asked for any more make room for new ones that are. */
static void test_old_hot_pages_leave(void **state)
{
	static struct model m;
	size_t resident = 0;

	(void)state;
	memset(&m, 0, sizeof m);
	m.pages = 1024;
	assert_int_equal(cache_init(&m.cache, m.pages * PAGE), SECPOOL_OK);
	for (unsigned phase = 0; phase < 2; phase++)
		for (unsigned round = 0; round < 40; round++)
			for (uint64_t i = 0; i < 1200; i++)
				touch(&m, phase * 2000 + (i * 7) % 1200);
	for (uint64_t i = 0; i < 2000; i++)
		resident += m.resident[i];
	assert_true(resident < 100);
	cache_done(&m.cache);
}

/* ---- several threads ---- */

enum { THREADS = 6, ROUNDS = 20000, STRESS_PAGES = 512 };

struct stress {
	struct cache *cache;
	unsigned number;
	_Atomic uint8_t *owned; /* by page: 1 while queued */
	pthread_t thread;
};

static void *stress(void *arg)
{
	struct stress *s = arg;
	struct cache_entry entries[8];
	unsigned seed = s->number;

	for (int i = 0; i < ROUNDS; i++) {
		uint64_t pgno = (uint64_t)rand_r(&seed) % (4 * STRESS_PAGES);
		if (cache_reserve(s->cache, s->number, PAGE)) {
			assert_true(cache_used_bytes(s->cache) <= STRESS_PAGES * PAGE);
			if (atomic_exchange(&s->owned[pgno], 1)) {
				cache_return(s->cache, s->number, PAGE);
			} else {
				cache_push(s->cache, s->number, entry_of(pgno, pgno & 1));
				continue;
			}
		}
		for (unsigned k = cache_pop(s->cache, entries, 1 + (unsigned)i % 8); k-- > 0;) {
			assert_true(atomic_exchange(&s->owned[entries[k].pgno], 0) == 1);
			cache_return(s->cache, s->number, PAGE);
		}
	}
	return NULL;
}

static void test_no_entry_is_lost_or_doubled(void **state)
{
	static struct cache cache;
	static _Atomic uint8_t owned[4 * STRESS_PAGES];
	struct stress threads[THREADS];
	struct cache_entry entry;
	size_t left = 0;

	(void)state;
	assert_int_equal(cache_init(&cache, STRESS_PAGES * PAGE), SECPOOL_OK);
	for (unsigned i = 0; i < THREADS; i++) {
		threads[i] = (struct stress){.cache = &cache, .number = i, .owned = owned};
		assert_int_equal(pthread_create(&threads[i].thread, NULL, stress, &threads[i]), 0);
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i].thread, NULL);
	while (cache_pop(&cache, &entry, 1) > 0) {
		assert_true(atomic_exchange(&owned[entry.pgno], 0) == 1);
		left++;
	}
	assert_int_equal(cache_used_bytes(&cache), left * PAGE);
	for (size_t i = 0; i < 4 * STRESS_PAGES; i++)
		assert_int_equal(owned[i], 0);
	cache_done(&cache);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_budget),
		cmocka_unit_test(test_first_in_first_out),
		cmocka_unit_test(test_room_for_every_page),
		cmocka_unit_test(test_forget),
		cmocka_unit_test(test_marks),
		cmocka_unit_test(test_a_scan_pushes_no_hot_page_out),
		cmocka_unit_test(test_old_hot_pages_leave),
		cmocka_unit_test(test_no_entry_is_lost_or_doubled),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
