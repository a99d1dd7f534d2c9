/* SPDX-License-Identifier: Apache-2.0 */
/* What a heap knows of its objects: which addresses are its, where large objects begin, marks of small ones that were freed; and handles that are kept after their end. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/heapcheck.h"
#include "lib/misuse.h"
#include "lib/pool.h"

enum { CHUNK = 1 << HEAPCHECK_CHUNK_SHIFT, BYTES = 2 * CHUNK, PAGE = 4096 };

/* A region's two chunks lie on both sides of a leaf's end. */
static struct heapcheck *check;
static struct secpool_region region;

static int set_up(void **state)
{
	uintptr_t end = (uintptr_t)0x1300 << HEAPCHECK_LEAF_SHIFT;

	(void)state;
	check = calloc(1, sizeof *check);
	region = (struct secpool_region){.bytes = BYTES, .page_bytes = PAGE};
	region.pages = calloc(BYTES / PAGE, sizeof *region.pages);
	region.address = mmap((void *)(end - CHUNK), BYTES, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	assert_true(check && region.pages && region.address == (void *)(end - CHUNK));
	heapcheck_init(check, "alpha");
	assert_int_equal(heapcheck_add(check, &region), SECPOOL_OK);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	heapcheck_done(check);
	free(check);
	munmap(region.address, BYTES);
	free(region.pages);
	return 0;
}

static void set_page(size_t pgno, enum page_state state)
{
	atomic_store(&region.pages[pgno].word, page_word(state, 0, 1));
}

static void test_addresses(void **state)
{
	(void)state;
	assert_null(heapcheck_find(check, region.address - 1));
	assert_null(heapcheck_find(check, region.address + BYTES));
	assert_null(heapcheck_find(check, NULL));
	assert_null(heapcheck_find(check, (void *)UINTPTR_MAX));
	assert_null(heapcheck_find(check, &region));
	assert_ptr_equal(heapcheck_find(check, region.address),
		heapcheck_find(check, region.address + CHUNK - 1));
	assert_non_null(heapcheck_find(check, region.address + CHUNK));
	assert_ptr_not_equal(heapcheck_find(check, region.address),
		heapcheck_find(check, region.address + CHUNK));
}

static void test_large_objects(void **state)
{
	uint8_t *first = region.address, *last = region.address + BYTES - PAGE + 4095;
	struct heapcheck_chunk *chunk = heapcheck_find(check, last);

	(void)state;
	assert_false(heapcheck_is_large(heapcheck_find(check, first), first));
	heapcheck_give_large(check, first);
	heapcheck_give_large(check, last);
	assert_true(heapcheck_is_large(heapcheck_find(check, first), first));
	assert_true(heapcheck_is_large(chunk, last));
	assert_false(heapcheck_is_large(chunk, last - 1));
	assert_false(heapcheck_is_large(heapcheck_find(check, first), first + 16));
	heapcheck_take_large(chunk, last);
	assert_false(heapcheck_is_large(chunk, last));
	assert_true(heapcheck_is_large(heapcheck_find(check, first), first));
}

static void take(void *object)
{
	heapcheck_take_small(check, heapcheck_find(check, object), object);
}

/* What the function does to the object in a process of its own. */
static int status_of(void (*function)(void *), void *object)
{
	pid_t child = fork();
	int status;

	if (child == 0) {
		close(STDERR_FILENO);
		function(object);
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void test_small_objects(void **state)
{
	size_t pgno = CHUNK / PAGE + 5;
	uint8_t *object = region.address + pgno * PAGE + 48, *absent = object + PAGE;

	(void)state;
	set_page(pgno, PAGE_DIRTY);
	set_page(pgno + 1, PAGE_ABSENT);
	memset(absent, 7, 16);
	take(object);
	assert_int_equal(status_of(take, object), SIGABRT);
	heapcheck_give_small(object);
	assert_int_equal(*(uint64_t *)(void *)object, 0);
	assert_int_equal(status_of(take, object), 0);
	/* the mark is the place's */
	take(object);
	memcpy(object + 64, object, 16);
	assert_int_equal(status_of(take, object + 64), 0);
	/* in a page that is not here nothing is touched */
	take(absent);
	for (int i = 0; i < 16; i++)
		assert_int_equal(absent[i], 7);
	set_page(pgno, PAGE_CLEAN);
	assert_int_equal(status_of(take, object), SIGABRT);
	set_page(pgno, PAGE_FILLING);
	assert_int_equal(status_of(take, object), SIGABRT);
	set_page(pgno, PAGE_LOST);
	assert_int_equal(status_of(take, object), 0);
}

static void test_kept_handles(void **state)
{
	uint64_t *handles[MISUSE_KEPT];

	(void)state;
	for (size_t i = 0; i < MISUSE_KEPT; i++) {
		handles[i] = malloc(64);
		assert_non_null(handles[i]);
		memset(handles[i], 0xff, 64);
		misuse_retire(handles[i], 64);
	}
	for (size_t i = 0; i < MISUSE_KEPT; i++)
		for (size_t k = 0; k < 8; k++)
			assert_int_equal(handles[i][k], 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_addresses),
		TEST(test_large_objects),
		TEST(test_small_objects),
		TEST(test_kept_handles),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
