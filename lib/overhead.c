/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/overhead.h"

#include "lib/base/clock.h"

void overhead_set(struct secpool *pool, bool on)
{
	atomic_store(&pool->measuring, on);
}

uint64_t overhead_ns(const struct secpool *pool, enum overhead_stage stage)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < pool->workers.count; i++)
		sum += atomic_load_explicit(
			&pool->workers.all[i].spent_ns[stage], memory_order_relaxed);
	return sum;
}

const char *overhead_name(enum overhead_stage stage)
{
	static const char *const names[OVERHEAD_STAGES] = {"find", "room", "open", "place", "end",
		"evict_hold", "evict_seal", "evict_store", "evict_drop"};

	return stage < OVERHEAD_STAGES ? names[stage] : "?";
}

void overhead_note(struct worker *worker, int stage)
{
	uint64_t now = clock_now_ns();

	if (stage >= 0)
		atomic_fetch_add_explicit(
			&worker->spent_ns[stage], now - worker->marked_ns, memory_order_relaxed);
	worker->marked_ns = now;
}
