/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loss mode refill, for memory that is optional: here a table that the program can make again. When a page of it is lost, the library calls the program for that page, when it is asked for; the loads wait and never notice.
 *
 *   build/tests/examples/refill        then, when it says "ready", pull the device that has it, and give it a line on its standard input
 */
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "secpool.h"

enum { NUMBERS = 4 << 20 };

static atomic_ulong refilled;

static uint64_t number(uint64_t i)
{
	return i * i + 1;
}

static int refill(void *arg, size_t offset, void *buffer, size_t bytes)
{
	uint64_t *numbers = buffer;

	(void)arg;
	for (size_t i = 0; i < bytes / sizeof *numbers; i++)
		numbers[i] = number(offset / sizeof *numbers + i);
	refilled++;
	return 0;
}

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
		.on_loss = SECPOOL_ON_LOSS_REFILL,
		.refill = refill,
		.name = "refill"};
	struct secpool_region *region;
	struct secpool *pool;
	uint64_t *numbers;

	check(secpool_open("default", &options, &pool), "open");
	check(secpool_region_create(pool, &wanted, &region), "create");
	numbers = secpool_region_address(region);
	for (uint64_t i = 0; i < NUMBERS; i++)
		numbers[i] = number(i);
	puts("ready");
	fflush(stdout);
	getchar();
	for (uint64_t i = 0; i < NUMBERS; i++)
		if (numbers[i] != number(i))
			return 1;
	printf("%lu pages were made again, all numbers are right\n", (unsigned long)refilled);
	check(secpool_region_release(region, NULL), "release");
	secpool_close(pool);
	return refilled > 0 ? 0 : 1;
}
