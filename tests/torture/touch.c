/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/torture/touch.h"

#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

#include "tests/torture/client.h"

static _Thread_local sigjmp_buf back;
static _Thread_local volatile sig_atomic_t guarded;
static _Thread_local void *volatile bus_address;

static void on_bus(int number, siginfo_t *info, void *context)
{
	const ucontext_t *at = context;

	(void)number;
	if (!guarded) {
		/* not async-signal-safe, and the process ends anyway */
		fprintf(stderr,
			"secpool-torture: a client got SIGBUS outside of its touches: code %d, "
			"address %p, instruction %p in %p, stack %p\n",
			info->si_code, info->si_addr,
			(void *)(uintptr_t)at->uc_mcontext.gregs[REG_RIP], (void *)on_bus,
			(void *)(uintptr_t)at->uc_mcontext.gregs[REG_RSP]);
		_exit(CLIENT_EXIT_CRASH);
	}
	bus_address = info->si_addr;
	siglongjmp(back, 1);
}

void touch_prepare(void)
{
	struct sigaction action = {.sa_sigaction = on_bus, .sa_flags = SA_SIGINFO};

	if (sigaction(SIGBUS, &action, NULL) != 0)
		abort();
}

/* Words, not memcpy: the compiler may not merge, leave out or repeat them. */
static void copy(volatile uint64_t *to, const volatile uint64_t *from, size_t words)
{
	for (size_t i = 0; i < words; i++)
		to[i] = from[i];
}

bool touch_copy(void *to, const void *from, size_t bytes, const void **ret_at)
{
	if (sigsetjmp(back, 1) != 0) {
		guarded = 0;
		*ret_at = bus_address;
		return false;
	}
	guarded = 1;
	copy(to, from, bytes / sizeof(uint64_t));
	guarded = 0;
	return true;
}
