/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a block of pool memory holds in the torture: each line of 64 bytes says which region, which line of it and which generation it is, and proves it. So whatever is read can
 * be told apart: right, zeros, an older generation, another line's or another region's or process's, or nothing that was ever written.
 *
 * A block that was never written (generation 0) is zeros. Of one line of a block a newer generation may have been written since the block was.
 * Threads: any; nothing is kept.
 */
#ifndef SECPOOL_TESTS_TORTURE_PATTERN_H
#define SECPOOL_TESTS_TORTURE_PATTERN_H

#include <stdbool.h>
#include <stdint.h>

enum { PATTERN_BLOCK_BYTES = 4096, PATTERN_LINE_BYTES = 64, PATTERN_LINES = PATTERN_BLOCK_BYTES / PATTERN_LINE_BYTES, PATTERN_NO_LINE = 255 };

/* The numbers that follow from a seed: the same for the same arguments, on every machine. */
uint64_t pattern_hash(uint64_t seed, uint64_t number);

/* What a block should hold. */
struct pattern_block {
	uint64_t region;  /* a number that no other region of the run has, 0: none */
	uint64_t block;   /* in the region */
	uint32_t generation;
	uint32_t line_generation; /* of `line`, if that is not PATTERN_NO_LINE */
	uint8_t line;
};

/* What was found in a block; bytes, and whether any. */
struct pattern_findings {
	uint64_t wrong_bytes, foreign_bytes;
	bool zeros, stale;
	unsigned first_line; /* that is not right */
	/* what the first line that is somebody's says of itself; region 0: none */
	uint64_t from_region, from_block, from_generation;
};

/* Makes the bytes of a block; of one line of it. */
void pattern_make(const struct pattern_block *block, void *bytes);
void pattern_make_line(const struct pattern_block *block, unsigned line, void *bytes);

/* Compares bytes (not in pool memory) with what the block should hold. True: all of it is right; else findings are added up. */
bool pattern_check(const struct pattern_block *block, const void *bytes, struct pattern_findings *findings);

#endif
