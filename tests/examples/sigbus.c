/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loss mode sigbus: a region with one copy of everything, which the program can make again. A load of a lost page raises SIGBUS: the program leaves it, asks what is lost,
 * writes those pages anew, and goes on.
 *
 *   build/tests/examples/sigbus        then, when it says "ready", pull and plug the device that has it, and give it a line on its standard input
 */
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "secpool.h"

enum { PAGE = 4096, WORDS = PAGE / sizeof(uint64_t), PAGES = 8192, RANGES = 64, TRIES = 2000 };

static sigjmp_buf out;

static void on_bus(int number)
{
	(void)number;
	siglongjmp(out, 1);
}

static void check(enum secpool_error error, const char *what)
{
	if (error == SECPOOL_OK)
		return;
	fprintf(stderr, "%s: %s\n", what, secpool_error_detail());
	exit(1);
}

/* What the program knows to make: here, numbers that follow from their place. */
static void make_page(uint64_t pgno, uint64_t *words)
{
	for (uint64_t i = 0; i < WORDS; i++)
		words[i] = pgno * WORDS + i;
}

/* False when a SIGBUS came. */
static int all_right(const volatile uint64_t *numbers)
{
	if (sigsetjmp(out, 1) != 0)
		return 0;
	for (uint64_t i = 0; i < (uint64_t)PAGES * WORDS; i++)
		if (numbers[i] != i)
			exit(1);
	return 1;
}

/* A whole lost page may be written again as soon as the region has space for it. */
static void write_page(struct secpool_region *region, uint64_t pgno)
{
	struct timespec some = {.tv_nsec = 10 * 1000 * 1000};
	uint64_t words[WORDS];

	make_page(pgno, words);
	for (int i = 0; i < TRIES; i++) {
		if (secpool_write(region, pgno * PAGE, words, PAGE) == SECPOOL_OK)
			return;
		nanosleep(&some, NULL);
	}
	fprintf(stderr, "page %llu can't be written: %s\n", (unsigned long long)pgno,
		secpool_error_detail());
	exit(1);
}

int main(void)
{
	struct secpool_options options = {.size = sizeof options, .local_bytes = 8 << 20};
	struct secpool_region_options wanted = {.size = sizeof wanted,
		.bytes = (size_t)PAGES * PAGE,
		.on_loss = SECPOOL_ON_LOSS_SIGBUS,
		.name = "sigbus"};
	struct secpool_range ranges[RANGES];
	struct secpool_region *region;
	struct secpool *pool;
	uint64_t *numbers, made = 0;
	size_t count = 1;

	check(secpool_open("default", &options, &pool), "open");
	check(secpool_region_create(pool, &wanted, &region), "create");
	numbers = secpool_region_address(region);
	for (uint64_t pgno = 0; pgno < PAGES; pgno++)
		make_page(pgno, numbers + pgno * WORDS);
	signal(SIGBUS, on_bus);
	puts("ready");
	fflush(stdout);
	getchar();
	while (!all_right(numbers)) {
		check(secpool_region_lost(region, ranges, RANGES, &count), "what is lost");
		for (size_t i = 0; i < count && i < RANGES; i++)
			for (size_t at = 0; at < ranges[i].bytes; at += PAGE, made++)
				write_page(region, (ranges[i].offset + at) / PAGE);
	}
	printf("%llu lost pages were made again, all numbers are right\n",
		(unsigned long long)made);
	check(secpool_region_release(region, NULL), "release");
	secpool_close(pool);
	return made > 0 ? 0 : 1;
}
