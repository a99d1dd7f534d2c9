/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/spinlock.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* How often a held lock is looked at before its waiter sleeps: about 2 us, longer than any holder that runs. */
enum { SPINS = 100 };
#define NS_PER_S 1000000000ull

void spinlock_futex_wait(_Atomic uint32_t *word, uint32_t value)
{
	syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

void spinlock_futex_wait_most(_Atomic uint32_t *word, uint32_t value, uint64_t ns)
{
	struct timespec most = {
		.tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S)};

	syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, &most, NULL, 0);
}

void spinlock_futex_wake(_Atomic uint32_t *word, int most)
{
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, most, NULL, NULL, 0);
}

void spinlock_wait(struct spinlock *lock)
{
	for (int i = 0; i < SPINS; i++) {
		uint32_t seen = SPINLOCK_FREE;
		if (atomic_load_explicit(&lock->state, memory_order_relaxed) == SPINLOCK_FREE &&
			atomic_compare_exchange_strong_explicit(&lock->state, &seen, SPINLOCK_HELD,
				memory_order_acquire, memory_order_relaxed))
			return;
		__builtin_ia32_pause();
	}
	/* from here on it is taken as waited for: who gives it wakes one, also if there is none */
	while (atomic_exchange_explicit(&lock->state, SPINLOCK_WAITED_FOR, memory_order_acquire) !=
		SPINLOCK_FREE)
		spinlock_futex_wait(&lock->state, SPINLOCK_WAITED_FOR);
}

void spinlock_wake(struct spinlock *lock)
{
	spinlock_futex_wake(&lock->state, 1);
}
