/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/stripe.h"

#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* A wait for a busy stripe: so many looks, then asleep until the owner says, or this long. Owners need 2 to 50 us. */
enum { TAKE_SPINS = 400 };
#define TAKE_WAIT_NS (10l * 1000000)

/* The half of the word that the bits of the owner are in, for futex(2). */
static uint32_t *futex_of(struct stripe *stripe)
{
	_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the low half comes first");
	return (uint32_t *)(void *)&stripe->word;
}

bool stripe_try(struct stripe *stripe)
{
	/* acquire: what the owner before us wrote */
	return !(atomic_fetch_or_explicit(&stripe->word, STRIPE_BUSY, memory_order_acquire) &
		 STRIPE_BUSY);
}

static void wait_for(struct stripe *stripe)
{
	struct timespec most = {.tv_nsec = TAKE_WAIT_NS};
	uint64_t seen;

	for (unsigned i = 0; i < TAKE_SPINS; i++) {
		if (!(atomic_load_explicit(&stripe->word, memory_order_relaxed) & STRIPE_BUSY))
			return;
		__builtin_ia32_pause();
	}
	seen = atomic_load(&stripe->word);
	while (seen & STRIPE_BUSY) {
		if (!atomic_compare_exchange_weak(&stripe->word, &seen, seen | STRIPE_WAITERS))
			continue;
		syscall(SYS_futex, futex_of(stripe), FUTEX_WAIT_PRIVATE,
			(uint32_t)(seen | STRIPE_WAITERS), &most, NULL, 0);
		return;
	}
}

void stripe_take(struct stripe *stripe)
{
	while (!stripe_try(stripe))
		wait_for(stripe);
}

bool stripe_release(struct stripe *stripe)
{
	uint64_t seen = atomic_load(&stripe->word);

	do {
		if (!stripe_decodable(seen))
			return false;
		/* release: all that the owner did to the stripe */
	} while (!atomic_compare_exchange_weak_explicit(&stripe->word, &seen,
		seen & ~(STRIPE_BUSY | STRIPE_WAITERS), memory_order_acq_rel,
		memory_order_acquire));
	if (seen & STRIPE_WAITERS)
		syscall(SYS_futex, futex_of(stripe), FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
	return true;
}

void stripe_note(struct stripe *stripe, uint64_t set, uint64_t clear)
{
	uint64_t seen = atomic_load(&stripe->word);

	while (!atomic_compare_exchange_weak(&stripe->word, &seen, (seen & ~clear) | set))
		;
}

unsigned stripe_give_up(struct stripe *stripe)
{
	uint64_t seen = atomic_load(&stripe->word), next;
	unsigned missing;

	do {
		missing = stripe_missing(seen);
		next = seen & ~((uint64_t)missing << STRIPE_INCLUDED_SHIFT) &
		       ~(15ull << STRIPE_PARITY_SHIFT);
	} while (!atomic_compare_exchange_weak(&stripe->word, &seen, next));
	return missing;
}
