/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loss mode failover: a region on a mirror; a device is pulled, and the program notices nothing unless it looks at the events.
 *
 *   build/tests/examples/failover      then, when it says "ready", pull a device, and give it a line on its standard input
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "secpool.h"

enum { NUMBERS = 4 << 20 };

static void check(enum secpool_error error, const char *what)
{
	if (error == SECPOOL_OK)
		return;
	fprintf(stderr, "%s: %s\n", what, secpool_error_detail());
	exit(1);
}

int main(void)
{
	struct secpool_options options = {.size = sizeof options, .local_bytes = 8 << 20};
	struct secpool_region_options wanted = {.size = sizeof wanted,
		.bytes = NUMBERS * sizeof(uint64_t),
		.redundancy = SECPOOL_REDUNDANCY_MIRROR,
		.copies = 2,
		.on_loss = SECPOOL_ON_LOSS_FAILOVER,
		.name = "failover"};
	struct secpool_event event = {.size = sizeof event};
	struct secpool_region *region;
	struct secpool *pool;
	uint64_t *numbers;

	check(secpool_open("default", &options, &pool), "open");
	check(secpool_region_create(pool, &wanted, &region), "create");
	numbers = secpool_region_address(region);
	for (uint64_t i = 0; i < NUMBERS; i++)
		numbers[i] = i * i;
	puts("ready");
	fflush(stdout);
	getchar();
	for (uint64_t i = 0; i < NUMBERS; i++)
		if (numbers[i] != i * i)
			return 1;
	while (secpool_event_next(pool, &event) == SECPOOL_OK)
		if (event.type == SECPOOL_EVENT_REGION_FAILOVER)
			printf("device %s went, the other copies serve\n", event.device);
	puts("all numbers are right");
	check(secpool_region_release(region, NULL), "release");
	secpool_close(pool);
	return 0;
}
