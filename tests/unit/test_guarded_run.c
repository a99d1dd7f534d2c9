/* SPDX-License-Identifier: Apache-2.0 */
/* lib/base/guarded_run.c: work that ends where memory vanishes, leaves nothing behind, and leaves other faults to others. */
#include <immintrin.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/base/guarded_copy.h"
#include "lib/base/guarded_run.h"
#include "tests/unit/vector_registers.h"

enum { PAGE = 4096, SECRET = 0x5ec2e75a };

static int media;
static uint8_t *map; /* two pages, of which the second goes away */

static int begin(void **state)
{
	(void)state;
	media = memfd_create("media", MFD_CLOEXEC);
	if (ftruncate(media, 2 * PAGE) != 0)
		return -1;
	map = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, media, 0);
	if (map == MAP_FAILED)
		return -1;
	memset(map, 1, 2 * PAGE);
	return 0;
}

static int end(void **state)
{
	(void)state;
	munmap(map, 2 * PAGE);
	return close(media);
}

static void ignore(int number)
{
	(void)number;
}

static enum secpool_error add_up(const uint8_t *at, void *arg)
{
	unsigned *sum = arg;

	for (size_t i = 0; i < 2 * PAGE; i++)
		*sum += ((const volatile uint8_t *)at)[i];
	return SECPOOL_OK;
}

static enum secpool_error refuse(const uint8_t *at, void *arg)
{
	return at == map && arg == map ? SECPOOL_E_INTEGRITY : SECPOOL_E_INTERNAL;
}

static void test_whole(void **state)
{
	unsigned sum = 0;

	(void)state;
	assert_int_equal(guarded_run(map, 2 * PAGE, add_up, &sum), SECPOOL_OK);
	assert_int_equal(sum, 2 * PAGE);
	assert_int_equal(guarded_run(map, 2 * PAGE, refuse, map), SECPOOL_E_INTEGRITY);
}

/* Not in the set-up: cmocka takes SIGBUS for itself before each test. */
static void lose_second_page(void)
{
	assert_int_equal(guarded_copy_install(), SECPOOL_OK);
	assert_int_equal(ftruncate(media, PAGE), 0);
}

static void test_gone(void **state)
{
	unsigned sum = 0;

	(void)state;
	lose_second_page();
	for (unsigned i = 1; i <= 100; i++) { /* no frame is lost by it */
		sum = 0;
		assert_int_equal(guarded_run(map, 2 * PAGE, add_up, &sum), SECPOOL_E_DEVICE_GONE);
		assert_int_equal(sum, PAGE); /* what was stored stays */
	}
	sum = 0;
	assert_int_equal(ftruncate(media, 2 * PAGE), 0);
	assert_int_equal(guarded_run(map, 2 * PAGE, add_up, &sum), SECPOOL_OK);
	assert_int_equal(sum, PAGE); /* zeros behind */
}

/* Registers that a function keeps for its caller are used up, then the page that went is met. */
static enum secpool_error use_registers(const uint8_t *at, void *arg)
{
	(void)arg;
	__asm__ volatile("mov $-1, %%rbx\n\tmov %%rbx, %%r12\n\tmov %%rbx, %%r13\n\t"
			 "mov %%rbx, %%r14\n\tmov %%rbx, %%r15\n\tstd\n\tmov (%0), %%al\n\tcld"
			 :
			 : "r"(at + PAGE)
			 : "rax", "rbx", "r12", "r13", "r14", "r15", "memory");
	return SECPOOL_OK;
}

__attribute__((noinline, used)) static enum secpool_error run_and_lose(void)
{
	return guarded_run(map, 2 * PAGE, use_registers, NULL);
}

/* In assembly on this side too: a compiler may use these registers as it likes between two statements. */
__attribute__((used)) static uint64_t kept[5];

static void test_registers(void **state)
{
	uint32_t error;

	(void)state;
	lose_second_page();
	__asm__ volatile("mov $1, %%ebx\n\tmov $2, %%r12d\n\tmov $3, %%r13d\n\tmov $4, %%r14d\n\t"
			 "mov $5, %%r15d\n\tcall *%%rax\n\tmov %%rbx, kept(%%rip)\n\t"
			 "mov %%r12, kept+8(%%rip)\n\tmov %%r13, kept+16(%%rip)\n\t"
			 "mov %%r14, kept+24(%%rip)\n\tmov %%r15, kept+32(%%rip)"
			 : "=a"(error)
			 : "a"(run_and_lose)
			 : "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12",
			 "r13", "r14", "r15", "memory", "cc");
	assert_int_equal(error, SECPOOL_E_DEVICE_GONE);
	for (uint64_t i = 0; i < 5; i++)
		assert_int_equal(kept[i], i + 1);
}

#ifndef __SANITIZE_THREAD__ /* it blocks all signals in a handler */
/* A run in the handler of a signal that came in the middle of another. */
static void run_inside(int number)
{
	unsigned sum = 0;

	(void)number;
	if (guarded_run(map, 2 * PAGE, add_up, &sum) != SECPOOL_E_DEVICE_GONE)
		_exit(3);
}

static enum secpool_error interrupted(const uint8_t *at, void *arg)
{
	raise(SIGUSR1);
	return add_up(at, arg);
}

static void test_nested(void **state)
{
	struct sigaction action = {.sa_handler = run_inside};
	unsigned sum = 0;

	(void)state;
	sigaction(SIGUSR1, &action, NULL);
	lose_second_page();
	assert_int_equal(guarded_run(map, 2 * PAGE, interrupted, &sum), SECPOOL_E_DEVICE_GONE);
	assert_int_equal(sum, PAGE);
}

#endif

/* A machine check, as the kernel tells of it: a process may send itself what the kernel alone sends others (rt_sigqueueinfo(2)). Nothing of it is real but the signal. */
static enum secpool_error meet_poison(const uint8_t *at, void *arg)
{
	(void)at;
	syscall(SYS_rt_tgsigqueueinfo, getpid(), (pid_t)syscall(SYS_gettid), SIGBUS, arg);
	return SECPOOL_OK;
}

static void test_machine_check(void **state)
{
	/* devdax: the unit of 2 MiB in which the poison is, by its start */
	siginfo_t unit = {.si_signo = SIGBUS, .si_code = BUS_MCEERR_AR};
	siginfo_t other = unit, page = unit;
	siginfo_t nowhere = {.si_signo = SIGBUS, .si_code = SI_KERNEL};

	(void)state;
	assert_int_equal(guarded_copy_install(), SECPOOL_OK);
	unit.si_addr = (void *)((uintptr_t)map & -(2ul << 20));
	unit.si_addr_lsb = 21;
	page.si_addr = map + PAGE;
	page.si_addr_lsb = 12;
	assert_int_equal(guarded_run(map, 2 * PAGE, meet_poison, &unit), SECPOOL_E_DEVICE_GONE);
	assert_int_equal(guarded_run(map, 2 * PAGE, meet_poison, &page), SECPOOL_E_DEVICE_GONE);
	assert_int_equal(guarded_run(map, 2 * PAGE, meet_poison, &nowhere), SECPOOL_E_DEVICE_GONE);
	signal(SIGBUS, ignore);
	assert_int_equal(guarded_copy_install(), SECPOOL_OK);
	assert_int_equal(guarded_run(map, PAGE, meet_poison, &page), SECPOOL_OK);
	other.si_addr = (uint8_t *)unit.si_addr + (2ul << 20);
	other.si_addr_lsb = 21;
	if ((uintptr_t)map % (2ul << 20) < (2ul << 20) - 2 * PAGE)
		assert_int_equal(guarded_run(map, 2 * PAGE, meet_poison, &other), SECPOOL_OK);
	assert_int_equal(meet_poison(map, &nowhere), SECPOOL_OK); /* nothing runs */
}

/* A fault elsewhere, and one after the run, are not its own. */
static enum secpool_error touch_other(const uint8_t *at, void *arg)
{
	(void)at;
	*(volatile uint8_t *)arg = 1;
	return SECPOOL_OK;
}

static void test_elsewhere(void **state)
{
	int status = 0;
	pid_t pid = fork();

	(void)state;
	if (pid == 0) {
		signal(SIGBUS, SIG_DFL);
		if (guarded_copy_install() != SECPOOL_OK || ftruncate(media, PAGE) != 0)
			_exit(3);
		(void)!guarded_run(map, PAGE, touch_other, map + PAGE);
		_exit(4);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_false(WIFEXITED(status) && (WEXITSTATUS(status) == 3 || WEXITSTATUS(status) == 4));
	pid = fork();
	if (pid == 0) {
		unsigned sum = 0;

		signal(SIGBUS, SIG_DFL);
		if (guarded_copy_install() != SECPOOL_OK || ftruncate(media, PAGE) != 0)
			_exit(3);
		(void)!guarded_run(map, 2 * PAGE, add_up, &sum);
		(void)!add_up(map, &sum);
		_exit(4);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_false(WIFEXITED(status) && (WEXITSTATUS(status) == 3 || WEXITSTATUS(status) == 4));
}

/* ---- what is left behind ---- */

#if !defined(__SANITIZE_ADDRESS__) &&                                                              \
	!defined(__SANITIZE_THREAD__) /* they keep the stacks for themselves */

/* Secrets in every vector register of this CPU's, and on the stack, when the page is met that went. */
__attribute__((target("avx512f"))) static void fill512(const uint8_t *at)
{
#define FILL(n) "vpbroadcastd %%eax, %%zmm" #n "\n\t"
	__asm__ volatile(FILL(0) FILL(1) FILL(2) FILL(3) FILL(4) FILL(5) FILL(6) FILL(7) FILL(
		8) FILL(9) FILL(10) FILL(11) FILL(12) FILL(13) FILL(14) FILL(15) FILL(16) FILL(17)
				 FILL(18) FILL(19) FILL(20) FILL(21) FILL(22) FILL(23) FILL(24)
					 FILL(25) FILL(26) FILL(27) FILL(28) FILL(29) FILL(30)
						 FILL(31) "mov (%1), %%al"
			 :
			 : "a"(SECRET), "r"(at)
			 : "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
			 "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
#undef FILL
}

static void fill128(const uint8_t *at)
{
	__asm__ volatile("movd %%eax, %%xmm0\n\tpshufd $0, %%xmm0, %%xmm0\n\t"
			 "movdqa %%xmm0, %%xmm7\n\tmov (%1), %%al"
			 :
			 : "a"(SECRET), "r"(at)
			 : "memory", "xmm0", "xmm7");
}

static void store128(void)
{
	__asm__ volatile("movdqu %%xmm0, (%0)\n\tmovdqu %%xmm7, 16(%0)"
			 :
			 : "r"(registers)
			 : "memory");
}

static bool wide(void)
{
	return __builtin_cpu_supports("avx512f");
}

static enum secpool_error hold_secrets(const uint8_t *at, void *arg)
{
	volatile uint32_t stack[512];

	*(uintptr_t *)arg = (uintptr_t)stack;
	for (size_t i = 0; i < 512; i++)
		stack[i] = SECRET;
	(wide() ? fill512 : fill128)(at + PAGE);
	return SECPOOL_OK;
}

/* The signal's own frame lay below, with the registers in it: on the stack for signals here. */
static void test_nothing_is_left(void **state)
{
	enum { SIGNAL_STACK = 64 << 10 };
	static _Alignas(64) uint32_t signal_stack[SIGNAL_STACK / 4];
	stack_t ours = {.ss_sp = signal_stack, .ss_size = sizeof signal_stack}, before;
	enum secpool_error error;
	uintptr_t stack = 0;
	size_t found = 0;

	(void)state;
	assert_int_equal(sigaltstack(&ours, &before), 0);
	lose_second_page();
	error = guarded_run(map, 2 * PAGE, hold_secrets, &stack);
	(wide() ? store512 : store128)();
	for (size_t i = 0; i < 512; i++)
		found += ((const volatile uint32_t *)stack)[i] == SECRET;
	assert_int_equal(error, SECPOOL_E_DEVICE_GONE);
	assert_int_equal(found, 0);
	for (size_t i = 0; i < sizeof registers; i++)
		assert_int_equal(registers[i], 0);
	/* rax has a part of it when the signal comes: a general register is nobody's secret */
	for (size_t i = 0; i + 1 < SIGNAL_STACK / 4; i++)
		found += signal_stack[i] == SECRET && signal_stack[i + 1] == SECRET;
	assert_int_equal(found, 0);
	sigaltstack(&before, NULL);
}

#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_whole, begin, end),
		cmocka_unit_test_setup_teardown(test_gone, begin, end),
		cmocka_unit_test_setup_teardown(test_registers, begin, end),
#ifndef __SANITIZE_THREAD__
		cmocka_unit_test_setup_teardown(test_nested, begin, end),
#endif
		cmocka_unit_test_setup_teardown(test_machine_check, begin, end),
		cmocka_unit_test_setup_teardown(test_elsewhere, begin, end),
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
		cmocka_unit_test_setup_teardown(test_nothing_is_left, begin, end),
#endif
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
