/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A lock for a few instructions, also in signal handlers: four bytes, no allocation, no library. Who finds it held spins for a moment,
 * then sleeps in the kernel (futex), so that a holder that lost its processor is not waited for by spinning.
 *
 * Not recursive: a thread that may be interrupted by a handler that takes the same lock must hold that signal back while it has the lock.
 * A wait or a wake may change errno. Threads: any of one process.
 */
#ifndef SECPOOL_SPINLOCK_H
#define SECPOOL_SPINLOCK_H

#include <stdatomic.h>
#include <stdint.h>

/* Zero is unlocked. */
struct spinlock {
	_Atomic uint32_t state; /* enum spinlock_state */
};

enum spinlock_state { SPINLOCK_FREE = 0, SPINLOCK_HELD = 1, SPINLOCK_WAITED_FOR = 2 };

/* The slow halves of the two below. */
void spinlock_wait(struct spinlock *lock);
void spinlock_wake(struct spinlock *lock);

static inline void spinlock_take(struct spinlock *lock)
{
	uint32_t seen = SPINLOCK_FREE;

	if (!atomic_compare_exchange_strong_explicit(&lock->state, &seen, SPINLOCK_HELD, memory_order_acquire, memory_order_relaxed))
		spinlock_wait(lock);
}

static inline void spinlock_give(struct spinlock *lock)
{
	if (atomic_exchange_explicit(&lock->state, SPINLOCK_FREE, memory_order_release) == SPINLOCK_WAITED_FOR)
		spinlock_wake(lock);
}

/* Sleeps while *word is `value` (or returns early), and wakes up to `most` sleepers: futex(2), private to the process. */
void spinlock_futex_wait(_Atomic uint32_t *word, uint32_t value);
void spinlock_futex_wait_most(_Atomic uint32_t *word, uint32_t value, uint64_t ns); /* no longer than that */
void spinlock_futex_wake(_Atomic uint32_t *word, int most);

#endif
