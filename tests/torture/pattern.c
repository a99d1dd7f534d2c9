/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/torture/pattern.h"

#include <string.h>

enum { WORDS = PATTERN_LINE_BYTES / sizeof(uint64_t), PROOF = 3 };

/* splitmix64 (Steele, Lea, Flood 2014) */
static uint64_t mix(uint64_t z)
{
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

uint64_t pattern_hash(uint64_t seed, uint64_t number)
{
	return mix(mix(seed + 0x9e3779b97f4a7c15ull) + 0x9e3779b97f4a7c15ull * (number + 1));
}

/* The words behind those that say what the line is follow from them. */
static void prove(uint64_t words[WORDS])
{
	uint64_t state = mix(words[0]) ^ mix(words[1] + 0x632be59bd9b4e019ull) ^
			 mix(words[2] + 0xd1342543de82ef95ull);

	for (int i = PROOF; i < WORDS; i++)
		words[i] = mix(state += 0x9e3779b97f4a7c15ull);
}

static void make(uint64_t words[WORDS], uint64_t region, uint64_t at, uint64_t generation)
{
	words[0] = region;
	words[1] = at;
	words[2] = generation;
	prove(words);
}

static uint32_t generation_of(const struct pattern_block *block, unsigned line)
{
	return line == block->line ? block->line_generation : block->generation;
}

void pattern_make_line(const struct pattern_block *block, unsigned line, void *bytes)
{
	uint64_t words[WORDS] = {0};

	if (generation_of(block, line) != 0)
		make(words, block->region, block->block * PATTERN_LINES + line,
			generation_of(block, line));
	memcpy(bytes, words, sizeof words);
}

void pattern_make(const struct pattern_block *block, void *bytes)
{
	for (unsigned line = 0; line < PATTERN_LINES; line++)
		pattern_make_line(block, line, (uint8_t *)bytes + line * PATTERN_LINE_BYTES);
}

static bool all_zeros(const uint64_t words[WORDS])
{
	uint64_t any = 0;

	for (int i = 0; i < WORDS; i++)
		any |= words[i];
	return any == 0;
}

/* A line that is not as it should be. */
static void judge(const struct pattern_block *block, unsigned line, const uint64_t seen[WORDS],
	const uint64_t right[WORDS], struct pattern_findings *findings)
{
	uint64_t proof[WORDS];

	make(proof, seen[0], seen[1], seen[2]);
	if (all_zeros(seen)) {
		findings->zeros = true;
	} else if (memcmp(proof, seen, sizeof proof) != 0) {
		for (unsigned i = 0; i < PATTERN_LINE_BYTES; i++)
			findings->wrong_bytes +=
				((const uint8_t *)seen)[i] != ((const uint8_t *)right)[i];
	} else {
		if (findings->from_region == 0) {
			findings->from_region = seen[0];
			findings->from_block = seen[1] / PATTERN_LINES;
			findings->from_generation = seen[2];
		}
		if (seen[0] != block->region || seen[1] != block->block * PATTERN_LINES + line)
			findings->foreign_bytes += PATTERN_LINE_BYTES;
		else if (seen[2] < generation_of(block, line))
			findings->stale = true;
		else /* a generation that was not written yet */
			findings->wrong_bytes += PATTERN_LINE_BYTES;
	}
}

bool pattern_check(
	const struct pattern_block *block, const void *bytes, struct pattern_findings *findings)
{
	bool right = true;

	for (unsigned line = 0; line < PATTERN_LINES; line++) {
		uint64_t seen[WORDS], words[WORDS];
		memcpy(seen, (const uint8_t *)bytes + line * PATTERN_LINE_BYTES, sizeof seen);
		pattern_make_line(block, line, words);
		if (memcmp(seen, words, sizeof seen) == 0)
			continue;
		if (right)
			findings->first_line = line;
		right = false;
		judge(block, line, seen, words, findings);
	}
	return right;
}
