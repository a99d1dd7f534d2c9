/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/guarded_copy.h"

#include <stdint.h>
#include <string.h>
#include <ucontext.h>

#include "lib/base/guarded_run.h"
#include "lib/base/os.h"

#if !defined(__x86_64__)
#error "guarded_copy needs its assembly written for this processor"
#endif

/*
 * The routines return 0, or 1 by way of the label `gone`, where the handler sends a faulting access: they may change neither the stack nor
 * a register that the caller keeps. guarded_differs_asm returns -1 for a difference. Baseline SSE2 does: memory is the limit, not the loop.
 */
int guarded_copy_asm(void *to, const void *from, size_t count);
int guarded_store_asm(void *to, const void *from, const uint8_t *mask, size_t count);
int guarded_differs_asm(const void *at, size_t stride, const void *from,
	const uint8_t (*masks)[GUARDED_MASK_BYTES], size_t count);
int guarded_flush_asm(const void *at, size_t count);
int guarded_load_asm(const void *at, uint64_t *to);
int guarded_swap_asm(void *at, uint64_t value, uint64_t *before);
extern const char guarded_begin[], guarded_end[], guarded_gone[];

/* 16 bytes of a range (rdi + at) against xmm0, the base's, and the mask's (rcx + mask): differing bits are gathered in `into`. */
#define COMPARE(at, mask, into)                                                                    \
	"	movdqu " at ", %xmm1\n"                                                            \
	"	pxor %xmm0, %xmm1\n"                                                                     \
	"	pxor " mask "(%rcx), %xmm1\n"                                                      \
	"	por %xmm1, " into "\n"

/* The same 16 bytes of all four ranges. */
#define COMPARE_FOUR(at, second, third, fourth)                                                    \
	"	movdqu " at "(%rdx), %xmm0\n" COMPARE(at "(%rdi)", at, "%xmm2")                    \
		COMPARE(at "(%rdi,%rsi)", second, "%xmm3")                                         \
			COMPARE(at "(%rdi,%rsi,2)", third, "%xmm4")                                \
				COMPARE(at "(%rax)", fourth, "%xmm5")

__asm__(".pushsection .text\n"
	".hidden guarded_begin, guarded_end, guarded_gone, guarded_copy_asm, guarded_flush_asm\n"
	".hidden guarded_store_asm, guarded_differs_asm, guarded_load_asm, guarded_swap_asm\n"
	".globl guarded_begin, guarded_end, guarded_gone, guarded_copy_asm, guarded_flush_asm\n"
	".globl guarded_store_asm, guarded_differs_asm, guarded_load_asm, guarded_swap_asm\n"
	".type guarded_copy_asm, @function\n"
	".type guarded_store_asm, @function\n"
	".type guarded_differs_asm, @function\n"
	".type guarded_flush_asm, @function\n"
	".type guarded_load_asm, @function\n"
	".type guarded_swap_asm, @function\n"
	"guarded_copy_asm:\n"
	"	mov %rdx, %rcx\n"
	"guarded_begin:\n"
	"	rep movsb\n"
	"	xor %eax, %eax\n"
	"	ret\n"
	".size guarded_copy_asm, . - guarded_copy_asm\n"
	"guarded_load_asm:\n" /* rdi: at, rsi: to */
	"	mov (%rdi), %rax\n"
	"	mov %rax, (%rsi)\n"
	"	xor %eax, %eax\n"
	"	ret\n"
	".size guarded_load_asm, . - guarded_load_asm\n"
	"guarded_swap_asm:\n" /* rdi: at, rsi: value, rdx: before */
	"	mov (%rdi), %rax\n"
	"	mov %rsi, (%rdi)\n"
	"	mov %rax, (%rdx)\n"
	"	xor %eax, %eax\n"
	"	ret\n"
	".size guarded_swap_asm, . - guarded_swap_asm\n"
	"guarded_store_asm:\n" /* rdi: to, rsi: from, rdx: mask, rcx: count */
	"	add %rdi, %rcx\n"
	"	movdqu (%rdx), %xmm4\n"
	"	movdqu 16(%rdx), %xmm5\n"
	"	movdqu 32(%rdx), %xmm6\n"
	"	movdqu 48(%rdx), %xmm7\n"
	"1:	cmp %rcx, %rdi\n"
	"	jae 2f\n"
	"	movdqu (%rsi), %xmm0\n"
	"	movdqu 16(%rsi), %xmm1\n"
	"	movdqu 32(%rsi), %xmm2\n"
	"	movdqu 48(%rsi), %xmm3\n"
	"	pxor %xmm4, %xmm0\n"
	"	pxor %xmm5, %xmm1\n"
	"	pxor %xmm6, %xmm2\n"
	"	pxor %xmm7, %xmm3\n"
	"	movntdq %xmm0, (%rdi)\n"
	"	movntdq %xmm1, 16(%rdi)\n"
	"	movntdq %xmm2, 32(%rdi)\n"
	"	movntdq %xmm3, 48(%rdi)\n"
	"	add $64, %rsi\n"
	"	add $64, %rdi\n"
	"	jmp 1b\n"
	"2:	xor %eax, %eax\n"
	"	ret\n"
	".size guarded_store_asm, . - guarded_store_asm\n"
	"guarded_differs_asm:\n" /* rdi: at, rsi: stride, rdx: from, rcx: masks, r8: count */
	"	lea (%rsi,%rsi,2), %rax\n"
	"	add %rdi, %rax\n" /* the fourth range */
	"	add %rdi, %r8\n"
	"	pxor %xmm2, %xmm2\n"
	"	pxor %xmm3, %xmm3\n"
	"	pxor %xmm4, %xmm4\n"
	"	pxor %xmm5, %xmm5\n"
	"1:	cmp %r8, %rdi\n"
	"	jae 2f\n" COMPARE_FOUR("0", "64", "128", "192") COMPARE_FOUR("16", "80", "144",
		"208") COMPARE_FOUR("32", "96", "160", "224") COMPARE_FOUR("48", "112", "176",
		"240") "	add $64, %rdi\n"
		       "	add $64, %rax\n"
		       "	add $64, %rdx\n"
		       "	jmp 1b\n"
		       "2:	por %xmm3, %xmm2\n"
		       "	por %xmm5, %xmm4\n"
		       "	por %xmm4, %xmm2\n"
		       "	pxor %xmm0, %xmm0\n"
		       "	pcmpeqb %xmm0, %xmm2\n"
		       "	pmovmskb %xmm2, %eax\n"
		       "	cmp $0xffff, %eax\n"
		       "	je 3f\n"
		       "	mov $-1, %eax\n"
		       "	ret\n"
		       "3:	xor %eax, %eax\n"
		       "	ret\n"
		       ".size guarded_differs_asm, . - guarded_differs_asm\n"
		       "guarded_flush_asm:\n" /* rdi: start of a cache line, rsi: end */
		       "1:	cmp %rsi, %rdi\n"
		       "	jae 2f\n"
		       "	clflushopt (%rdi)\n"
		       "	add $64, %rdi\n"
		       "	jmp 1b\n"
		       "2:	mfence\n"
		       "	xor %eax, %eax\n"
		       "	ret\n"
		       "guarded_end:\n"
		       ".size guarded_flush_asm, . - guarded_flush_asm\n"
		       "guarded_gone:\n"
		       "	mov $1, %eax\n"
		       "	ret\n"
		       ".popsection\n");

enum secpool_error guarded_copy(void *to, const void *from, size_t count)
{
	if (guarded_copy_asm(to, from, count) != 0)
		return SECPOOL_E_DEVICE_GONE;
	return SECPOOL_OK;
}

enum secpool_error guarded_load(const void *at, uint64_t *ret_value)
{
	if (guarded_load_asm(at, ret_value) != 0)
		return SECPOOL_E_DEVICE_GONE;
	return SECPOOL_OK;
}

enum secpool_error guarded_swap(void *at, uint64_t value, uint64_t *ret_before)
{
	if (guarded_swap_asm(at, value, ret_before) != 0)
		return SECPOOL_E_DEVICE_GONE;
	return SECPOOL_OK;
}

/* movntdq's alignment, and steps of a line */
static bool can_stream(const void *to, size_t count)
{
	return (uintptr_t)to % 16 == 0 && count % GUARDED_MASK_BYTES == 0;
}

enum secpool_error guarded_store_masked(
	void *to, const void *from, const uint8_t *mask, size_t count)
{
	if (!can_stream(to, count))
		return err_set(
			SECPOOL_E_INVALID, "%zu bytes to %p can't be stored by lines", count, to);
	if (guarded_store_asm(to, from, mask, count) != 0)
		return SECPOOL_E_DEVICE_GONE;
	return SECPOOL_OK;
}

void guarded_fence(void)
{
	__builtin_ia32_sfence();
}

enum secpool_error guarded_differs(const struct guarded_expected *expected, bool *ret_differs)
{
	/* side by side, and aligned for pxor */
	_Alignas(16) uint8_t masks[GUARDED_RANGES][GUARDED_MASK_BYTES];
	int result;

	if (expected->count % GUARDED_MASK_BYTES != 0)
		return err_set(
			SECPOOL_E_INVALID, "%zu bytes can't be compared by lines", expected->count);
	for (size_t i = 0; i < GUARDED_RANGES; i++)
		memcpy(masks[i], expected->mask[i], GUARDED_MASK_BYTES);
	result = guarded_differs_asm(
		expected->at, expected->stride, expected->from, masks, expected->count);
	if (result > 0)
		return SECPOOL_E_DEVICE_GONE;
	*ret_differs = result < 0;
	return SECPOOL_OK;
}

enum secpool_error guarded_flush(const void *at, size_t count)
{
	uintptr_t start = (uintptr_t)at & ~(uintptr_t)63;

	if (guarded_flush_asm((const void *)start, (uintptr_t)at + count) != 0)
		return SECPOOL_E_DEVICE_GONE;
	return SECPOOL_OK;
}

bool guarded_copy_fixup(const siginfo_t *info, ucontext_t *context)
{
	uintptr_t at = (uintptr_t)context->uc_mcontext.gregs[REG_RIP];

	if (at < (uintptr_t)guarded_begin || at >= (uintptr_t)guarded_end)
		return guarded_run_fixup(info, context);
	context->uc_mcontext.gregs[REG_RIP] = (greg_t)(uintptr_t)guarded_gone;
	return true;
}

static struct sigaction before;

static void on_sigbus(int number, siginfo_t *info, void *context)
{
	/* another process met poison in memory that this one maps, too: nothing was interrupted */
	if (info->si_code == BUS_MCEERR_AO)
		return;
	if (info->si_code > 0 && guarded_copy_fixup(info, context))
		return;
	if (before.sa_flags & SA_SIGINFO) {
		before.sa_sigaction(number, info, context);
	} else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) {
		before.sa_handler(number);
	} else { /* the access is made again and ends the process as it would have */
		sigaction(SIGBUS, &before, NULL);
	}
}

enum secpool_error guarded_copy_install(void)
{
	struct sigaction action = {.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK};

	action.sa_sigaction = on_sigbus;
	sigemptyset(&action.sa_mask);
	if (sigaction(SIGBUS, &action, &before) != 0)
		return os_error("sigaction SIGBUS");
	return SECPOOL_OK;
}
