/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/torture/driver.h"
#include "tests/torture/pattern.h"

/* What is damaged at once: ranges of 64 bytes to 64 KiB. */
enum { RANGES = 12, RANGE_MOST = 64 << 10, UNIT = 4096 };

struct range {
	off_t offset;
	size_t bytes;
};

/* The i-th range that follows from the hash; page by page, or of any length at any place. */
static struct range range_of(uint64_t hash, unsigned i, bool pages)
{
	uint64_t dice = pattern_hash(hash, i);
	struct range range = {.bytes = (size_t)64 << (dice % 11)};

	if (pages && range.bytes < UNIT)
		range.bytes = UNIT;
	range.offset = (off_t)((dice >> 8) % (DRIVER_DEVICE_BYTES - RANGE_MOST));
	if (pages)
		range.offset -= range.offset % UNIT;
	return range;
}

static int open_media(unsigned device)
{
	return open(stack_media(device), O_RDWR | O_CLOEXEC);
}

static bool read_range(int fd, const struct range *range, uint8_t *bytes)
{
	return pread(fd, bytes, range->bytes, range->offset) == (ssize_t)range->bytes;
}

static bool write_range(int fd, const struct range *range, const uint8_t *bytes)
{
	return pwrite(fd, bytes, range->bytes, range->offset) == (ssize_t)range->bytes;
}

static bool swap_ranges(int one, const struct range *a, int other, const struct range *b)
{
	static uint8_t first[RANGE_MOST], second[RANGE_MOST];

	return read_range(one, a, first) && read_range(other, b, second) &&
	       write_range(one, a, second) && write_range(other, b, first);
}

static bool spoil_range(int fd, enum media_damage damage, uint64_t hash, unsigned i)
{
	static uint8_t bytes[RANGE_MOST];
	struct range range = range_of(hash, i, damage == MEDIA_SWAP), second;

	if (damage == MEDIA_SWAP) {
		second = range_of(hash, i + RANGES, true);
		second.bytes = range.bytes;
		return swap_ranges(fd, &range, fd, &second);
	}
	memset(bytes, damage == MEDIA_ONES ? 0xff : 0, range.bytes);
	for (size_t at = 0; damage == MEDIA_NOISE && at < range.bytes; at += sizeof hash) {
		uint64_t word = pattern_hash(hash ^ (uint64_t)range.offset, at);
		memcpy(bytes + at, &word, sizeof word);
	}
	return write_range(fd, &range, bytes);
}

bool media_spoil(unsigned device, enum media_damage damage, uint64_t hash)
{
	int fd = open_media(device);
	bool done = fd >= 0;

	for (unsigned i = 0; done && i < RANGES; i++)
		done = spoil_range(fd, damage, hash, i);
	if (fd >= 0)
		close(fd);
	return done;
}

bool media_swap_between(unsigned one, unsigned other, uint64_t hash)
{
	int first = open_media(one), second = open_media(other);
	bool done = first >= 0 && second >= 0;

	for (unsigned i = 0; done && i < RANGES; i++) {
		struct range a = range_of(hash, i, true), b = range_of(hash, i + RANGES, true);
		b.bytes = a.bytes;
		done = swap_ranges(first, &a, second, &b);
	}
	if (first >= 0)
		close(first);
	if (second >= 0)
		close(second);
	return done;
}

/* ---- replay: of one device at a time ---- */

static uint8_t old[RANGES][RANGE_MOST];

bool media_remember(unsigned device, uint64_t hash)
{
	int fd = open_media(device);
	bool done = fd >= 0;

	for (unsigned i = 0; done && i < RANGES; i++) {
		struct range range = range_of(hash, i, true);
		done = read_range(fd, &range, old[i]);
	}
	if (fd >= 0)
		close(fd);
	return done;
}

bool media_replay(unsigned device, uint64_t hash)
{
	int fd = open_media(device);
	bool done = fd >= 0;

	for (unsigned i = 0; done && i < RANGES; i++) {
		struct range range = range_of(hash, i, true);
		done = write_range(fd, &range, old[i]);
	}
	if (fd >= 0)
		close(fd);
	return done;
}
