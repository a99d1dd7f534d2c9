/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/guarded_copy.h"

#include <stdint.h>
#include <string.h>
#include <ucontext.h>

#include "lib/base/os.h"

#if !defined(__x86_64__)
#error "guarded_copy needs its assembly written for this processor"
#endif

/* All routines return 0, or 1 by way of the label `gone`, where the handler sends a faulting access. */
int guarded_copy_asm(void *to, const void *from, size_t count);
int guarded_flush_asm(const void *at, size_t count);
int guarded_store_asm(void *to, const void *from, size_t count);
extern const char guarded_begin[], guarded_end[], guarded_gone[];

__asm__(".pushsection .text\n"
	".hidden guarded_begin, guarded_end, guarded_gone, guarded_copy_asm, guarded_flush_asm, "
	"guarded_store_asm\n"
	".globl guarded_begin, guarded_end, guarded_gone, guarded_copy_asm, guarded_flush_asm, "
	"guarded_store_asm\n"
	".type guarded_store_asm, @function\n"
	".type guarded_copy_asm, @function\n"
	".type guarded_flush_asm, @function\n"
	"guarded_copy_asm:\n"
	"	mov %rdx, %rcx\n"
	"guarded_begin:\n"
	"	rep movsb\n"
	"	xor %eax, %eax\n"
	"	ret\n"
	".size guarded_copy_asm, . - guarded_copy_asm\n"
	"guarded_flush_asm:\n" /* rdi: start of a cache line, rsi: end */
	"1:	cmp %rsi, %rdi\n"
	"	jae 2f\n"
	"	clflushopt (%rdi)\n"
	"	add $64, %rdi\n"
	"	jmp 1b\n"
	"2:	mfence\n"
	"	xor %eax, %eax\n"
	"	ret\n"
	"guarded_store_asm:\n" /* rdi: a multiple of 16, rdx: a multiple of 64 */
	"3:	test %rdx, %rdx\n"
	"	jz 4f\n"
	"	movups (%rsi), %xmm0\n"
	"	movups 16(%rsi), %xmm1\n"
	"	movups 32(%rsi), %xmm2\n"
	"	movups 48(%rsi), %xmm3\n"
	"	movntps %xmm0, (%rdi)\n"
	"	movntps %xmm1, 16(%rdi)\n"
	"	movntps %xmm2, 32(%rdi)\n"
	"	movntps %xmm3, 48(%rdi)\n"
	"	add $64, %rsi\n"
	"	add $64, %rdi\n"
	"	sub $64, %rdx\n"
	"	jmp 3b\n"
	"4:	sfence\n"
	"	xor %eax, %eax\n"
	"	ret\n"
	".size guarded_store_asm, . - guarded_store_asm\n"
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

enum secpool_error guarded_store(void *to, const void *from, size_t count)
{
	enum { LINE_BYTES = 64, STORE_BYTES = 16 };
	size_t lines = (uintptr_t)to % STORE_BYTES == 0 ? count / LINE_BYTES * LINE_BYTES : 0;
	enum secpool_error error = SECPOOL_OK;

	if (guarded_store_asm(to, from, lines) != 0)
		return SECPOOL_E_DEVICE_GONE;
	if (lines == count)
		return SECPOOL_OK;
	error = guarded_copy((uint8_t *)to + lines, (const uint8_t *)from + lines, count - lines);
	return error ? error : guarded_flush((uint8_t *)to + lines, count - lines);
}

enum secpool_error guarded_flush(const void *at, size_t count)
{
	uintptr_t start = (uintptr_t)at & ~(uintptr_t)63;

	if (guarded_flush_asm((const void *)start, (uintptr_t)at + count) != 0)
		return SECPOOL_E_DEVICE_GONE;
	return SECPOOL_OK;
}

bool guarded_copy_fixup(ucontext_t *context)
{
	uintptr_t at = (uintptr_t)context->uc_mcontext.gregs[REG_RIP];

	if (at < (uintptr_t)guarded_begin || at >= (uintptr_t)guarded_end)
		return false;
	context->uc_mcontext.gregs[REG_RIP] = (greg_t)(uintptr_t)guarded_gone;
	return true;
}

static struct sigaction before;

static void on_sigbus(int number, siginfo_t *info, void *context)
{
	if (guarded_copy_fixup(context))
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
