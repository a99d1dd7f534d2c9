/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The heap against a model: threads take, check, resize and free each other's objects of 1 byte to 1 GiB (64 MiB under a sanitizer), by all functions, in two pools at once. And its misuse, each kind in a
 * process of its own: a sentence that says what was done, and SIGABRT; and calls with handles that have ended: an error. timeout: 300
 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/support/support.h"

enum { THREADS = 6, SLOTS = 384, POOLS = 2, LOCAL = 24 << 20, PIECE = 64, PAGE = 4096 };
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { OPERATIONS = 3000, HUGE_SHIFT = 26, WAIT_MS = 240000 };
#else
enum { OPERATIONS = 12000, HUGE_SHIFT = 30, WAIT_MS = 60000 };
#endif

/* An object of the model. Its bytes follow from its number and their place, all of a small one, and of a large one those of PIECEs that lie apart. */
struct slot {
	pthread_mutex_t lock;
	uint8_t *object;
	size_t bytes;
	uint64_t number;
	unsigned pool;
};

static struct slot slots[SLOTS];
static struct secpool *pools[POOLS];
static _Atomic size_t live_bytes;

static uint8_t byte_of(const struct slot *slot, size_t at)
{
	return (uint8_t)(slot->number * 131 + at * 7 + (at >> 8));
}

/* Where the next piece that is written begins; small objects have no gaps. */
static size_t next_piece(const struct slot *slot, size_t at)
{
	return at + (slot->bytes <= 4 * PAGE ? PIECE : slot->bytes / 64 + PIECE);
}

static void fill(const struct slot *slot, size_t from)
{
	for (size_t at = 0; at < slot->bytes; at = next_piece(slot, at))
		for (size_t i = at; i < at + PIECE && i < slot->bytes; i++)
			if (i >= from)
				slot->object[i] = byte_of(slot, i);
}

static void check(const struct slot *slot, size_t bytes)
{
	for (size_t at = 0; at < bytes; at = next_piece(slot, at))
		for (size_t i = at; i < at + PIECE && i < bytes; i++)
			if (slot->object[i] != byte_of(slot, i))
				support_fail(
					"byte %zu of an object of %zu is wrong", i, slot->bytes);
}

/* Mostly small, as programs have them; one in 64 up to 4 MiB. */
static size_t random_bytes(unsigned *seed)
{
	unsigned shift = (unsigned)rand_r(seed) % 13;

	if (rand_r(seed) % 64 == 0)
		shift = 12 + (unsigned)rand_r(seed) % 11;
	return 1 + (size_t)rand_r(seed) % ((size_t)1 << shift);
}

static void take(struct slot *slot, unsigned *seed)
{
	static _Atomic uint64_t last;
	struct secpool *pool;
	size_t alignment = (size_t)1 << rand_r(seed) % 14;

	slot->bytes = random_bytes(seed);
	slot->pool = (unsigned)rand_r(seed) % POOLS;
	slot->number = ++last;
	pool = pools[slot->pool];
	switch (rand_r(seed) % 4) {
	case 0:
		slot->object = secpool_calloc(pool, slot->bytes, 1);
		for (size_t i = 0; slot->object && i < slot->bytes; i++)
			SUPPORT_CHECK(slot->object[i] == 0);
		break;
	case 1:
		slot->object = secpool_aligned_alloc(pool, alignment, slot->bytes);
		SUPPORT_CHECK((uintptr_t)slot->object % alignment == 0);
		break;
	default:
		slot->object = secpool_malloc(pool, slot->bytes);
		break;
	}
	if (!slot->object)
		support_fail("%zu bytes: %s", slot->bytes, secpool_error_detail());
	SUPPORT_CHECK(secpool_usable_size(pool, slot->object) >= slot->bytes);
	fill(slot, 0);
	live_bytes += slot->bytes;
}

static void give_back(struct slot *slot)
{
	check(slot, slot->bytes);
	live_bytes -= slot->bytes;
	secpool_free(pools[slot->pool], slot->object);
	slot->object = NULL;
}

static void resize(struct slot *slot, unsigned *seed)
{
	size_t bytes = random_bytes(seed), kept = bytes < slot->bytes ? bytes : slot->bytes;
	uint8_t *object = secpool_realloc(pools[slot->pool], slot->object, bytes);

	if (!object)
		support_fail(
			"%zu bytes instead of %zu: %s", bytes, slot->bytes, secpool_error_detail());
	slot->object = object;
	check(slot, kept); /* by the old length's pieces */
	live_bytes += bytes - slot->bytes;
	slot->bytes = bytes;
	fill(slot, 0);
}

static void *stress(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;

	for (int i = 0; i < OPERATIONS; i++) {
		struct slot *slot = &slots[(unsigned)rand_r(&seed) % SLOTS];
		pthread_mutex_lock(&slot->lock);
		if (!slot->object)
			take(slot, &seed);
		else if (rand_r(&seed) % 4 == 0)
			resize(slot, &seed);
		else
			give_back(slot);
		pthread_mutex_unlock(&slot->lock);
	}
	return NULL;
}

/* While the others go on: one huge object, by growing; its bytes come along. */
static void *grow_huge(void *arg)
{
	struct slot slot = {.bytes = 1, .number = 1};

	(void)arg;
	slot.object = secpool_malloc(pools[0], slot.bytes);
	SUPPORT_CHECK(slot.object != NULL);
	slot.object[0] = byte_of(&slot, 0);
	for (unsigned shift = 6; shift <= HUGE_SHIFT; shift += 4) {
		slot.object = secpool_realloc(pools[0], slot.object, (size_t)1 << shift);
		if (!slot.object)
			support_fail("2^%u bytes: %s", shift, secpool_error_detail());
		check(&slot, slot.bytes);
		slot.bytes = (size_t)1 << shift;
		fill(&slot, 0);
	}
	check(&slot, slot.bytes);
	secpool_free(pools[0], slot.object);
	return NULL;
}

static int be_model(void *arg)
{
	pthread_t threads[THREADS + 1];
	struct secpool_stats stats = {.size = sizeof stats};

	(void)arg;
	for (unsigned i = 0; i < POOLS; i++)
		pools[i] = support_open(i == 0 ? "alpha" : "alpha2", LOCAL);
	for (unsigned i = 0; i < SLOTS; i++)
		pthread_mutex_init(&slots[i].lock, NULL);
	for (uintptr_t i = 0; i <= THREADS; i++)
		SUPPORT_CHECK(pthread_create(&threads[i], NULL, i == 0 ? grow_huge : stress,
				      (void *)(i + 1)) == 0);
	for (unsigned i = 0; i <= THREADS; i++)
		pthread_join(threads[i], NULL);
	for (unsigned i = 0; i < SLOTS; i++)
		if (slots[i].object)
			give_back(&slots[i]);
	SUPPORT_CHECK(live_bytes == 0);
	for (unsigned i = 0; i < POOLS; i++) {
		SUPPORT_OK(secpool_stats(pools[i], &stats));
		SUPPORT_CHECK(stats.lost_pages == 0 && stats.resident_bytes <= LOCAL);
		secpool_close(pools[i]);
	}
	return 0;
}

/* ---- misuse ---- */

static void *free_it(void *object)
{
	secpool_free(pools[0], object);
	return NULL;
}

static void double_free(void)
{
	void *object = secpool_malloc(pools[0], 100);

	secpool_free(pools[0], object);
	secpool_free(pools[0], object);
}

static void double_free_by_another_thread(void)
{
	void *object = secpool_malloc(pools[0], 4096);
	pthread_t thread;

	pthread_create(&thread, NULL, free_it, object);
	pthread_join(thread, NULL);
	secpool_free(pools[0], object);
}

static void double_free_of_a_large_one(void)
{
	void *object = secpool_malloc(pools[0], 1 << 20);

	secpool_free(pools[0], object);
	secpool_free(pools[0], object);
}

static void free_of_the_stack(void)
{
	int object;

	secpool_free(pools[0], &object);
}

static void free_of_ordinary_memory(void)
{
	secpool_free(pools[0], pools); /* and not by way of malloc, whose analysers know better */
}

static void free_of_a_region(void)
{
	secpool_free(pools[0], secpool_region_address(support_region(pools[0], 1 << 20, 1)));
}

static void free_in_another_pool(void)
{
	secpool_free(pools[0], secpool_malloc(pools[1], 100));
}

static void free_of_the_middle(void)
{
	secpool_free(pools[0], (char *)secpool_malloc(pools[0], 1000) + 16);
}

static void free_of_the_middle_of_a_large_one(void)
{
	secpool_free(pools[0], (char *)secpool_malloc(pools[0], 1 << 20) + (512 << 10));
}

static void realloc_of_a_freed_large_one(void)
{
	void *object = secpool_malloc(pools[0], 1 << 20);

	secpool_free(pools[0], object);
	(void)!secpool_realloc(pools[0], object, 1 << 10);
}

static void size_of_a_foreign_one(void)
{
	(void)!secpool_usable_size(pools[0], pools);
}

static void free_in_a_closed_pool(void)
{
	void *object = secpool_malloc(pools[0], 100);

	secpool_close(pools[0]);
	secpool_free(pools[0], object);
}

static void close_twice(void)
{
	secpool_close(pools[0]);
	secpool_close(pools[0]);
}

static const struct misuse {
	void (*commit)(void);
	const char *name, *sentence;
} misuses[] = {
#define MISUSE(name, sentence)                                                                     \
	{                                                                                          \
		name, #name, sentence                                                              \
	}
	MISUSE(double_free, "double free"),
	MISUSE(double_free_by_another_thread, "double free"),
	MISUSE(double_free_of_a_large_one, "freed already"),
	MISUSE(free_of_the_stack, "not of this heap"),
	MISUSE(free_of_ordinary_memory, "not of this heap"),
	MISUSE(free_of_a_region, "not of this heap"),
	MISUSE(free_in_another_pool, "not of this heap"),
	MISUSE(free_of_the_middle, "no object begins there"),
	MISUSE(free_of_the_middle_of_a_large_one, "no object begins there"),
	MISUSE(realloc_of_a_freed_large_one, "freed already"),
	MISUSE(size_of_a_foreign_one, "not of this heap"),
	MISUSE(free_in_a_closed_pool, "in a pool that was closed"),
	MISUSE(close_twice, "closed already"),
};

static int said = -1; /* where the child's standard error goes */

static int be_misuser(void *arg)
{
	const struct misuse *misuse = arg;

	SUPPORT_CHECK(dup2(said, STDERR_FILENO) >= 0);
	for (unsigned i = 0; i < POOLS; i++)
		pools[i] = support_open(i == 0 ? "alpha" : "alpha2", LOCAL);
	secpool_free(pools[0], secpool_malloc(pools[0], 1)); /* there is a heap */
	misuse->commit();
	return 0;
}

static void check_misuse(const struct misuse *misuse)
{
	char text[4096] = "";
	int status;

	said = memfd_create("said", MFD_CLOEXEC);
	SUPPORT_CHECK(said >= 0);
	status = support_join(support_fork(be_misuser, (void *)(uintptr_t)misuse), WAIT_MS);
	SUPPORT_CHECK(pread(said, text, sizeof text - 1, 0) >= 0);
	close(said);
	if (status != 128 + SIGABRT || !strstr(text, misuse->sentence) ||
		!strstr(text, "secpool: "))
		support_fail("%s ended with %d and: %s", misuse->name, status, text);
}

static void expect_closed(enum secpool_error error, const char *word)
{
	if (error != SECPOOL_E_CLOSED || !strstr(secpool_error_detail(), word))
		support_fail("%s: %s", secpool_strerror(error), secpool_error_detail());
}

/* Calls with a region that was released, then with a pool that was closed: an error that says which. */
static int be_late(void *arg)
{
	struct secpool *pool = support_open("alpha", LOCAL);
	struct secpool_region *region = support_region(pool, 1 << 20, 1);
	struct secpool_region_options wanted = {.size = sizeof wanted, .bytes = 1 << 20};
	struct secpool_event event = {.size = sizeof event};
	struct secpool_stats stats = {.size = sizeof stats};
	size_t count;
	char byte = 0;

	(void)arg;
	SUPPORT_CHECK(secpool_malloc(pool, 1) != NULL);
	SUPPORT_OK(secpool_region_release(region, NULL));
	expect_closed(secpool_region_release(region, NULL), "released");
	expect_closed(secpool_read(region, 0, &byte, 1), "released");
	expect_closed(secpool_write(region, 0, &byte, 1), "released");
	expect_closed(secpool_flush(region), "released");
	expect_closed(secpool_pin(region, 0, 1), "released");
	expect_closed(secpool_unpin(region, 0, 1), "released");
	expect_closed(secpool_prefetch(region, 0, 1), "released");
	expect_closed(secpool_region_lost(region, NULL, 0, &count), "released");
	SUPPORT_CHECK(secpool_region_address(region) == NULL && secpool_region_bytes(region) == 0);
	region = support_region(pool, 1 << 20, 1);
	secpool_close(pool);
	expect_closed(secpool_read(region, 0, &byte, 1), "released");
	expect_closed(secpool_region_create(pool, &wanted, &region), "closed");
	expect_closed(secpool_event_next(pool, &event), "closed");
	expect_closed(secpool_stats(pool, &stats), "closed");
	SUPPORT_CHECK(secpool_event_fd(pool) == -1);
	SUPPORT_CHECK(secpool_malloc(pool, 1) == NULL && strstr(secpool_error_detail(), "closed"));
	SUPPORT_CHECK(secpool_usable_size(pool, &byte) == 0);
	return 0;
}

int main(void)
{
	support_up(3, "512M", NULL);
	SUPPORT_CHECK(support_join(support_fork(be_model, NULL), WAIT_MS) == 0);
	SUPPORT_CHECK(support_join(support_fork(be_late, NULL), WAIT_MS) == 0);
	for (size_t i = 0; i < sizeof misuses / sizeof *misuses; i++)
		check_misuse(&misuses[i]);
	support_wait_regions(0, WAIT_MS);
	support_down();
	return 0;
}
