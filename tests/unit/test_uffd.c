/* SPDX-License-Identifier: Apache-2.0 */
/* userfaultfd as lib/uffd.c uses it, with what this kernel has and with what Debian 12's has (no MOVE, no POISON). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

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

/* Scattered pages go by one call, and the same without the kernel's help; what lies between stays. */
static void test_drop_many(void **state)
{
	(void)state;
	for (unsigned without = 0; without <= UFFD_WITHOUT_VECTOR; without += UFFD_WITHOUT_VECTOR) {
		struct iovec ranges[3];
		struct fixture f;
		open_with(&f, without);
		if (without)
			assert_false(f.uffd.has_vector);
		assert_int_equal(uffd_copy(&f.uffd, f.range, f.page, 4096, false), SECPOOL_OK);
		for (int i = 1; i < PAGES; i++)
			assert_int_equal(
				uffd_copy(&f.uffd, f.range + i * 4096, f.page, 4096, i & 1),
				SECPOOL_OK);
		ranges[0] = (struct iovec){.iov_base = f.range, .iov_len = 4096};
		ranges[1] = (struct iovec){.iov_base = f.range + 3 * 4096, .iov_len = 2 * 4096};
		ranges[2] = (struct iovec){.iov_base = f.range + 7 * 4096, .iov_len = 4096};
		assert_int_equal(uffd_drop_many(&f.uffd, ranges, 3), SECPOOL_OK);
		for (int i = 0; i < PAGES; i++)
			assert_int_equal(uffd_present(f.range + i * 4096),
				!(i == 0 || i == 3 || i == 4 || i == 7));
		assert_int_equal(uffd_drop_many(&f.uffd, ranges, 0), SECPOOL_OK);
		assert_int_equal(
			uffd_drop_many(&f.uffd, ranges, 1), SECPOOL_OK); /* dropped before */
		ranges[1].iov_base = (void *)4096;
		assert_int_not_equal(uffd_drop_many(&f.uffd, ranges, 2), SECPOOL_OK);
		close_all(&f);
	}
}

static struct uffd *inline_uffd;
static uint8_t *inline_page;

static void serve_signal(int number, siginfo_t *info, void *context)
{
	uintptr_t page = (uintptr_t)info->si_addr & ~(uintptr_t)4095;

	(void)number;
	(void)context;
	if (uffd_copy(inline_uffd, (void *)page, inline_page, 4096, false) != SECPOOL_OK)
		_exit(1);
}

/* A fault is a signal in the thread that made it; there is nothing to read and nobody to wake. */
static void test_inline(void **state)
{
	struct sigaction action = {.sa_sigaction = serve_signal, .sa_flags = SA_SIGINFO}, before;
	struct fixture f;

	(void)state;
	open_with(&f, UFFD_INLINE);
	assert_true(f.uffd.is_inline);
	inline_uffd = &f.uffd;
	inline_page = f.page;
	assert_int_equal(sigaction(SIGBUS, &action, &before), 0);
	assert_int_equal(*(volatile uint8_t *)f.range, 0x5a);
	assert_int_equal(*(volatile uint8_t *)(f.range + 5 * 4096), 0x5a);
	assert_false(uffd_present(f.range + 4096));
	uffd_wake(&f.uffd, f.range, 4096);
	assert_int_equal(sigaction(SIGBUS, &before, NULL), 0);
	close_all(&f);
}

struct toucher {
	pthread_t thread;
	volatile uint8_t *at;
	int32_t id;
};

static void *touch_one(void *arg)
{
	struct toucher *toucher = arg;

	toucher->id = gettid();
	return (void *)(uintptr_t)*toucher->at;
}

/* What waits is read together, and says who waits. */
static void test_read_many(void **state)
{
	struct toucher touchers[3];
	struct uffd_fault faults[UFFD_READ_MOST];
	unsigned seen = 0, count;
	struct fixture f;

	(void)state;
	open_with(&f, 0);
	for (int i = 0; i < 3; i++) {
		touchers[i].at = f.range + i * 4096;
		assert_int_equal(
			pthread_create(&touchers[i].thread, NULL, touch_one, &touchers[i]), 0);
	}
	usleep(100000);
	while (seen < 3) {
		assert_int_equal(uffd_read_many(&f.uffd, faults, 2, &count), SECPOOL_OK);
		assert_in_range(count, 1, 2);
		for (unsigned i = 0; i < count; i++) {
			size_t page = (faults[i].address - (uintptr_t)f.range) / 4096;
			assert_in_range(page, 0, 2);
			assert_int_equal(faults[i].thread, touchers[page].id);
			assert_false(faults[i].write || faults[i].protect);
			assert_int_equal(
				uffd_copy(&f.uffd, f.range + page * 4096, f.page, 4096, false),
				SECPOOL_OK);
		}
		seen += count;
	}
	for (int i = 0; i < 3; i++)
		pthread_join(touchers[i].thread, NULL);
	close_all(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_drop_many),
		cmocka_unit_test(test_inline),
		cmocka_unit_test(test_read_many),
		cmocka_unit_test(test_copy_then_present),
		cmocka_unit_test(test_move_and_back),
		cmocka_unit_test(test_protect_holds_a_writer),
		cmocka_unit_test(test_poison),
		cmocka_unit_test(test_poison_without_the_feature),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
