/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <seccomp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "enclave/secheap.h"
#include "enclave/secmem.h"

enum { PAGE = 4096, MIB = 1 << 20, LINE = 512 };
enum { NOBODY = 65534, CHILD_GOOD = 42 };

#ifdef __SANITIZE_THREAD__
/* jemalloc holds all its locks across fork, more than the sanitizer's deadlock detector can count */
__attribute__((visibility("default"))) const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
	return "detect_deadlocks=0";
}
#endif

/* Runs body in a child: its exit status, or minus the signal that ended it. */
static int in_child(void (*body)(void *), void *arg)
{
	int status = 0;
	pid_t child = fork();

	assert_true(child >= 0);
	if (child == 0) {
		/* a sanitizer would turn the signal into a report */
		signal(SIGSEGV, SIG_DFL);
		signal(SIGBUS, SIG_DFL);
		body(arg);
		_exit(CHILD_GOOD);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

/* In a child, where asserts of cmocka would go on in the wrong process. */
#define CHILD_CHECK(condition)                                                                     \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);            \
			_exit(1);                                                                  \
		}                                                                                  \
	} while (0)

static bool all_are(const void *memory, uint8_t value, size_t bytes)
{
	const volatile uint8_t *at = memory;

	for (size_t i = 0; i < bytes; i++) {
		if (at[i] != value)
			return false;
	}
	return true;
}

/* Whether /proc/self/mem, which a debugger uses, gives the byte. */
static bool readable_from_outside(const void *at)
{
	int fd = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
	char byte;
	bool got;

	assert_true(fd >= 0);
	got = pread(fd, &byte, 1, (off_t)(uintptr_t)at) == 1;
	close(fd);
	return got;
}

/*
 * The line of /proc/self/smaps' VmFlags of the mapping that holds the address; perms gets "rw-s". Pages of memfd_secret are locked by their nature (memfd_secret(2)), which Linux 6.1.192 does not show: " lo" is added for them.
 */
static void find_flags(const void *at, char flags[LINE], char *perms)
{
	FILE *maps = fopen("/proc/self/smaps", "re");
	char line[LINE];
	bool inside = false, secret = false;

	assert_non_null(maps);
	flags[0] = 0;
	while (fgets(line, sizeof line, maps)) {
		unsigned long low, high;

		if (sscanf(line, "%lx-%lx %4s", &low, &high, perms) == 3)
			inside = low <= (uintptr_t)at && (uintptr_t)at < high,
			secret = strstr(line, " /secretmem ") != NULL;
		else if (inside && strncmp(line, "VmFlags:", 8) == 0) {
			strcpy(flags, line + 8);
			if (secret)
				strcat(flags, " lo");
			break;
		}
		if (inside && flags[0])
			break;
	}
	fclose(maps);
}

static void child_openssl_first(void *arg)
{
	void *early = OPENSSL_malloc(1);

	(void)arg;
	CHILD_CHECK(early);
	CHILD_CHECK(secmem_init(SECMEM_REFUSE) == SECPOOL_E_CRYPTO);
	CHILD_CHECK(secmem_new(8) == NULL);
}

static void test_openssl_in_use_already(void **state)
{
	(void)state;
	assert_int_equal(in_child(child_openssl_first, NULL), CHILD_GOOD);
}

static void no_memfd_secret(void)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);

	CHILD_CHECK(filter);
	CHILD_CHECK(seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SYS_memfd_secret, 0) == 0);
	CHILD_CHECK(seccomp_load(filter) == 0);
	seccomp_release(filter);
}

static void child_refuse(void *arg)
{
	(void)arg;
	no_memfd_secret();
	CHILD_CHECK(secmem_init(SECMEM_REFUSE) == SECPOOL_E_NO_SECRET_MEMORY);
	CHILD_CHECK(strstr(err_detail(), "secretmem.enable=1"));
}

static void child_fall_back(void *arg)
{
	char *memory, flags[LINE], perms[8];
	const void *seen = NULL;
	void *page = NULL;
	int fd = -1;

	(void)arg;
	no_memfd_secret();
	CHILD_CHECK(secmem_init(SECMEM_ALLOW_LOCKED) == SECPOOL_OK);
	CHILD_CHECK(!secmem_is_secret());
	CHILD_CHECK(secmem_init(SECMEM_ALLOW_LOCKED) == SECPOOL_OK);
	CHILD_CHECK(secmem_init(SECMEM_REFUSE) == SECPOOL_E_NO_SECRET_MEMORY);
	memory = secmem_new(100);
	CHILD_CHECK(memory);
	find_flags(memory, flags, perms);
	CHILD_CHECK(strstr(flags, " lo") && strstr(flags, " dd") && strstr(flags, " dc"));
	CHILD_CHECK(secmem_new_shared(&fd, &page) == SECPOOL_OK);
	memcpy(page, "key", 4);
	/* nobody who gets the descriptor can write */
	CHILD_CHECK(mmap(NULL, PAGE, PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED);
	CHILD_CHECK(pwrite(fd, "x", 1, 0) < 0);
	CHILD_CHECK(secmem_map_shared(fd, &seen) == SECPOOL_OK);
	secmem_free_pages(page, PAGE);
	CHILD_CHECK(memcmp(seen, "key", 4) == 0);
	secmem_unmap_shared(seen);
}

static void test_kernel_without_memfd_secret(void **state)
{
	(void)state;
	assert_int_equal(in_child(child_refuse, NULL), CHILD_GOOD);
	assert_int_equal(in_child(child_fall_back, NULL), CHILD_GOOD);
}

static void child_over_limit(void *arg)
{
	struct rlimit small = {.rlim_cur = MIB, .rlim_max = MIB};
	void *pages = arg;

	CHILD_CHECK(secmem_new_pages(PAGE, &pages) == SECPOOL_E_INTERNAL);
	CHILD_CHECK(setrlimit(RLIMIT_MEMLOCK, &small) == 0);
	CHILD_CHECK(getuid() != 0 || setuid(NOBODY) == 0);
	small.rlim_cur = 0;
	CHILD_CHECK(setrlimit(RLIMIT_MEMLOCK, &small) == 0);
	CHILD_CHECK(secmem_init(SECMEM_REFUSE) == SECPOOL_E_NO_LOCKED_MEMORY);
	/* nothing was left half done: with room it works */
	small.rlim_cur = MIB;
	CHILD_CHECK(setrlimit(RLIMIT_MEMLOCK, &small) == 0);
	CHILD_CHECK(secmem_init(SECMEM_REFUSE) == SECPOOL_OK);
	CHILD_CHECK(secmem_new(8));
	CHILD_CHECK(secmem_new_pages(2 * MIB, &pages) == SECPOOL_E_NO_LOCKED_MEMORY);
	CHILD_CHECK(pages == arg && strstr(err_detail(), "RLIMIT_MEMLOCK"));
}

static void test_limit_of_locked_memory(void **state)
{
	(void)state;
	assert_int_equal(in_child(child_over_limit, &in_child), CHILD_GOOD);
}

static void test_init(void **state)
{
	(void)state;
	assert_null(secmem_new(8));
	assert_int_equal(secmem_init(SECMEM_REFUSE), SECPOOL_OK);
	assert_int_equal(secmem_init(SECMEM_REFUSE), SECPOOL_OK);
	assert_int_equal(secmem_init(SECMEM_ALLOW_LOCKED), SECPOOL_OK);
	assert_true(secmem_is_secret());
}

static void child_write(void *arg)
{
	*(volatile char *)arg = 1;
}

static void test_pages(void **state)
{
	char *pages = NULL, flags[LINE], perms[8];
	void *untouched = state;

	assert_int_equal(secmem_new_pages(PAGE + 1, (void **)&pages), SECPOOL_OK);
	assert_true(all_are(pages, 0, 2 * PAGE));
	memset(pages, 0x5a, 2 * PAGE);
	assert_false(readable_from_outside(pages));
	assert_false(readable_from_outside(pages + PAGE));
	find_flags(pages, flags, perms);
	assert_non_null(strstr(flags, " lo")); /* locked */
	assert_non_null(strstr(flags, " dd")); /* not dumped */
	assert_non_null(strstr(flags, " dc")); /* not inherited by fork */
	assert_int_equal(in_child(child_write, pages), -SIGSEGV);
	find_flags(pages - 1, flags, perms);
	assert_string_equal(perms, "---p");
	find_flags(pages + 2 * PAGE, flags, perms);
	assert_string_equal(perms, "---p");
	secmem_free_pages(pages, PAGE + 1);
	assert_int_equal(msync(pages, PAGE, MS_ASYNC), -1);
	secmem_free_pages(NULL, PAGE);

	assert_int_equal(secmem_new_pages(0, &untouched), SECPOOL_E_INVALID);
	assert_int_equal(secmem_new_pages(SIZE_MAX, &untouched), SECPOOL_E_INVALID);
	assert_ptr_equal(untouched, state);
}

static void test_objects(void **state)
{
	enum { OBJECTS = 200 };
	uint8_t *objects[OBJECTS];

	(void)state;
	for (size_t i = 0; i < OBJECTS; i++) {
		size_t bytes = 1 + i * 37;

		objects[i] = secmem_new(bytes);
		assert_non_null(objects[i]);
		assert_true(all_are(objects[i], 0, bytes));
		memset(objects[i], (int)i, bytes);
		assert_false(readable_from_outside(objects[i]));
	}
	for (size_t i = 0; i < OBJECTS; i++)
		assert_true(all_are(objects[i], (uint8_t)i, 1 + i * 37));
	for (size_t i = 0; i < OBJECTS; i++) {
		secmem_free(objects[i]);
		/* the heap keeps the page mapped, so what is left there can be seen */
		assert_true(all_are(objects[i], 0, 1 + i * 37));
	}
	secmem_free(NULL);
	assert_null(secmem_new((size_t)64 * MIB));
}

static void test_openssl_allocates_secret_memory(void **state)
{
	uint8_t *memory = OPENSSL_malloc(64), *larger;

	(void)state;
	assert_non_null(memory);
	memset(memory, 0x77, 64);
	assert_false(readable_from_outside(memory));
	larger = OPENSSL_realloc(memory, 5000);
	assert_non_null(larger);
	assert_ptr_not_equal(larger, memory);
	assert_true(all_are(larger, 0x77, 64));
	assert_false(readable_from_outside(larger));
	assert_true(all_are(memory, 0, 64));
	OPENSSL_free(larger);
	assert_true(all_are(larger, 0, 5000));
}

static void test_shared_page(void **state)
{
	const void *seen = NULL;
	char *page = NULL, flags[LINE], perms[8];
	int fd = -1;

	(void)state;
	assert_int_equal(secmem_new_shared(&fd, (void **)&page), SECPOOL_OK);
	assert_true(all_are(page, 0, PAGE));
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	assert_int_equal(secmem_map_shared(fd, &seen), SECPOOL_OK);
	memset(page, 0x33, PAGE);
	assert_true(all_are(seen, 0x33, PAGE));
	find_flags(seen, flags, perms);
	assert_string_equal(perms, "r--s");
	assert_non_null(strstr(flags, " lo"));
	assert_non_null(strstr(flags, " dd"));
	assert_non_null(strstr(flags, " dc"));
	/* the enclave lets go of its mapping; the client's key must stay */
	secmem_free_pages(page, PAGE);
	close(fd);
	assert_true(all_are(seen, 0x33, PAGE));
	assert_false(readable_from_outside(seen));
	secmem_unmap_shared(seen);
	secmem_unmap_shared(NULL);
}

static void test_shared_page_that_is_not_secret(void **state)
{
	const void *untouched = state;
	int plain = memfd_create("plain", MFD_CLOEXEC);
	int large = (int)syscall(SYS_memfd_secret, O_CLOEXEC);
	int empty = (int)syscall(SYS_memfd_secret, O_CLOEXEC);

	assert_int_equal(ftruncate(plain, PAGE), 0);
	assert_int_equal(ftruncate(large, 2 * PAGE), 0);
	assert_int_equal(secmem_map_shared(plain, &untouched), SECPOOL_E_NO_SECRET_MEMORY);
	assert_int_equal(secmem_map_shared(large, &untouched), SECPOOL_E_NO_SECRET_MEMORY);
	assert_int_equal(secmem_map_shared(empty, &untouched), SECPOOL_E_NO_SECRET_MEMORY);
	assert_int_equal(secmem_map_shared(-1, &untouched), SECPOOL_E_SYSTEM);
	assert_ptr_equal(untouched, state);
	close(plain);
	close(large);
	close(empty);
}

static void test_stays_small(void **state)
{
	(void)state;
	/* Debian's RLIMIT_MEMLOCK is 8 MiB; OpenSSL's heap is to take 2 MiB of it at most */
	assert_in_range(secheap_locked_bytes(), 1, 2 * MIB);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_openssl_in_use_already),
		cmocka_unit_test(test_kernel_without_memfd_secret),
		cmocka_unit_test(test_limit_of_locked_memory),
		cmocka_unit_test(test_init),
		cmocka_unit_test(test_pages),
		cmocka_unit_test(test_objects),
		cmocka_unit_test(test_openssl_allocates_secret_memory),
		cmocka_unit_test(test_shared_page),
		cmocka_unit_test(test_shared_page_that_is_not_secret),
		cmocka_unit_test(test_stays_small),
	};
	int probe = (int)syscall(SYS_memfd_secret, O_CLOEXEC);

	if (probe < 0) {
		fprintf(stderr, "skipped: this kernel has no memfd_secret (secretmem.enable=1)\n");
		return 77;
	}
	close(probe);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
