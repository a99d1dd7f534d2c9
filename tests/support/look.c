/* SPDX-License-Identifier: Apache-2.0 */
/* Looking for a secret from outside: in files and in the memory of processes. */
#include "tests/support/support.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/os.h"

enum { CHUNK_BYTES = 1 << 20 };

void support_needle_random(struct support_needle *needle, size_t bytes)
{
	SUPPORT_CHECK(bytes >= 16 && bytes <= sizeof needle->masked);
	needle->bytes = bytes;
	os_random(needle->masked, bytes);
	/* the first byte is what the search jumps by: not the commonest one */
	if ((needle->masked[0] ^ SUPPORT_MASK) == 0)
		needle->masked[0] = SUPPORT_MASK ^ 0x5c;
}

static bool stands_at(const struct support_needle *needle, const uint8_t *at)
{
	for (size_t i = 0; i < needle->bytes; i++)
		if ((at[i] ^ SUPPORT_MASK) != needle->masked[i])
			return false;
	return true;
}

size_t support_count_bytes(const struct support_needle *needle, const void *bytes, size_t count)
{
	const uint8_t *at = bytes, *end = at + count;
	size_t found = 0;

	while ((size_t)(end - at) >= needle->bytes) {
		at = memchr(at, needle->masked[0] ^ SUPPORT_MASK,
			(size_t)(end - at) - needle->bytes + 1);
		if (!at)
			break;
		found += stands_at(needle, at);
		at++;
	}
	return found;
}

struct support_sieve {
	size_t count;
	/* whether any begins with these two bytes, masked: nearly every place is passed by here */
	bool begins[1 << 16];
	uint8_t (*sorted)[SUPPORT_PART_BYTES];
};

static int compare_parts(const void *a, const void *b)
{
	return memcmp(a, b, SUPPORT_PART_BYTES);
}

static unsigned beginning(const uint8_t masked[2])
{
	return (unsigned)masked[0] << 8 | masked[1];
}

struct support_sieve *support_sieve_new(const uint8_t (*masked)[SUPPORT_PART_BYTES], size_t count)
{
	struct support_sieve *sieve = calloc(1, sizeof *sieve);

	SUPPORT_CHECK(sieve != NULL);
	sieve->sorted = calloc(count + 1, sizeof *sieve->sorted);
	SUPPORT_CHECK(sieve->sorted != NULL);
	sieve->count = count;
	if (count > 0)
		memcpy(sieve->sorted, masked, count * sizeof *masked);
	qsort(sieve->sorted, count, sizeof *sieve->sorted, compare_parts);
	for (size_t i = 0; i < count; i++)
		sieve->begins[beginning(sieve->sorted[i])] = true;
	return sieve;
}

void support_sieve_free(struct support_sieve *sieve)
{
	if (sieve)
		free(sieve->sorted);
	free(sieve);
}

size_t support_sieve_count_bytes(const struct support_sieve *sieve, const void *bytes, size_t count)
{
	uint8_t window[SUPPORT_PART_BYTES];
	const uint8_t *at = bytes;
	size_t found = 0;

	for (; count >= sizeof window; at++, count--) {
		window[0] = at[0] ^ SUPPORT_MASK;
		window[1] = at[1] ^ SUPPORT_MASK;
		if (!sieve->begins[beginning(window)])
			continue;
		for (size_t i = 2; i < sizeof window; i++)
			window[i] = at[i] ^ SUPPORT_MASK;
		found += bsearch(window, sieve->sorted, sieve->count, sizeof *sieve->sorted,
				 compare_parts) != NULL;
	}
	return found;
}

/* What is looked for: one needle, or all of a sieve. */
struct search {
	const struct support_needle *needle;
	const struct support_sieve *sieve;
	size_t bytes; /* of one */
};

static size_t count_here(const struct search *search, const void *bytes, size_t count)
{
	return search->needle ? support_count_bytes(search->needle, bytes, count)
			      : support_sieve_count_bytes(search->sieve, bytes, count);
}

/* Counts in [start, end) of a descriptor, by pieces that overlap. What can't be read (a hole, secret memory) is left out. */
static size_t count_range(const struct search *search, int fd, uint64_t start, uint64_t end,
	uint8_t *chunk, size_t *read_bytes)
{
	size_t found = 0, kept = 0;

	while (start < end) {
		size_t want = CHUNK_BYTES - kept;
		if (want > end - start)
			want = (size_t)(end - start);
		ssize_t got = pread(fd, chunk + kept, want, (off_t)start);
		if (got <= 0) {
			/* on to the next page */
			start = (start / 4096 + 1) * 4096;
			kept = 0;
			continue;
		}
		*read_bytes += (size_t)got;
		found += count_here(search, chunk, kept + (size_t)got);
		kept += (size_t)got;
		size_t overlap = kept < search->bytes - 1 ? kept : search->bytes - 1;
		memmove(chunk, chunk + kept - overlap, overlap);
		kept = overlap;
		start += (uint64_t)got;
	}
	return found;
}

size_t support_count_file(const struct support_needle *needle, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint8_t *chunk = malloc(CHUNK_BYTES);
	size_t found, read_bytes = 0;
	off_t bytes;

	if (fd < 0)
		support_fail("open %s: %s", path, strerror(errno));
	SUPPORT_CHECK(chunk != NULL);
	bytes = lseek(fd, 0, SEEK_END);
	SUPPORT_CHECK(bytes >= 0);
	const struct search search = {.needle = needle, .bytes = needle->bytes};
	found = count_range(&search, fd, 0, (uint64_t)bytes, chunk, &read_bytes);
	SUPPORT_CHECK(read_bytes == (size_t)bytes);
	free(chunk);
	close(fd);
	return found;
}

static size_t count_process(const struct search *search, pid_t pid, size_t *ret_read_bytes)
{
	char path[64], line[512];
	uint8_t *chunk = malloc(CHUNK_BYTES);
	size_t found = 0, read_bytes = 0;
	FILE *maps;
	int mem;

	SUPPORT_CHECK(chunk != NULL);
	snprintf(path, sizeof path, "/proc/%d/maps", pid);
	maps = fopen(path, "re");
	snprintf(path, sizeof path, "/proc/%d/mem", pid);
	mem = open(path, O_RDONLY | O_CLOEXEC);
	while (maps && mem >= 0 && fgets(line, sizeof line, maps)) {
		unsigned long long start, end;
		char rights[8];
		if (sscanf(line, "%llx-%llx %7s", &start, &end, rights) != 3 || rights[0] != 'r')
			continue;
		if (strstr(line, "[vvar") || strstr(line, "[vsyscall]"))
			continue;
		/* reserved ranges of a sanitizer's shadow: nothing but zeros, and days to read */
		if (end - start > (8ull << 30))
			continue;
		found += count_range(search, mem, start, end, chunk, &read_bytes);
	}
	if (maps)
		fclose(maps);
	if (mem >= 0)
		close(mem);
	free(chunk);
	if (ret_read_bytes)
		*ret_read_bytes = read_bytes;
	return found;
}

size_t support_count_process(const struct support_needle *needle, pid_t pid, size_t *ret_read_bytes)
{
	const struct search search = {.needle = needle, .bytes = needle->bytes};

	return count_process(&search, pid, ret_read_bytes);
}

size_t support_sieve_count_process(
	const struct support_sieve *sieve, pid_t pid, size_t *ret_read_bytes)
{
	const struct search search = {.sieve = sieve, .bytes = SUPPORT_PART_BYTES};

	return count_process(&search, pid, ret_read_bytes);
}

static bool is_listed(pid_t pid, const pid_t *list, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (list[i] == pid)
			return true;
	return false;
}

size_t support_count_others(
	const struct support_needle *needle, const pid_t *except, size_t except_count)
{
	DIR *proc = opendir("/proc");
	struct dirent *entry;
	size_t found = 0;

	SUPPORT_CHECK(proc != NULL);
	while ((entry = readdir(proc))) {
		pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);
		if (!isdigit((unsigned char)entry->d_name[0]) || pid == getpid() ||
			is_listed(pid, except, except_count))
			continue;
		size_t here = support_count_process(needle, pid, NULL);
		if (here)
			fprintf(stderr, "found %zu times in the memory of process %d\n", here, pid);
		found += here;
	}
	closedir(proc);
	return found;
}
