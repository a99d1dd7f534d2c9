/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls to the service wake it by a signal, also while it copies to a device: a healthy device is not taken for lost by that, and no call is
 * left waiting (both happened). Two threads flush and one reads at the same time. timeout: 120
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include "lib/base/clock.h"
#include "tests/support/support.h"

enum { REGION_BYTES = 8 << 20, LOCAL_BYTES = 16 << 20, SECONDS = 10, FLUSHERS = 3 };

static struct secpool_region *region;
static atomic_bool is_over;
static atomic_ulong flushes;

static void *flush(void *arg)
{
	(void)arg;
	while (!atomic_load(&is_over)) {
		SUPPORT_OK(secpool_flush(region));
		atomic_fetch_add(&flushes, 1);
	}
	return NULL;
}

int main(void)
{
	uint64_t end = clock_now_ns() + SECONDS * CLOCK_NS_PER_S;
	struct secpool_event event;
	struct secpool *pool;
	pthread_t threads[FLUSHERS];
	volatile uint8_t *at;

	support_up(3, "32M", NULL);
	pool = support_open("alpha", LOCAL_BYTES);
	region = support_region(pool, REGION_BYTES, 1);
	at = secpool_region_address(region);
	for (int i = 0; i < FLUSHERS; i++)
		SUPPORT_CHECK(pthread_create(&threads[i], NULL, flush, NULL) == 0);
	for (uint8_t round = 1; clock_now_ns() < end; round++)
		for (size_t i = 0; i < REGION_BYTES; i += 4096)
			at[i] = round;
	atomic_store(&is_over, true);
	for (int i = 0; i < FLUSHERS; i++)
		pthread_join(threads[i], NULL);
	SUPPORT_CHECK(!support_event(pool, SECPOOL_EVENT_DEVICE_LOST, 100, &event));
	printf("%lu flushes\n", atomic_load(&flushes));
	secpool_close(pool);
	support_down();
	return 0;
}
