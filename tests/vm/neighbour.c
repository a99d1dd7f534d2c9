/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Another host that reaches the same memory, in `make check-vm`: counts the pages of a devdax device that hold anything and those that hold the marker, and with "spoil" overwrites all that hold anything but the last unit (the control
 * area, without which the device would be gone). Usage: neighbour DEVICE MIB MARKER [spoil]. Loads and stores of eight bytes: more tears between two QEMUs.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 4096, WORDS = PAGE / 8, UNIT = 2 << 20 };

static void load(const volatile uint64_t *from, uint64_t page[WORDS])
{
	for (size_t i = 0; i < WORDS; i++)
		page[i] = from[i];
}

static int is_written(const uint64_t page[WORDS])
{
	for (size_t i = 0; i < WORDS; i++)
		if (page[i] != 0)
			return 1;
	return 0;
}

int main(int argc, char **argv)
{
	unsigned long long written = 0, marked = 0, spoiled = 0;
	uint64_t page[WORDS], bytes;
	volatile uint64_t *map;
	int fd;

	if (argc != 4 && (argc != 5 || strcmp(argv[4], "spoil") != 0))
		return 2;
	bytes = strtoull(argv[2], NULL, 10) << 20;
	fd = open(argv[1], O_RDWR);
	map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (fd < 0 || map == MAP_FAILED || bytes <= UNIT) {
		perror(argv[1]);
		return 2;
	}
	for (uint64_t at = 0; at < bytes; at += PAGE) {
		volatile uint64_t *from = map + at / 8;
		load(from, page);
		if (!is_written(page))
			continue;
		written++;
		marked += memmem(page, PAGE, argv[3], strlen(argv[3])) != NULL;
		if (argc < 5 || at >= bytes - UNIT)
			continue;
		for (size_t i = 0; i < WORDS; i++)
			from[i] = ~page[i];
		spoiled++;
	}
	printf("PAGES written %llu marked %llu spoiled %llu\n", written, marked, spoiled);
	return 0;
}
