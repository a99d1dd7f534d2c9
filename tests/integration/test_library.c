/* SPDX-License-Identifier: Apache-2.0 */
/* libsecpool against the real daemons: options, page sizes, the budget, reading and writing, flush, the heap, what is interposed. timeout: 180 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/support.h"

enum { LOCAL = 8 << 20, MIB = 1 << 20 };

static void refuse(
	struct secpool *pool, struct secpool_region_options options, enum secpool_error want)
{
	struct secpool_region *region = NULL;
	enum secpool_error error;

	if (options.size == 0)
		options.size = sizeof options;
	error = secpool_region_create(pool, &options, &region);
	if (error != want)
		support_fail("region_create gave %d (%s), %d was expected", error,
			secpool_error_detail(), want);
	SUPPORT_CHECK(region == NULL);
	SUPPORT_CHECK(*secpool_error_detail() != '\0');
}

static void test_options(void)
{
	struct secpool_options options = {.size = sizeof options};
	struct secpool *pool = NULL;

	options.fault_mode = (enum secpool_fault_mode)2;
	SUPPORT_CHECK(secpool_open("alpha", &options, &pool) == SECPOOL_E_INVALID);
	options.fault_mode = SECPOOL_FAULT_THREAD;
	options.local_bytes = 4096;
	SUPPORT_CHECK(secpool_open("alpha", &options, &pool) == SECPOOL_E_INVALID);
	options.local_bytes = 0;
	options.fault_threads = 17;
	SUPPORT_CHECK(secpool_open("alpha", &options, &pool) == SECPOOL_E_INVALID);
	options.fault_threads = 0;
	options.size = 3;
	SUPPORT_CHECK(secpool_open("alpha", &options, &pool) == SECPOOL_E_INVALID);
	SUPPORT_CHECK(secpool_open("", NULL, &pool) == SECPOOL_E_INVALID);
	SUPPORT_CHECK(secpool_open("nobody-knows-me", NULL, &pool) == SECPOOL_E_UNKNOWN_TENANT);
	SUPPORT_CHECK(pool == NULL);

	pool = support_open("alpha", LOCAL);
	refuse(pool, (struct secpool_region_options){.size = 1, .bytes = MIB}, SECPOOL_E_INVALID);
	refuse(pool, (struct secpool_region_options){.bytes = 0}, SECPOOL_E_INVALID);
	refuse(pool, (struct secpool_region_options){.bytes = MIB, .page_bytes = 5000},
		SECPOOL_E_INVALID);
	refuse(pool, (struct secpool_region_options){.bytes = MIB, .page_bytes = 4 * MIB},
		SECPOOL_E_INVALID);
	refuse(pool, (struct secpool_region_options){.bytes = 16 * MIB, .page_bytes = 2 * MIB},
		SECPOOL_E_LIMIT);
	refuse(pool,
		(struct secpool_region_options){.bytes = MIB, .redundancy = SECPOOL_REDUNDANCY_EC},
		SECPOOL_E_INVALID);
	refuse(pool,
		(struct secpool_region_options){
			.bytes = MIB, .redundancy = SECPOOL_REDUNDANCY_MIRROR, .copies = 5},
		SECPOOL_E_INVALID);
	refuse(pool,
		(struct secpool_region_options){.bytes = MIB, .on_loss = SECPOOL_ON_LOSS_REFILL},
		SECPOOL_E_INVALID);
	refuse(pool,
		(struct secpool_region_options){.bytes = MIB, .on_loss = SECPOOL_ON_LOSS_FAILOVER},
		SECPOOL_E_INVALID);
	refuse(pool,
		(struct secpool_region_options){
			.bytes = MIB, .redundancy = SECPOOL_REDUNDANCY_MIRROR, .copies = 4},
		SECPOOL_E_DENIED);
	refuse(pool, (struct secpool_region_options){.bytes = 1ull << 30}, SECPOOL_E_NO_SPACE);
	secpool_close(pool);
	secpool_close(NULL);
}

/* Every page size holds every byte, through a budget that is a fraction of the region, which it never exceeds. */
static void check_page_size(size_t page_bytes, size_t local)
{
	struct secpool *pool = support_open("alpha", local);
	struct secpool_region_options options = {
		.size = sizeof options, .bytes = 48 * MIB, .page_bytes = page_bytes};
	struct secpool_stats stats = {.size = sizeof stats};
	struct secpool_region *region;
	uint8_t *at;

	SUPPORT_OK(secpool_region_create(pool, &options, &region));
	at = secpool_region_address(region);
	SUPPORT_CHECK(secpool_region_bytes(region) == 48 * MIB);
	for (size_t i = 0; i < 48 * MIB; i += 4096) {
		SUPPORT_CHECK(at[i] == 0); /* fresh memory is zeros */
		support_fill(at + i, 4096, i);
	}
	for (size_t i = 0; i < 48 * MIB; i += 4096)
		SUPPORT_CHECK(support_matches(at + i, 4096, i));
	SUPPORT_OK(secpool_stats(pool, &stats));
	SUPPORT_CHECK(stats.resident_bytes <= local);
	SUPPORT_CHECK(stats.evictions > 0 && stats.fills > 0 && stats.write_backs > 0);
	SUPPORT_CHECK(stats.lost_pages == 0 && stats.integrity_failures == 0);
	SUPPORT_OK(secpool_region_release(region, NULL));
	secpool_close(pool);
}

static void test_read_write_flush(void)
{
	struct secpool *pool = support_open("alpha", LOCAL);
	struct secpool_region *region = support_region(pool, 16 * MIB, 2);
	struct secpool_stats before = {.size = sizeof before}, after = {.size = sizeof after};
	struct secpool_range range;
	uint8_t page[4096], got[4096];
	size_t count = 99;

	support_fill(page, sizeof page, 7);
	SUPPORT_OK(secpool_write(region, 12345, page, sizeof page));
	SUPPORT_OK(secpool_read(region, 12345, got, sizeof got));
	SUPPORT_CHECK(memcmp(page, got, sizeof page) == 0);
	SUPPORT_CHECK(secpool_read(region, 16 * MIB - 1, got, 2) == SECPOOL_E_INVALID);
	SUPPORT_CHECK(secpool_write(region, SIZE_MAX, got, 2) == SECPOOL_E_INVALID);
	SUPPORT_CHECK(secpool_read(region, 0, NULL, 2) == SECPOOL_E_INVALID);
	SUPPORT_OK(secpool_read(region, 16 * MIB, NULL, 0));
	SUPPORT_OK(secpool_stats(pool, &before));
	SUPPORT_OK(secpool_flush(region));
	SUPPORT_OK(secpool_stats(pool, &after));
	SUPPORT_CHECK(after.write_backs == before.write_backs + 2); /* two pages were touched */
	SUPPORT_CHECK(after.resident_bytes == before.resident_bytes);
	SUPPORT_OK(secpool_flush(region)); /* nothing is left to write */
	SUPPORT_OK(secpool_stats(pool, &before));
	SUPPORT_CHECK(after.write_backs == before.write_backs);
	SUPPORT_OK(secpool_write(region, 12345, got, 1)); /* clean pages become dirty again */
	SUPPORT_OK(secpool_region_lost(region, &range, 1, &count));
	SUPPORT_CHECK(count == 0);
	secpool_close(pool); /* releases the region */
}

static void test_heap(void)
{
	struct secpool *pool = support_open("alpha", LOCAL);
	enum { BLOCKS = 20000, SIZE = 700 };
	uint8_t **blocks = calloc(BLOCKS, sizeof *blocks);
	uint8_t *big;

	SUPPORT_CHECK(blocks != NULL);
	for (size_t i = 0; i < BLOCKS; i++) {
		blocks[i] = secpool_malloc(pool, SIZE);
		if (!blocks[i])
			support_fail("block %zu: %s", i, secpool_error_detail());
		SUPPORT_CHECK(secpool_usable_size(pool, blocks[i]) >= SIZE);
		support_fill(blocks[i], SIZE, i);
	}
	for (size_t i = 0; i < BLOCKS; i += 2)
		secpool_free(pool, blocks[i]);
	for (size_t i = 1; i < BLOCKS; i += 2)
		SUPPORT_CHECK(support_matches(blocks[i], SIZE, i));
	blocks[1] = secpool_realloc(pool, blocks[1], 50000);
	SUPPORT_CHECK(blocks[1] && support_matches(blocks[1], SIZE, 1));
	big = secpool_aligned_alloc(pool, 65536, 3 * MIB);
	SUPPORT_CHECK(big && (uintptr_t)big % 65536 == 0);
	memset(big, 1, 3 * MIB);
	secpool_free(pool, big);
	big = secpool_calloc(pool, 3 * MIB, 1);
	SUPPORT_CHECK(big && big[0] == 0 && big[3 * MIB - 1] == 0);
	secpool_free(pool, NULL);
	SUPPORT_CHECK(secpool_calloc(pool, SIZE_MAX, 2) == NULL);
	SUPPORT_CHECK(secpool_malloc(pool, 1ull << 40) == NULL);
	SUPPORT_CHECK(*secpool_error_detail() != '\0');
	SUPPORT_CHECK(secpool_aligned_alloc(pool, 3, 10) == NULL);
	free(blocks);
	secpool_close(pool);
}

enum { PASSED = 2000, PASSED_BYTES = 100 };

static void *passed[PASSED];

/* Checks and frees what another thread has made, and leaves as many behind. */
static void *pass_objects(void *arg)
{
	struct secpool *pool = arg;

	for (size_t i = 0; i < PASSED; i++) {
		if (passed[i])
			SUPPORT_CHECK(support_matches(passed[i], PASSED_BYTES, i));
		secpool_free(pool, passed[i]);
		passed[i] = secpool_calloc(pool, PASSED_BYTES, 1);
		SUPPORT_CHECK(passed[i] &&
			      memcmp(passed[i], (uint8_t[PASSED_BYTES]){0}, PASSED_BYTES) == 0);
		support_fill(passed[i], PASSED_BYTES, i);
	}
	return NULL;
}

/* What threads kept for themselves comes back when they end: the heap does not grow with their number. And it ends with the heap: a second pool gives nothing of the first's. */
static void test_heap_of_many_threads(void)
{
	struct secpool_stats first = {.size = sizeof first}, last = first;

	for (int round = 0; round < 2; round++) {
		struct secpool *pool = support_open("alpha", LOCAL);
		memset(passed, 0, sizeof passed);
		for (int i = 0; i < 40; i++) {
			pthread_t thread;
			SUPPORT_CHECK(pthread_create(&thread, NULL, pass_objects, pool) == 0);
			pthread_join(thread, NULL);
			SUPPORT_OK(secpool_stats(pool, i == 0 ? &first : &last));
		}
		SUPPORT_CHECK(last.metadata_bytes == first.metadata_bytes);
		pass_objects(pool); /* this thread keeps some over the pool's end */
		secpool_close(pool);
	}
}

static volatile sig_atomic_t handled;

static void on_signal(int number)
{
	(void)number;
	handled++;
}

static void test_interposed(void)
{
	struct secpool *pool = support_open("alpha", LOCAL);
	struct secpool_region *region = support_region(pool, 4 * MIB, 1);
	uint8_t *at = secpool_region_address(region);
	struct sigaction old;
	sigset_t bus, now;

	at[0] = 1;
	SUPPORT_CHECK(munmap(at, 4096) != 0 && errno == EINVAL);
	SUPPORT_CHECK(madvise(at, 4096, MADV_DONTNEED) != 0 && errno == EINVAL);
	SUPPORT_CHECK(mremap(at, 4096, 8192, MREMAP_MAYMOVE) == MAP_FAILED && errno == EINVAL);
	SUPPORT_CHECK(at[0] == 1);
	/* the program's action for SIGBUS is kept and called; SIGBUS can't be blocked */
	SUPPORT_CHECK(signal(SIGBUS, on_signal) != SIG_ERR);
	SUPPORT_CHECK(sigaction(SIGBUS, NULL, &old) == 0 && old.sa_handler == on_signal);
	sigemptyset(&bus);
	sigaddset(&bus, SIGBUS);
	sigaddset(&bus, SIGUSR1);
	SUPPORT_CHECK(sigprocmask(SIG_BLOCK, &bus, NULL) == 0);
	SUPPORT_CHECK(sigprocmask(SIG_SETMASK, NULL, &now) == 0);
	SUPPORT_CHECK(!sigismember(&now, SIGBUS) && sigismember(&now, SIGUSR1));
	SUPPORT_CHECK(raise(SIGBUS) == 0);
	SUPPORT_CHECK(handled == 1);
	signal(SIGBUS, SIG_DFL);
	secpool_close(pool);
}

/* A program that closes every descriptor goes on: the library has its own. */
__attribute__((unused)) static int close_everything(void *arg)
{
	struct secpool *pool = support_open("alpha", LOCAL);
	struct secpool_region *region = support_region(pool, 32 * MIB, 1);
	uint8_t *at = secpool_region_address(region);

	(void)arg;
	for (size_t i = 0; i < 16 * MIB; i += 4096)
		support_fill(at + i, 4096, i);
	close_range(3, ~0u, 0);
	for (size_t i = 16 * MIB; i < 32 * MIB; i += 4096)
		support_fill(at + i, 4096, i);
	for (size_t i = 0; i < 32 * MIB; i += 4096)
		if (!support_matches(at + i, 4096, i))
			return 1;
	SUPPORT_OK(secpool_region_release(region, NULL));
	secpool_close(pool);
	return 0;
}

static int told = -1;

static void tell_bus(int number)
{
	(void)!write(told, "B", 1);
	_exit(number);
}

/* The child of a fork, or what a daemon becomes, has no region: each touch is SIGBUS, each call an error, nothing waits, and no zeros are read. */
static void be_child(const struct secpool *pool, struct secpool_region *region, bool by_daemon)
{
	struct secpool_region_options options = {.size = sizeof options, .bytes = MIB};
	volatile uint8_t *at = secpool_region_address(region);
	struct secpool_region *other;
	char byte;

	if (by_daemon && daemon(1, 1) != 0)
		_exit(3);
	if (secpool_region_create((struct secpool *)(uintptr_t)pool, &options, &other) !=
			SECPOOL_E_CLOSED ||
		secpool_read(region, 0, &byte, 1) != SECPOOL_E_CLOSED ||
		secpool_pin(region, 0, 4096) != SECPOOL_E_CLOSED ||
		secpool_flush(region) != SECPOOL_E_CLOSED ||
		secpool_malloc((struct secpool *)(uintptr_t)pool, 100) ||
		secpool_calloc((struct secpool *)(uintptr_t)pool, 100, 1) ||
		secpool_region_release(region, NULL) != SECPOOL_E_CLOSED)
		_exit(2);
	signal(SIGBUS, tell_bus);
	_exit(at[0] ? 5 : 4);
}

static int fork_without_region(void *arg)
{
	struct secpool *pool = support_open("alpha", LOCAL);
	struct secpool_region *region = support_region(pool, 4 * MIB, 1);
	volatile uint8_t *at = secpool_region_address(region);
	int ends[2], status;
	char byte = 0;

	(void)arg;
	at[0] = 1;
	secpool_free(
		pool, secpool_malloc(pool, 100)); /* this thread keeps some of the heap's objects */
	for (int by_daemon = 0; by_daemon < 2; by_daemon++) {
		pid_t child;

		SUPPORT_CHECK(pipe2(ends, O_CLOEXEC) == 0);
		told = ends[1];
		child = fork();
		if (child == 0)
			be_child(pool, region, by_daemon);
		close(ends[1]);
		SUPPORT_CHECK(read(ends[0], &byte, 1) == 1 && byte == 'B');
		close(ends[0]);
		SUPPORT_CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status));
		SUPPORT_CHECK(WEXITSTATUS(status) == (by_daemon ? 0 : SIGBUS));
	}
	SUPPORT_CHECK(at[0] == 1);
	secpool_close(pool);
	return 0;
}

int main(void)
{
	support_up(3, "128M", NULL);
	/* these first: a child of a process that had a pool can't open one */
#if !defined(                                                                                      \
	__SANITIZE_THREAD__) /* there the library shares the program's descriptors: lib/descriptors.h */
	SUPPORT_CHECK(support_join(support_fork(close_everything, NULL), 60000) == 0);
#endif
	SUPPORT_CHECK(support_join(support_fork(fork_without_region, NULL), 60000) == 0);
	support_fault_mode = SECPOOL_FAULT_INLINE;
	SUPPORT_CHECK(support_join(support_fork(fork_without_region, NULL), 60000) == 0);
	support_fault_mode = SECPOOL_FAULT_THREAD;
	test_options();
	check_page_size(4096, LOCAL);
	check_page_size(65536, LOCAL);
	check_page_size(2 * MIB, 40 * MIB);
	test_read_write_flush();
	test_heap();
	test_heap_of_many_threads();
	test_interposed();
	support_wait_regions(0, 20000);
	support_down();
	puts("test_library: all parts passed");
	return 0;
}
