/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/guarded_run.h"

#include <cpuid.h>
#include <stdatomic.h>
#include <string.h>

#if !defined(__x86_64__)
#error "guarded_run needs its assembly written for this processor"
#endif

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

/* The unit of which a machine check speaks, if it names none: a page (12 bits). The red zone: System V ABI AMD64, 3.2.2. */
enum { LEAST_LSB = 12, MOST_LSB = 40, RED_ZONE_BYTES = 128 };

/* Deeper than that below guarded_run no work is. */
enum { STACK_BYTES_MOST = 64 << 10 };

/* What the calling thread runs now; stack is NULL when it runs nothing. */
struct guard {
	void *stack;
	const uint8_t *at;
	size_t count;
};

/* A signal's handler reads it, also one that interrupted malloc: no call may be needed to find it. */
static _Thread_local struct guard guard __attribute__((tls_model("initial-exec")));

/*
 * Calls work(at, arg) with the registers that a caller keeps on the stack, and notes where they are; `gone` continues from there.
 * Returns what work returns, or -1 by way of `gone`.
 */
int guarded_run_asm(guarded_work *work, const uint8_t *at, void *arg, void **ret_stack);
extern const char guarded_run_gone[];

__asm__(".pushsection .text\n"
	".hidden guarded_run_asm, guarded_run_gone\n"
	".globl guarded_run_asm, guarded_run_gone\n"
	".type guarded_run_asm, @function\n"
	"guarded_run_asm:\n" /* rdi: work, rsi: at, rdx: arg, rcx: where the stack's end is noted */
	"	.cfi_startproc\n"
	"	push %rbp\n"
	"	push %rbx\n"
	"	push %r12\n"
	"	push %r13\n"
	"	push %r14\n"
	"	push %r15\n"
	"	sub $8, %rsp\n"
	"	.cfi_adjust_cfa_offset 56\n"
	"	.cfi_offset %rbp, -16\n"
	"	.cfi_offset %rbx, -24\n"
	"	.cfi_offset %r12, -32\n"
	"	.cfi_offset %r13, -40\n"
	"	.cfi_offset %r14, -48\n"
	"	.cfi_offset %r15, -56\n"
	"	.cfi_remember_state\n"
	"	mov %rsp, (%rcx)\n"
	"	mov %rdi, %rax\n"
	"	mov %rsi, %rdi\n"
	"	mov %rdx, %rsi\n"
	"	call *%rax\n"
	"1:	add $8, %rsp\n"
	"	pop %r15\n"
	"	pop %r14\n"
	"	pop %r13\n"
	"	pop %r12\n"
	"	pop %rbx\n"
	"	pop %rbp\n"
	"	.cfi_adjust_cfa_offset -56\n"
	"	ret\n"
	"guarded_run_gone:\n"
	"	.cfi_restore_state\n"
	"	cld\n"
	"	mov $-1, %eax\n"
	"	jmp 1b\n"
	"	.cfi_endproc\n"
	".size guarded_run_asm, . - guarded_run_asm\n"
	".popsection\n");

enum secpool_error guarded_run(const uint8_t *at, size_t count, guarded_work *work, void *arg)
{
	/* a signal's handler may have interrupted another run */
	struct guard before = guard;
	int result;

	guard = (struct guard){.at = at, .count = count};
	atomic_signal_fence(memory_order_seq_cst);
	result = guarded_run_asm(work, at, arg, &guard.stack);
	atomic_signal_fence(memory_order_seq_cst);
	guard = before;
	if (result >= 0)
		return (enum secpool_error)result;
	return SECPOOL_E_DEVICE_GONE;
}

/*
 * The vector registers as the kernel keeps them in the signal's frame (Intel SDM volume 1, 13.4: the standard form of the XSAVE area): zeros, in the frame and, as it is loaded again, in the registers.
 * The components: 2 is AVX, 5 to 7 are AVX-512; SSE is in the legacy area. Their places are CPUID's (leaf 0DH).
 */
static void clear_vectors(ucontext_t *context)
{
	enum { XMM_AT = 160, XMM_BYTES = 256, MAGIC_AT = 464, HEADER_AT = 512, XSTATE_LEAF = 0xd };
	static const unsigned components[] = {2, 5, 6, 7};
	uint8_t *area = (uint8_t *)context->uc_mcontext.fpregs;
	uint64_t there;
	uint32_t magic;

	if (!area)
		return;
	explicit_bzero(area + XMM_AT, XMM_BYTES);
	memcpy(&magic, area + MAGIC_AT, sizeof magic);
	if (magic !=
		0x46505853) /* FP_XSTATE_MAGIC1 of asm/sigcontext.h: nothing behind the legacy area */
		return;
	memcpy(&there, area + HEADER_AT, sizeof there);
	for (size_t i = 0; i < sizeof components / sizeof *components; i++) {
		unsigned bytes, at, unused;
		if (!(there & 1ull << components[i]) ||
			!__get_cpuid_count(
				XSTATE_LEAF, components[i], &bytes, &at, &unused, &unused))
			continue;
		explicit_bzero(area + at, bytes);
		there &= ~(1ull << components[i]);
	}
	memcpy(area + HEADER_AT, &there, sizeof there);
}

/* The frames that will never return. Not by a function that a sanitizer watches: it would find their borders. */
__attribute__((no_sanitize("address", "thread"))) static void wipe_stack(
	uintptr_t from, uintptr_t end)
{
	for (volatile uint8_t *at = (uint8_t *)from; (uintptr_t)at < end; at++)
		*at = 0;
#ifdef __SANITIZE_ADDRESS__ /* not __asan_handle_no_return, which would take this thread's other stack for a dead one */
	__asan_unpoison_memory_region((void *)from, end - from);
#endif
}

/* Whether the fault was in the range. A machine check names a unit, of 2 MiB with devdax, by its start; where the kernel can't tell the place (x86 kill_me_now) it is anybody's who was at work. */
static bool is_in_range(const siginfo_t *info, uintptr_t stack)
{
	uintptr_t at = (uintptr_t)info->si_addr, start = (uintptr_t)guard.at;
	unsigned lsb = 0;

	if (info->si_code == SI_KERNEL)
		return stack < (uintptr_t)guard.stack &&
		       stack + STACK_BYTES_MOST > (uintptr_t)guard.stack;
	if (info->si_code == BUS_MCEERR_AR)
		lsb = info->si_addr_lsb >= LEAST_LSB && info->si_addr_lsb < MOST_LSB
			      ? (unsigned)info->si_addr_lsb
			      : LEAST_LSB;
	at &= -(1ul << lsb);
	return at < start + guard.count && at + (1ul << lsb) > start;
}

bool guarded_run_fixup(const siginfo_t *info, ucontext_t *context)
{
	greg_t *registers = context->uc_mcontext.gregs;
	uintptr_t stack = (uintptr_t)registers[REG_RSP];

	if (!guard.stack || !is_in_range(info, stack))
		return false;
	if (stack < (uintptr_t)guard.stack && stack + STACK_BYTES_MOST > (uintptr_t)guard.stack)
		wipe_stack(stack - RED_ZONE_BYTES, (uintptr_t)guard.stack);
	registers[REG_RSP] = (greg_t)(uintptr_t)guard.stack;
	registers[REG_RIP] = (greg_t)(uintptr_t)guarded_run_gone;
	clear_vectors(context);
	return true;
}
