/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many threads on two regions (with redundancy and without) many times larger than the local memory, against a model of every byte: no lost
 * write, no torn page, no deadlock. In the second half devices are pulled and plugged under the mirrored one. Usage: test_stress [SECONDS], 40 unless
 * given (or STRESS_SECONDS). timeout: 180
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "lib/base/clock.h"
#include "tests/support/support.h"

#ifndef STRESS_SECONDS
#define STRESS_SECONDS 40
#endif
/* The first region: a mirror of two on three devices, unless it is erasure-coded: data and parity lanes, one device more than lanes; as many as parity are pulled at once. */
#ifndef STRESS_DATA
#define STRESS_DATA   1
#define STRESS_PARITY 1
#endif
#ifndef STRESS_MODE
#define STRESS_MODE SECPOOL_FAULT_THREAD
#endif
enum { PAGE = 4096, PAGES = 4096, LOCAL_BYTES = 4 << 20, THREADS = 8, REGIONS = 2 };
enum { DEVICES = STRESS_DATA + STRESS_PARITY + 1 };
enum { WORDS = PAGE / sizeof(uint64_t), STALL_MS = 30000 };

/* A page under test: what it should hold, and who may touch it now. Protects: seed, and the page itself. */
struct model_page {
	pthread_mutex_t lock;
	uint64_t seed;	     /* of support_fill; 0: still zeros */
	uint64_t patched_at; /* one word was changed since: its index + 1, and what it is */
	uint64_t patched_to;
};

static struct region_under_test {
	struct secpool_region *region;
	uint8_t *memory;
	struct model_page pages[PAGES];
	atomic_bool is_in_use;
} regions[REGIONS];

static atomic_bool is_over;
static atomic_ullong operations[THREADS];

static uint64_t random_word(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* What the model says that the page is. */
static void expected(const struct model_page *page, uint64_t words[WORDS])
{
	if (page->seed)
		support_fill(words, PAGE, page->seed);
	else
		memset(words, 0, PAGE);
	if (page->patched_at)
		words[page->patched_at - 1] = page->patched_to;
}

static void check_words(
	const uint64_t *seen, const struct model_page *page, unsigned region, size_t pgno)
{
	uint64_t words[WORDS];
	size_t wrong = 0, zero = 0;

	expected(page, words);
	if (memcmp(seen, words, PAGE) == 0)
		return;
	for (size_t i = 0; i < WORDS; i++) {
		wrong += seen[i] != words[i];
		zero += seen[i] == 0;
	}
	support_fail("region %u page %zu: %zu of %zu words are wrong, %zu are zero", region, pgno,
		wrong, (size_t)WORDS, zero);
}

/* A pinned page is there, the same, and takes writes by the kernel. */
static void pin_for_a_moment(
	struct region_under_test *it, size_t pgno, struct model_page *page, unsigned region)
{
	uint64_t *at = (uint64_t *)(void *)(it->memory + pgno * PAGE);

	SUPPORT_OK(secpool_pin(it->region, pgno * PAGE, PAGE));
	check_words(at, page, region, pgno);
	/* in fault mode inline a system call would get EFAULT if the page were missing or protected */
	SUPPORT_CHECK(getrandom(at, sizeof *at, 0) == sizeof *at);
	page->patched_at = 0;
	page->seed = (at[0] | 1) ^ pgno;
	support_fill(at, PAGE, page->seed);
	SUPPORT_OK(secpool_unpin(it->region, pgno * PAGE, PAGE));
}

/* One access of one kind to a random page, under the page's lock. */
static void work_once(uint64_t *state)
{
	uint64_t dice = random_word(state), buffer[WORDS];
	unsigned region = (unsigned)(dice >> 60) & 1;
	size_t pgno = (dice >> 8) % PAGES, word = (dice >> 40) % WORDS;
	struct model_page *page = &regions[region].pages[pgno];
	uint64_t *at = (uint64_t *)(void *)(regions[region].memory + pgno * PAGE);

	pthread_mutex_lock(&page->lock);
	/* under the lock, which leave_single() takes of every page before the region goes */
	if (!atomic_load(&regions[region].is_in_use)) {
		pthread_mutex_unlock(&page->lock);
		return;
	}
	switch (dice % 9) {
	case 0: /* the whole page anew */
		page->seed = random_word(state) | 1;
		page->patched_at = 0;
		support_fill(at, PAGE, page->seed);
		break;
	case 1: /* the same by call */
		page->seed = random_word(state) | 1;
		page->patched_at = 0;
		support_fill(buffer, PAGE, page->seed);
		SUPPORT_OK(secpool_write(regions[region].region, pgno * PAGE, buffer, PAGE));
		break;
	case 6: /* a flush, and pages that are wanted soon, now and then */
		if (word == 0)
			SUPPORT_OK(secpool_flush(regions[region].region));
		else if (word < 8)
			SUPPORT_OK(secpool_prefetch(
				regions[region].region, pgno * PAGE, (PAGES - pgno) * PAGE));
		else if (word < 64)
			pin_for_a_moment(&regions[region], pgno, page, region);
		break;
	case 2: /* one word, by which a lost write is found soonest */
	case 3:
		if (page->patched_at)
			word = page->patched_at - 1;
		page->patched_at = word + 1;
		page->patched_to = random_word(state);
		at[word] = page->patched_to;
		break;
	case 4:
		SUPPORT_OK(secpool_read(regions[region].region, pgno * PAGE, buffer, PAGE));
		check_words(buffer, page, region, pgno);
		break;
	case 5: /* read, and read again: it does not change under us */
		memcpy(buffer, at, PAGE);
		check_words(buffer, page, region, pgno);
		check_words(at, page, region, pgno);
		break;
	default:
		check_words(at, page, region, pgno);
	}
	pthread_mutex_unlock(&page->lock);
}

static void *work(void *arg)
{
	size_t self = (size_t)(uintptr_t)arg;
	uint64_t state = 0x1234567 + 7919 * self;

	while (!atomic_load_explicit(&is_over, memory_order_relaxed)) {
		work_once(&state);
		atomic_fetch_add_explicit(&operations[self], 1, memory_order_relaxed);
	}
	return NULL;
}

/* Sleeps, and fails when a thread makes no step for STALL_MS. */
static void watch(uint64_t ns)
{
	static unsigned long long seen[THREADS];
	static uint64_t moved_ns[THREADS];
	uint64_t end = clock_now_ns() + ns;

	do {
		uint64_t now = clock_now_ns();
		for (int i = 0; i < THREADS; i++) {
			unsigned long long count = atomic_load(&operations[i]);
			if (count != seen[i] || !moved_ns[i]) {
				seen[i] = count;
				moved_ns[i] = now;
			} else if (now - moved_ns[i] > (uint64_t)STALL_MS * CLOCK_NS_PER_MS) {
				support_fail("thread %d makes no step", i);
			}
		}
		clock_sleep_ns(100ull * CLOCK_NS_PER_MS);
	} while (clock_now_ns() < end);
}

static void verify(unsigned region)
{
	for (size_t pgno = 0; pgno < PAGES; pgno++)
		check_words((uint64_t *)(void *)(regions[region].memory + pgno * PAGE),
			&regions[region].pages[pgno], region, pgno);
}

/* The region without redundancy is checked and left before a device may go. */
static void leave_single(void)
{
	atomic_store(&regions[1].is_in_use, false);
	for (size_t pgno = 0; pgno < PAGES; pgno++) {
		/* whoever was in the middle is out after this */
		pthread_mutex_lock(&regions[1].pages[pgno].lock);
		pthread_mutex_unlock(&regions[1].pages[pgno].lock);
	}
	verify(1);
	SUPPORT_OK(secpool_region_release(regions[1].region, NULL));
}

static void pull_and_plug(unsigned round)
{
	char ids[STRESS_PARITY][8];

	for (unsigned i = 0; i < STRESS_PARITY; i++) {
		snprintf(ids[i], sizeof ids[i], "dev%u", (round + i) % DEVICES);
		SUPPORT_CHECK(support_cli(NULL, 0, "device", "pull", ids[i], NULL) == 0);
	}
	watch(CLOCK_NS_PER_S);
	for (unsigned i = 0; i < STRESS_PARITY; i++) {
		SUPPORT_CHECK(support_cli(NULL, 0, "device", "plug", ids[i], NULL) == 0);
		support_wait_device(ids[i], "online", true, STALL_MS);
	}
	watch(CLOCK_NS_PER_S);
	SUPPORT_OK(secpool_flush(regions[0].region));
}

static void show(struct secpool *pool)
{
	struct secpool_stats stats = {.size = sizeof stats};
	unsigned long long sum = 0;

	for (int i = 0; i < THREADS; i++)
		sum += atomic_load(&operations[i]);
	SUPPORT_OK(secpool_stats(pool, &stats));
	printf("%llu operations, %llu fills, %llu evictions, %llu written back\n", sum,
		(unsigned long long)stats.fills, (unsigned long long)stats.evictions,
		(unsigned long long)stats.write_backs);
	SUPPORT_CHECK(stats.fills > 0 && stats.evictions > 0 && stats.integrity_failures == 0);
	SUPPORT_CHECK(stats.resident_bytes <= stats.local_bytes_limit);
	SUPPORT_CHECK(stats.lost_pages == 0);
}

static struct secpool *stress_pool;

/* No page of the mirrored region may ever be lost here: says what was told of it. */
static void on_bus(int number, siginfo_t *info, void *context)
{
	struct secpool_event event = {.size = sizeof event};

	(void)number;
	(void)context;
	while (secpool_event_next(stress_pool, &event) == SECPOOL_OK)
		fprintf(stderr, "event %d cause %d offset %zu bytes %zu device %s at %llu ms\n",
			(int)event.type, (int)event.cause, event.range.offset, event.range.bytes,
			event.device, (unsigned long long)(event.time_ns / CLOCK_NS_PER_MS));
	support_fail("SIGBUS code %d at %p, region at %p, now %llu ms", info->si_code,
		info->si_addr, (void *)regions[0].memory,
		(unsigned long long)(clock_now_ns() / CLOCK_NS_PER_MS));
}

int main(int argc, char **argv)
{
	struct sigaction action = {.sa_sigaction = on_bus, .sa_flags = SA_SIGINFO};

	const char *given = argc > 1 ? argv[1] : getenv("STRESS_SECONDS");
	uint64_t half_ns =
		(given ? strtoull(given, NULL, 10) : STRESS_SECONDS) * CLOCK_NS_PER_S / 2;
	pthread_t threads[THREADS];
	struct secpool *pool;

	SUPPORT_CHECK(half_ns > 0);
	support_up(DEVICES, "64M", NULL);
	support_fault_mode = STRESS_MODE;
	pool = stress_pool = support_open("alpha", LOCAL_BYTES);
	SUPPORT_CHECK(sigaction(SIGBUS, &action, NULL) == 0);
	for (unsigned i = 0; i < REGIONS; i++) {
		regions[i].region = i == 0 && STRESS_DATA > 1
					    ? support_coded(pool, (size_t)PAGES * PAGE, STRESS_DATA,
						      STRESS_PARITY)
					    : support_region(pool, (size_t)PAGES * PAGE, 2 - i);
		regions[i].memory = secpool_region_address(regions[i].region);
		for (size_t pgno = 0; pgno < PAGES; pgno++)
			pthread_mutex_init(&regions[i].pages[pgno].lock, NULL);
		atomic_store(&regions[i].is_in_use, true);
	}
	for (size_t i = 0; i < THREADS; i++)
		SUPPORT_CHECK(pthread_create(&threads[i], NULL, work, (void *)i) == 0);
	watch(half_ns);
	leave_single();
	uint64_t end = clock_now_ns() + half_ns;
	for (unsigned round = 0; round == 0 || clock_now_ns() < end; round++)
		pull_and_plug(round);
	atomic_store(&is_over, true);
	for (size_t i = 0; i < THREADS; i++)
		SUPPORT_CHECK(pthread_join(threads[i], NULL) == 0);
	verify(0);
	show(pool);
	SUPPORT_OK(secpool_region_release(regions[0].region, NULL));
	secpool_close(pool);
	support_down();
	return 0;
}
