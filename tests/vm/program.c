/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The program of `make check-vm`: a mirrored region four times as large as its local memory, each page a text that names the page and its turn; pages are checked and written anew at random until the file STOP is there, then all of
 * them are checked. Prints a line a second, and at its end "END" or what was wrong. Usage: program STOP MIB LANES
 */
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "secpool.h"

enum { PAGE = 4096, PAGES_MOST = 1 << 16, TEXT_BYTES = 64 };

static uint32_t turns[PAGES_MOST];
static uint64_t page_count;
static uint8_t *memory;
static struct secpool *pool;

static void must(enum secpool_error error, const char *what)
{
	if (!error)
		return;
	printf("FAILED %s: %s\n", what, secpool_strerror(error));
	exit(1);
}

static void text_of(uint64_t pgno, char text[TEXT_BYTES])
{
	memset(text, '.', TEXT_BYTES);
	snprintf(text, TEXT_BYTES, "SECPOOL-VM-CANARY page %llu turn %u", (unsigned long long)pgno,
		turns[pgno]);
}

static void write_page(uint64_t pgno)
{
	char text[TEXT_BYTES];

	turns[pgno]++;
	text_of(pgno, text);
	for (size_t at = 0; at < PAGE; at += TEXT_BYTES)
		memcpy(memory + pgno * PAGE + at, text, TEXT_BYTES);
}

static void check_page(uint64_t pgno)
{
	char text[TEXT_BYTES];

	text_of(pgno, text);
	for (size_t at = 0; at < PAGE; at += TEXT_BYTES) {
		const uint8_t *seen = memory + pgno * PAGE + at;
		if (memcmp(seen, text, TEXT_BYTES) == 0)
			continue;
		printf("WRONG page %llu at %zu: %.40s, expected %.40s\n", (unsigned long long)pgno,
			at, (const char *)seen, text);
		exit(1);
	}
}

static void show(const char *word, unsigned long long operations)
{
	struct secpool_stats stats = {.size = sizeof stats};

	must(secpool_stats(pool, &stats), "stats");
	printf("%s operations %llu lost %llu bad %llu\n", word, operations,
		(unsigned long long)stats.lost_pages, (unsigned long long)stats.integrity_failures);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	struct secpool_options options = {.size = sizeof options, .local_bytes = 4 << 20};
	struct secpool_region_options wanted = {.size = sizeof wanted};
	struct secpool_region *region;
	unsigned long long operations = 0;
	time_t shown = time(NULL);
	uint64_t seed = 88172645463325252ull;

	if (argc != 4)
		return 2;
	wanted.bytes = strtoull(argv[2], NULL, 10) << 20;
	page_count = wanted.bytes / PAGE;
	if (page_count == 0 || page_count > PAGES_MOST)
		return 2;
	if (atoi(argv[3]) > 1) {
		wanted.redundancy = SECPOOL_REDUNDANCY_MIRROR;
		wanted.copies = (unsigned)atoi(argv[3]);
	}
	must(secpool_open("default", &options, &pool), "open");
	must(secpool_region_create(pool, &wanted, &region), "create");
	memory = secpool_region_address(region);
	for (uint64_t pgno = 0; pgno < page_count; pgno++)
		write_page(pgno);
	must(secpool_flush(region), "flush");
	show("WRITTEN", operations);
	while (access(argv[1], F_OK) != 0) {
		uint64_t pgno;
		seed ^= seed << 13;
		seed ^= seed >> 7;
		seed ^= seed << 17;
		pgno = seed % page_count;
		check_page(pgno);
		if (seed >> 63)
			write_page(pgno);
		operations++;
		if (time(NULL) != shown)
			show("ALIVE", operations);
		shown = time(NULL);
	}
	for (uint64_t pgno = 0; pgno < page_count; pgno++)
		check_page(pgno);
	show("END", operations);
	must(secpool_region_release(region, NULL), "release");
	secpool_close(pool);
	puts("RELEASED");
	return 0;
}
