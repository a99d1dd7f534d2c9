/* SPDX-License-Identifier: Apache-2.0 */
/* userfaultfd as lib/uffd.c uses it, with what this kernel has and with what Debian 12's has (no MOVE, no POISON). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

#include "lib/base/guarded_copy.h"
#include "lib/uffd.h"

enum { PAGES = 8, BYTES = PAGES * 4096 };

struct fixture {
	struct uffd uffd;
	uint8_t *range, *other;
	uint8_t page[4096];
};

static uint8_t *registered(struct uffd *uffd)
{
	void *at = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(at, MAP_FAILED);
	assert_int_equal(mlock2(at, BYTES, MLOCK_ONFAULT), 0);
	assert_int_equal(uffd_register(uffd, at, BYTES), SECPOOL_OK);
	return at;
}

static void open_with(struct fixture *f, unsigned without)
{
	assert_int_equal(uffd_open(&f->uffd, -1, without), SECPOOL_OK);
	f->range = registered(&f->uffd);
	f->other = registered(&f->uffd);
	memset(f->page, 0x5a, sizeof f->page);
}

static void close_all(struct fixture *f)
{
	uffd_close(&f->uffd);
	munmap(f->range, BYTES);
	munmap(f->other, BYTES);
}

static void test_copy_then_present(void **state)
{
	struct fixture f;

	(void)state;
	open_with(&f, 0);
	assert_false(uffd_present(f.range));
	assert_int_equal(uffd_copy(&f.uffd, f.range, f.page, 4096, false), SECPOOL_OK);
	assert_true(uffd_present(f.range));
	assert_memory_equal(f.range, f.page, 4096);
	memset(f.page, 1, sizeof f.page);
	/* an existing page is left as it is */
	assert_int_equal(uffd_copy(&f.uffd, f.range, f.page, 4096, false), SECPOOL_OK);
	assert_int_equal(f.range[0], 0x5a);
	assert_int_equal(uffd_drop(f.range, 4096), SECPOOL_OK);
	assert_false(uffd_present(f.range));
	close_all(&f);
}

static void test_move_and_back(void **state)
{
	struct fixture f;
	uint8_t *third;

	(void)state;
	open_with(&f, 0);
	if (!f.uffd.has_move) {
		close_all(&f);
		skip();
	}
	for (int i = 0; i < PAGES; i++)
		assert_int_equal(
			uffd_copy(&f.uffd, f.range + i * 4096, f.page, 4096, i & 1), SECPOOL_OK);
	assert_int_equal(uffd_move(&f.uffd, f.other, f.range, BYTES), SECPOOL_OK);
	assert_false(uffd_present(f.range));
	assert_memory_equal(f.other + BYTES - 4096, f.page, 4096);
	/* nothing is there any more */
	third = registered(&f.uffd);
	assert_int_equal(uffd_move(&f.uffd, third, f.range, 4096), SECPOOL_E_NOT_FOUND);
	munmap(third, BYTES);
	assert_int_equal(uffd_move(&f.uffd, f.range, f.other, BYTES), SECPOOL_OK);
	f.range[4096] = 1; /* writable, also what was write-protected */
	close_all(&f);
}

static void *write_one(void *at)
{
	*(volatile uint8_t *)at = 7;
	return NULL;
}

static void test_protect_holds_a_writer(void **state)
{
	struct uffd_fault fault;
	struct fixture f;
	pthread_t thread;

	(void)state;
	open_with(&f, UFFD_WITHOUT_MOVE | UFFD_WITHOUT_POISON);
	assert_int_equal(uffd_copy(&f.uffd, f.range, f.page, 4096, true), SECPOOL_OK);
	assert_int_equal(pthread_create(&thread, NULL, write_one, f.range + 10), 0);
	assert_int_equal(uffd_read(&f.uffd, &fault), SECPOOL_OK);
	assert_true(fault.protect);
	assert_true(fault.write);
	assert_true((fault.address & ~4095ul) == (uintptr_t)f.range);
	assert_int_equal(f.range[10], 0x5a);
	assert_int_equal(uffd_unprotect(&f.uffd, f.range, 4096), SECPOOL_OK);
	pthread_join(thread, NULL);
	assert_int_equal(f.range[10], 7);
	assert_int_equal(uffd_protect(&f.uffd, f.range, 4096), SECPOOL_OK);
	/* a writer that was held when the page was dropped faults again, as missing */
	assert_int_equal(pthread_create(&thread, NULL, write_one, f.range + 11), 0);
	assert_int_equal(uffd_read(&f.uffd, &fault), SECPOOL_OK);
	assert_int_equal(uffd_drop(f.range, 4096), SECPOOL_OK);
	uffd_wake(&f.uffd, f.range, 4096);
	assert_int_equal(uffd_read(&f.uffd, &fault), SECPOOL_OK);
	assert_false(fault.protect);
	assert_true(fault.write);
	assert_int_equal(uffd_copy(&f.uffd, f.range, f.page, 4096, false), SECPOOL_OK);
	pthread_join(thread, NULL);
	close_all(&f);
}

static void poison_of(unsigned without)
{
	struct fixture f;
	uint8_t got[16];

	/* cmocka takes SIGBUS for itself before each test */
	assert_int_equal(guarded_copy_install(), SECPOOL_OK);
	open_with(&f, without);
	assert_int_equal(uffd_copy(&f.uffd, f.range, f.page, 4096, false), SECPOOL_OK);
	assert_int_equal(uffd_copy(&f.uffd, f.range + 3 * 4096, f.page, 4096, false), SECPOOL_OK);
	assert_int_equal(uffd_poison(&f.uffd, f.range + 4096, 2 * 4096), SECPOOL_OK);
	assert_int_equal(uffd_poison(&f.uffd, f.range + 4096, 2 * 4096), SECPOOL_OK);
	assert_int_equal(guarded_copy(got, f.range, sizeof got), SECPOOL_OK);
	assert_int_equal(guarded_copy(got, f.range + 4096, sizeof got), SECPOOL_E_DEVICE_GONE);
	assert_int_equal(
		guarded_copy(got, f.range + 3 * 4096 - 16, sizeof got), SECPOOL_E_DEVICE_GONE);
	assert_int_equal(guarded_copy(got, f.range + 3 * 4096, sizeof got), SECPOOL_OK);
	close_all(&f);
}

static void test_poison(void **state)
{
	(void)state;
	poison_of(0);
}

static void test_poison_without_the_feature(void **state)
{
	(void)state;
	poison_of(UFFD_WITHOUT_POISON);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_copy_then_present),
		cmocka_unit_test(test_move_and_back),
		cmocka_unit_test(test_protect_holds_a_writer),
		cmocka_unit_test(test_poison),
		cmocka_unit_test(test_poison_without_the_feature),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
